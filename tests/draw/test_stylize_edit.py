"""`cidm stylize` and `cidm edit`: what is kept is kept to the bit, what is said changes what is drawn."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from cidm_cli.data import place
from cidm_cli.draw import images as generate
from cidm_cli.draw import over, png
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.over_jobs import EditTask, StyleTask, plan_edit, plan_style
from cidm_cli.errors import ExitCode
from cidm_cli.files.given import read_given
from cidm_cli.models import sampling
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.sampling import decode, encode
from cidm_cli.models.schedules import SAMPLERS
from cidm_cli.options.declared import settled
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.over import EditOptions, StylizeOptions
from cidm_registry import Registry
from command import Cidm, Ran
from learning import files_of, learn_direct, task

FAST = ("--steps", 2, "--precision", "fp32")
STYLIZE = ("stylize", "house.png", "--style", "ink", *FAST)
EDIT = ("edit", "house.png", "--concept", "dog", *FAST)
BOX = ("--box", "20,30,50,70")


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows the object <dog> and the style <ink>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog")))
    inks = tiny.save_pictures(folder / "ink", ("a toy of a cat",) * 3, seed=2)
    learn_direct(registry, base, task(inks, name="ink", noun="toy"))
    return registry.root


@pytest.fixture
def house(elsewhere: Path) -> Path:
    """A picture of 90 x 75 pixels."""
    return save(elsewhere / "house.png", (90, 75))


def save(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    colours = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def painted(
    registry: Registry, base: Base, task: StyleTask | EditTask, on_step: Callable[[], None] = lambda: None
) -> list[generate.Picture]:
    return list(generate.draw(registry, base, over.jobs(registry, base, task), on_step=on_step))


def drawn(ran: Ran) -> list[Path]:
    assert ran.code == 0, ran.err
    return [Path(line) for line in ran.out.splitlines()]


@pytest.mark.parametrize("command", [STYLIZE, (*EDIT, *BOX)])
def test_a_place_that_cannot_be_written_is_refused_before_the_model_loads(
    command: tuple[object, ...], cidm: Cidm, taught: Path, house: Path, no_model: None
) -> None:
    ran = cidm(*command, "--registry", taught, "-o", house / "sub")
    assert ran.code == ExitCode.FAILED
    assert "house.png/sub" in ran.error


@pytest.mark.parametrize("command", [STYLIZE, (*EDIT, *BOX)])
def test_interrupted_between_pictures_it_tells_which_are_kept(
    command: tuple[object, ...], cidm: Cidm, taught: Path, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = sampling.decode, iter(range(2))

    def stop(*args: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sampling, "decode", stop)
    ran = cidm(*command, "-n", 2, "--batch", 1, "--registry", taught, "-o", "out", "--json")
    assert ran.code == ExitCode.INTERRUPTED
    assert (
        ran.error == f"error: interrupted after 1 of 2 images; what was drawn is in {Path('out').resolve()}"
    )
    (kept,) = Path("out").iterdir()
    assert ran.answer["error"]["images"] == [{"path": str(kept), **png.read_facts(kept)}]


# Outside the part, nothing changes


@pytest.mark.parametrize("size", [(90, 75), (64, 64), (300, 40), (33, 121)])
@pytest.mark.parametrize("crop", ["--crop", "--no-crop"])
def test_outside_the_box_every_pixel_is_the_given_pictures(
    size: tuple[int, int], crop: str, cidm: Cidm, taught: Path
) -> None:
    given = save(Path("given.png"), size)
    (path,) = drawn(
        cidm("edit", given, "--concept", "dog", *FAST, "--box", "0.3,0.4,0.6,0.8", crop,
             "--registry", taught, "-q", "-o", "out.png")
    )  # fmt: skip
    before, after = pixels(given), pixels(path)
    assert after.shape == before.shape
    x0, y0, x1, y1 = png.read_facts(path)["box"]
    inside = np.zeros(before.shape[:2], bool)
    inside[y0:y1, x0:x1] = True
    assert (after[~inside] == before[~inside]).all()
    assert np.abs(after[inside] - before[inside]).mean() > 5


def test_outside_a_mask_every_pixel_is_the_given_pictures_and_half_white_changes_half(
    cidm: Cidm, taught: Path, house: Path
) -> None:
    values = np.zeros((75, 90), np.uint8)
    values[10:40, 20:60] = 255
    values[20:30, 30:40] = 0
    values[50:70, 5:30] = 128
    Image.fromarray(values).save("mask.png")
    where = ("--mask", "mask.png", "--feather", 0, "--registry", taught, "-q", "-o")
    (half,) = drawn(cidm(*EDIT, *where, "half.png"))
    values[values == 128] = 255
    Image.fromarray(values).save("mask.png")
    (full,) = drawn(cidm(*EDIT, *where, "full.png"))
    before, changed, whole = pixels(house), pixels(half), pixels(full)
    assert (changed[values == 0] == before[values == 0]).all()
    part = (slice(50, 70), slice(5, 30))
    mixed = (before[part] + (whole[part] - before[part]) * 128 / 255).round()
    assert np.abs(changed[part] - mixed).max() <= 1
    assert np.abs(whole[part] - before[part]).mean() > 5


def test_a_feather_softens_the_edge_inside_the_box_only(cidm: Cidm, taught: Path, house: Path) -> None:
    before = pixels(house)
    steps = {}
    for feather in (0, 0.5):
        where = ("--feather", feather, "--registry", taught, "-q", "-o", f"{feather}.png")
        (path,) = drawn(cidm(*EDIT, *BOX, *where))
        after = pixels(path)
        after_outside, before_outside = after.copy(), before.copy()
        after_outside[30:70, 20:50] = before_outside[30:70, 20:50] = 0
        assert (after_outside == before_outside).all()
        change = np.abs(after - before)[30:70, 20:50]
        steps[feather] = (change[:, 0].mean(), change[18:22, 13:17].mean())
    assert steps[0.5][0] < 0.3 * steps[0][0]
    assert steps[0.5][1] > 0.5 * steps[0][1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_latents_outside_the_part_are_the_given_pictures_at_the_end(
    sampler: str, base: Base, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(taught)
    given = read_given(save(tmp_path / "given.png", (64, 64)))
    options = settled(EditOptions, dict(steps=3, sampler=sampler, crop=False))
    task = plan_edit(registry, [given], "dog", None, options, box="16,16,40,40")
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        sampling, "decode", lambda base, latents: seen.append(latents.clone()) or decode(base, latents)
    )
    painted(registry, base, task)
    clean, _ = encode(base, [given.image])
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:5, 2:5] = True
    assert torch.equal(seen[0][0][:, ~inside], clean[0][:, ~inside])
    assert not torch.isclose(seen[0][0][:, inside], clean[0][:, inside]).any(0).all()


# How much is kept


def test_strength_0_gives_the_autoencoders_round_trip(base: Base, taught: Path, house: Path) -> None:
    registry = Registry.open(taught)
    task = plan_style(registry, [read_given(house)], "ink", None, StylizeOptions(strength=0.0))
    assert generate.work(over.jobs(registry, base, task)) == 0
    (picture,) = painted(registry, base, task)
    seen = place(Image.open(house), picture.image.size, crop=1.0, shift=(0.0, 0.0), mirror=False)
    assert picture.image.tobytes() == decode(base, encode(base, [seen])[0])[0].tobytes()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_strength_1_draws_what_generate_draws(sampler: str, base: Base, taught: Path, house: Path) -> None:
    registry = Registry.open(taught)
    options = settled(StylizeOptions, dict(strength=1.0, steps=2, sampler=sampler, size=(64, 64), seed=7))
    task = plan_style(registry, [read_given(house)], "ink", None, options)
    (picture,) = painted(registry, base, task)
    draw = resolve_draw(dict(steps=2, sampler=sampler, seed=7), "sd15", base.pixels)
    (plain,) = generate.draw(registry, base, [Job("a <ink>", draw)])
    assert picture.image.tobytes() == plain.image.tobytes()


@pytest.mark.parametrize("invert", ["--invert", "--no-invert"])
def test_more_strength_keeps_less_of_the_picture(invert: str, cidm: Cidm, taught: Path, house: Path) -> None:
    """Results over two different pictures grow alike; at strength 1 they are the same."""
    save(Path("other.png"), (90, 75), seed=1)
    arguments = ("--style", "ink", invert, "--precision", "fp32", "--steps", 10, "--registry", taught, "-q")
    apart = []
    for strength in (0, 0.6, 1):
        first, second = (
            drawn(cidm("stylize", f"{name}.png", *arguments, "--strength", strength, "-o", f"{strength}"))[0]
            for name in ("house", "other")
        )
        apart.append(np.abs(pixels(first) - pixels(second)).mean())
    assert apart[0] > apart[1] > apart[2] == 0


def latents_of(
    base: Base, taught: Path, house: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[torch.Tensor, int]:
    """How far the latents that are decoded lie from the given picture's, and how often the UNet was asked."""
    registry = Registry.open(taught)
    chosen = settled(StylizeOptions, dict(steps=8, strength=0.75, **options))
    task = plan_style(registry, [read_given(house)], "ink", None, chosen)
    seen: list[torch.Tensor] = []
    asked: list[None] = []
    forward = base.denoiser.forward
    with monkeypatch.context() as patch:
        patch.setattr(
            sampling, "decode", lambda base, latents: seen.append(latents.clone()) or decode(base, latents)
        )
        patch.setattr(
            base.denoiser, "forward", lambda *args, **kwargs: asked.append(None) or forward(*args, **kwargs)
        )
        told: list[None] = []
        painted(registry, base, task, lambda: told.append(None))
    assert len(told) == generate.work(over.jobs(registry, base, task))
    return seen[0], len(asked)


def test_noise_found_in_the_picture_leads_back_to_it_where_nothing_pulls_away(
    base: Base, taught: Path, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guidance 0 denoises as the inversion went: nearer to the picture than from any other noise."""
    clean, _ = encode(base, [place(Image.open(house), (64, 64), crop=1.0, shift=(0.0, 0.0), mirror=False)])
    apart = {}
    for invert in (True, False):
        found, asked = latents_of(
            base, taught, house, monkeypatch, invert=invert, guidance=0.0, size=(64, 64), sampler="ddim"
        )
        apart[invert] = float((found - clean).pow(2).mean())
        assert asked == (12 if invert else 6)
    assert apart[True] < 0.5 * apart[False]


def test_seeds_differ_also_where_noise_is_found_in_the_picture(
    base: Base, taught: Path, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = latents_of(base, taught, house, monkeypatch, seed=1)
    other, _ = latents_of(base, taught, house, monkeypatch, seed=2)
    assert not torch.allclose(one, other, atol=1e-2)


def test_noise_is_found_with_the_bases_own_weights(
    base: Base, taught: Path, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(taught)
    options = settled(StylizeOptions, dict(steps=4, strength=0.5))
    task = plan_style(registry, [read_given(house)], "ink", None, options)
    name = next(iter(base.sites("attn2")))
    own = base.denoiser.get_submodule(name).weight.clone()
    seen: list[bool] = []
    forward = base.denoiser.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(base.denoiser.get_submodule(name).weight.equal(own))
        return forward(*args, **kwargs)

    monkeypatch.setattr(base.denoiser, "forward", spy)
    painted(registry, base, task)
    assert seen == [True, True, False, False]


def test_what_is_said_changes_the_picture(cidm: Cidm, taught: Path, house: Path) -> None:
    for command in (STYLIZE, (*EDIT, *BOX)):
        where = ("--registry", taught, "-q", "-o")
        (plain,) = drawn(cidm(*command, *where, "plain.png"))
        for number, change in enumerate(
            (("--seed", 1), ("--strength", 0.5 if command is not STYLIZE else 1), ("--guidance", 1),
             ("--negative", "red"), ("--prompt", f"a red <{'ink' if command is STYLIZE else 'dog'}>"))
        ):  # fmt: skip
            (other,) = drawn(cidm(*command, *change, *where, f"{command[0]}-{number}.png"))
            assert np.abs(pixels(other) - pixels(plain)).max() > 0, change


def test_the_named_concepts_weights_are_used(cidm: Cidm, taught: Path, house: Path) -> None:
    answer = cidm(*EDIT, *BOX, "--registry", taught, "-o", "out.png", "--json").answer
    (concept,) = answer["images"][0]["concepts"]
    assert (concept["key"], concept["named"], set(concept["weights"])) == ("dog", True, {1.0})
    (other,) = drawn(cidm("edit", house, "--concept", "ink", *FAST, *BOX, "-p", "a photo of a <ink>",
                          "--registry", taught, "-q", "-o", "ink.png"))  # fmt: skip
    assert np.abs(pixels(other) - pixels("out.png")).max() > 0


# Sizes, several pictures, batches


@pytest.mark.parametrize("size", [(90, 75), (16, 16), (400, 41)])
def test_a_stylized_picture_has_the_given_ones_shape_and_the_bases_pixels(
    size: tuple[int, int], cidm: Cidm, taught: Path
) -> None:
    given = save(Path("given.png"), size)
    (path,) = drawn(
        cidm("stylize", given, "--style", "ink", *FAST, "--registry", taught, "-q", "-o", "out.png")
    )
    width, height = Image.open(path).size
    assert width % 32 == height % 32 == 0
    assert 0.5 < width * height / 64**2 < 2
    assert abs(width - 64 * (size[0] / size[1]) ** 0.5) <= 16


def test_size_says_what_is_drawn_at(cidm: Cidm, taught: Path, house: Path) -> None:
    where = ("--size", "96x32", "--registry", taught, "-q", "-o")
    (styled,) = drawn(cidm(*STYLIZE, *where, "styled.png"))
    assert Image.open(styled).size == (96, 32)
    (edited,) = drawn(cidm(*EDIT, *BOX, *where, "edited.png"))
    assert Image.open(edited).size == (90, 75)
    assert png.read_facts(edited)["options"]["size"] == [96, 32]


@pytest.mark.parametrize("size", ["64x65", "16x64", "8192x64"])
def test_a_size_the_base_cannot_draw_is_refused(size: str, cidm: Cidm, taught: Path, house: Path) -> None:
    for command in (STYLIZE, (*EDIT, *BOX)):
        ran = cidm(*command, "--size", size, "--registry", taught, "-o", "out")
        assert ran.code == ExitCode.USAGE
        assert size in ran.error
        assert not Path("out").exists()


def test_several_pictures_of_several_shapes_are_each_as_drawn_alone(
    cidm: Cidm, taught: Path, house: Path
) -> None:
    save(Path("wide.png"), (200, 60), seed=1)
    save(Path("other.png"), (90, 75), seed=2)
    box = ("--box", "0.2,0.2,0.6,0.6")
    for command, concept in (
        (("stylize", "--style", "ink"), "ink"),
        (("edit", "--concept", "dog", *box), "dog"),
    ):
        where = ("--registry", taught, "-n", 2, "--seed", 4, "-q", "-o")
        paths = drawn(cidm(*command, "house.png", "other.png", "wide.png", *FAST, *where, f"all-{concept}"))
        assert [path.name for path in paths] == [
            f"{stem}-{concept}-{seed}.png" for stem in ("house", "other", "wide") for seed in (4, 5)
        ]
        assert len({path.read_bytes() for path in paths}) == 6
        for path in paths:
            stem, _, seed = path.stem.split("-")
            where = ("--registry", taught, "--seed", seed, "-q", "-o")
            (alone,) = drawn(cidm(*command, f"{stem}.png", *FAST, *where, "alone.png"))
            # Batches of other sizes may round otherwise, no more.
            assert np.abs(pixels(alone) - pixels(path)).max() <= 2, path


def test_the_base_is_loaded_once_and_pictures_are_drawn_together(
    base: Base, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(taught)
    given = [read_given(save(tmp_path / f"{k}.png", (70 + k, 70), seed=k)) for k in range(3)]
    options = settled(StylizeOptions, dict(steps=2, strength=1.0, count=2, batch=4))
    task = plan_style(registry, given, "ink", None, options)
    rows: list[int] = []
    forward = base.denoiser.forward

    def spy(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(latents))
        return forward(latents, *args, **kwargs)

    monkeypatch.setattr(base.denoiser, "forward", spy)
    told: list[None] = []
    assert len(painted(registry, base, task, lambda: told.append(None))) == 6
    assert rows == [8, 8, 4, 4], "four and then two pictures, each with and without the prompt"
    assert len(told) == generate.work(over.jobs(registry, base, task)) == 2 * 6


def test_the_bases_weights_are_as_before(base: Base, taught: Path, house: Path) -> None:
    registry = Registry.open(taught)
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    options = settled(EditOptions, dict(steps=2, count=3, batch=1))
    task = plan_edit(registry, [read_given(house)], "dog", None, options, box="0,0,0.5,0.5")
    pictures = generate.draw(registry, base, over.jobs(registry, base, task))
    next(pictures)
    pictures.close()  # type: ignore[attr-defined]
    assert all(tensor.equal(before[name]) for name, tensor in base.denoiser.state_dict().items())


# What a picture says of itself


def test_the_same_command_gives_the_same_bytes(cidm: Cidm, taught: Path, house: Path) -> None:
    for command in (STYLIZE, (*EDIT, *BOX)):
        for folder in ("one", "two"):
            assert cidm(*command, "-n", 3, "--registry", taught, "-o", folder).code == 0
    assert len(files_of(Path("one"))) == 6
    assert files_of(Path("one")) == files_of(Path("two"))


def test_a_picture_tells_concepts_settings_and_what_it_was_drawn_over(
    cidm: Cidm, taught: Path, house: Path
) -> None:
    Image.new("L", (90, 75), 255).save("mask.png")
    (path,) = drawn(cidm(*EDIT, "--mask", "mask.png", "--registry", taught, "-q", "-o", "out.png"))
    facts = png.read_facts(path)
    sha = hashlib.sha256(house.read_bytes()).hexdigest()
    assert facts["picture"] == {"name": "house.png", "sha256": sha, "size": [90, 75]}
    sha = hashlib.sha256(Path("mask.png").read_bytes()).hexdigest()
    assert facts["mask"] == {"name": "mask.png", "sha256": sha}
    assert facts["command"] == "edit"
    assert facts["prompt"] == "a photo of a <dog>"
    assert facts["concepts"][0]["blob"] == Registry.open(taught).get("dog").blob
    assert facts["options"]["steps"] == 2
    assert facts["options"]["guidance"] == 7.5
    line = Image.open(path).text["parameters"]  # type: ignore[attr-defined]
    assert "Steps: 2" in line
    assert "Denoising strength: 1" in line


@pytest.mark.parametrize("kind", ["stylize", "edit", "mask"])
def test_from_names_the_command_that_draws_the_picture_again(
    kind: str, cidm: Cidm, taught: Path, house: Path
) -> None:
    Image.new("L", (90, 75), 255).save("my mask.png")
    command = {
        "stylize": (*STYLIZE, "--strength", 0.9),
        "edit": (*EDIT, "--no-crop", *BOX),
        "mask": (*EDIT, "--mask", "my mask.png"),
    }[kind]
    (path,) = drawn(
        cidm(*command, "--seed", 5, "--negative", "it's red", "--registry", taught, "-q", "-o", "out")
    )
    ran = cidm("generate", "--from", path, "--registry", taught, "-o", "again")
    assert ran.code == ExitCode.USAGE
    (hint,) = [line for line in ran.err.splitlines() if "cidm " in line and "run: " in line]
    words = shlex.split(hint.partition("run: cidm ")[2])
    assert cidm(*words, "--precision", "fp32", "--registry", taught, "-o", "again.png").code == 0
    assert (pixels("again.png") == pixels(path)).all()


def test_a_picture_with_edited_text_still_gets_an_answer(cidm: Cidm, taught: Path, house: Path) -> None:
    (path,) = drawn(cidm(*STYLIZE, "--registry", taught, "-q", "-o", "out.png"))
    facts = png.read_facts(path)
    changes: tuple[dict[str, Any], ...] = (
        {"command": 3}, {"command": ["edit"]}, {"options": None}, {"picture": {}}, {"command": "edit", "box": 4},
    )  # fmt: skip
    for change in changes:
        info = png.PngImagePlugin.PngInfo()
        info.add_itxt("cidm", json.dumps({**facts, **change}))
        Image.open(path).save("edited.png", pnginfo=info)
        ran = cidm("generate", "--from", "edited.png", "--registry", taught, "-o", "again.png")
        assert ran.code in (ExitCode.USAGE, ExitCode.INVALID)
        assert ran.error


# Refused before a model is loaded


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("stylize", "house.png", "--style", "inc"), ExitCode.NOT_FOUND, "<ink>"),
        (("stylize", "none.png", "--style", "ink"), ExitCode.NOT_FOUND, "none.png"),
        (("stylize", "house.png"), ExitCode.USAGE, "--style"),
        (("stylize", "--style", "ink"), ExitCode.USAGE, "IMAGE"),
        (("stylize", "text.png", "--style", "ink"), ExitCode.INVALID, "text.png"),
        (("stylize", "house.png", "--style", "ink", "-p", "a dog"), ExitCode.USAGE, "<ink>"),
        (("stylize", "house.png", "--style", "ink", "-p", "a <ink> of <x"), ExitCode.USAGE, "<x"),
        (("stylize", "house.png", "--style", "ink", "-p", "a <ink> of a <fox>"), ExitCode.NOT_FOUND, "<fox>"),
        (("stylize", "house.png", "--style", "ink", "--strength", 1.1), ExitCode.USAGE, "--strength"),
        (("stylize", "house.png", "--style", "ink", "--strength", "nan"), ExitCode.USAGE, "--strength"),
        (("stylize", "house.png", "--style", "ink", "-n", 0), ExitCode.USAGE, "--count"),
        (("stylize", "house.png", "--style", "ink", "--sampler", "x"), ExitCode.USAGE, "--sampler"),
        (("stylize", "house.png", "--style", "ink", "-n", 2, "-o", "a.png"), ExitCode.USAGE, "a.png"),
        (("stylize", "house.png", "--style", "ink", "-o", "./house.png"), ExitCode.USAGE, "given image"),
        (("edit", "house.png", "--concept", "dog"), ExitCode.USAGE, "--box"),
        (("edit", "house.png", "--concept", "dog", *BOX, "--mask", "m.png"), ExitCode.USAGE, "--mask"),
        (("edit", "house.png", "--concept", "dog", "--box", "1,2,3"), ExitCode.USAGE, "1,2,3"),
        (("edit", "house.png", "--concept", "dog", "--box", "0,0,91,10"), ExitCode.USAGE, "90 x 75"),
        (("edit", "house.png", "--concept", "dog", *BOX, "--feather", 0.6), ExitCode.USAGE, "--feather"),
        (("edit", "house.png", "--concept", "dog", "--mask", "small.png"), ExitCode.INVALID, "20 x 20"),
        (("edit", "house.png", "--concept", "dog", "--mask", "black.png"), ExitCode.INVALID, "all black"),
        (("edit", "house.png", "--concept", "dog", "--mask", "none.png"), ExitCode.NOT_FOUND, "none.png"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(
    arguments: tuple[object, ...], code: ExitCode, said: str, cidm: Cidm, taught: Path, house: Path, no_model: None
) -> None:  # fmt: skip
    Path("text.png").write_text("no image")
    Image.new("L", (20, 20), 255).save("small.png")
    Image.new("L", (90, 75), 0).save("black.png")
    before = house.read_bytes()
    ran = cidm(*arguments, "--registry", taught)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert ran.error
    assert house.read_bytes() == before


def test_a_style_used_as_an_object_and_the_other_way_round_is_said(
    cidm: Cidm, taught: Path, house: Path
) -> None:
    ran = cidm("stylize", house, "--style", "dog", *FAST, "--registry", taught, "-o", "out.png")
    assert ran.code == 0
    assert "<dog> was learned as an object" in ran.err


def test_settings_files_are_read(cidm: Cidm, taught: Path, house: Path) -> None:
    Path("cidm.toml").write_text("[stylize]\nstrength = 0.5\nsteps = 2\n[edit]\ncrop = false\nsteps = 1\n")
    where = ("--registry", taught, "--json", "-o")
    styled = cidm("stylize", house, "--style", "ink", *where, "a.png").answer["images"][0]
    assert (styled["options"]["strength"], styled["options"]["steps"]) == (0.5, 2)
    edited = cidm("edit", house, "--concept", "dog", *BOX, *where, "b.png").answer["images"][0]
    assert edited["options"]["crop"] is False
    assert edited["window"] == [0, 0, 90, 75]


def test_json_and_quiet_tell_the_same_files(cidm: Cidm, taught: Path, house: Path) -> None:
    arguments = (*STYLIZE, "-n", 2, "--registry", taught, "-o", "out")
    answer = cidm(*arguments, "--json").answer
    paths = [image["path"] for image in answer["images"]]
    quiet = cidm(*arguments, "-q")
    assert quiet.out.splitlines() == paths
    assert quiet.err == ""
    for image in answer["images"]:
        assert {"path": image["path"], **png.read_facts(Path(image["path"]))} == image


def test_only_the_given_registry_is_read(cidm: Cidm, taught: Path, house: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(taught, tmp_path / "mine")
    before = files_of(mine)
    assert cidm(*STYLIZE, "--registry", mine, "-o", "out.png").code == 0
    assert cidm(*EDIT, *BOX, "--registry", mine, "-o", "edited.png").code == 0
    assert files_of(mine) == before
