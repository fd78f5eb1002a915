"""Pictures that follow a structure: layouts and prompts, crops, drawn again, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from cidm_cli.draw import png, structure
from cidm_cli.draw import scenes as layouts
from cidm_cli.draw.again import redraw
from cidm_cli.draw.encoded import Texts
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import COMPLETE, Job
from cidm_cli.draw.mixtures import Loader
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge import samples
from cidm_cli.layout import Layout, Structure, load_layout
from cidm_cli.models import regional, text
from cidm_cli.models import structure as models
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import DrawOptions, resolve_draw
from cidm_registry import Registry
from command import Cidm
from learning import files_of, learn_direct, task

DOG, CAT, BEACH = "a photo of a <dog>", "a photo of a cat", "a photo of the beach"
SCENE = """
[image]
steps = 2
seed = 4
mode = "%s"
[base]
prompt = "a photo of the beach"
[structure]
image = "lines/scribble.png"
kind = "scribble"
model = "control"
[[region]]
prompt = "a photo of a <dog>"
box = [0.0, 0.0, 0.5, 1.0]
"""


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that knows <dog>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog")))
    return registry


@pytest.fixture(scope="module")
def controls(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet and a T2I-Adapter for the tiny base, by kind. Do not change."""
    folder = tmp_path_factory.mktemp("controls")
    tiny.controlnet(base.denoiser).save_pretrained(folder / "controlnet")
    tiny.adapter("sd15").save_pretrained(folder / "t2i-adapter")
    return folder


def scribble(file: Path) -> Path:
    """Some dark lines on white."""
    pixels = np.full((64, 64), 255, np.uint8)
    pixels[10:54, 20:24] = pixels[30:34, 4:60] = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def scene(elsewhere: Path, controls: Path) -> Path:
    """A layout in the working folder, with its structure and its model beside it."""
    scribble(elsewhere / "lines" / "scribble.png")
    shutil.copytree(controls / "controlnet", elsewhere / "control")
    (elsewhere / "scene.toml").write_text(SCENE % "full")
    return Path("scene.toml")


def options(base: Base, **said: Any) -> DrawOptions:
    return resolve_draw({"steps": 2, **said}, "sd15", base.pixels)


def followed(tmp_path: Path, control: Path, **how: Any) -> structure.Followed:
    image = scribble(tmp_path / "lines" / "scribble.png")
    return structure.of_picture(image, structure.settings({"kind": "scribble", **how}), str(control))


def one(base: Base, registry: Registry, job: Job) -> np.ndarray:
    (picture,) = draw(registry, base, [job])
    return np.asarray(picture.image).astype(int)


def apart(first: np.ndarray, second: np.ndarray) -> int:
    return int(abs(first - second).max())


def layout(prompt: str, mode: str, box: tuple[float, ...] = (0, 0, 1, 1), **image: Any) -> Layout:
    return Layout.model_validate(
        {
            "image": {"mode": mode, **image},
            "base": {"prompt": prompt, "alpha": 0.0},
            "region": [{"prompt": prompt, "box": box}],
        }
    )


# -- what is drawn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["controlnet", "t2i-adapter"])
@pytest.mark.parametrize(
    "how", [{"mode": "fast"}, {"mode": "full"}, {"mode": "full", "crops": True}], ids=str
)
def test_a_region_everywhere_follows_as_the_plain_prompt_does(
    base: Base, taught: Registry, controls: Path, tmp_path: Path, kind: str, how: dict[str, Any]
) -> None:
    line = followed(tmp_path, controls / kind)
    told = Job(DOG, options(base, negative="red"), layout(DOG, **how), COMPLETE, line)
    plain = Job(DOG, options(base, negative="red"), structure=line)
    wanted = one(base, taught, plain)
    assert apart(one(base, taught, told), wanted) <= 2
    assert apart(wanted, one(base, taught, replace(plain, structure=None))) > 10


@pytest.mark.parametrize("kind", ["controlnet", "t2i-adapter"])
def test_regions_of_sdxl_follow_as_its_prompts_do(
    sdxl: Base, tiny_sdxl: Path, tmp_path: Path, kind: str
) -> None:
    """Its ControlNets are told prompts as wholes and sizes, too."""
    model = tiny.controlnet(sdxl.denoiser) if kind == "controlnet" else tiny.adapter("sdxl")
    model.save_pretrained(tmp_path / "model")
    registry = Registry.create(tmp_path / "registry", identify(str(tiny_sdxl)))
    line = followed(tmp_path, tmp_path / "model")
    drawing = resolve_draw(dict(steps=2, negative="red"), "sdxl", sdxl.pixels)
    told = Job(CAT, drawing, layout(CAT, "full", crops=True), COMPLETE, line)
    wanted = one(sdxl, registry, Job(CAT, drawing, structure=line))
    assert apart(one(sdxl, registry, told), wanted) <= 2
    assert apart(wanted, one(sdxl, registry, Job(CAT, drawing))) > 10


@pytest.mark.parametrize("how", [{"scale": 0}, {"from": 0.1, "until": 0.2}], ids=str)
def test_no_strength_or_no_step_is_no_structure(
    base: Base, taught: Registry, controls: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    job = Job(DOG, options(base), structure=followed(tmp_path, controls / "controlnet", **how))
    assert apart(one(base, taught, job), one(base, taught, replace(job, structure=None))) == 0


def test_a_picture_follows_the_same_in_any_batch(
    base: Base, taught: Registry, controls: Path, tmp_path: Path
) -> None:
    job = Job(DOG, options(base, count=3), structure=followed(tmp_path, controls / "controlnet"))
    together = [np.asarray(p.image).astype(int) for p in draw(taught, base, [job])]
    alone = [one(base, taught, replace(job, options=options(base, seed=seed))) for seed in range(3)]
    assert max(apart(a, b) for a, b in zip(together, alone, strict=True)) <= 2
    assert apart(together[0], together[1]) > 10


def test_the_models_hear_class_nouns_and_each_regions_own_prompt(base: Base, taught: Registry) -> None:
    told = Layout.model_validate(
        {
            "base": {"prompt": BEACH},
            "region": [
                {"prompt": DOG, "box": [0, 0, 0.5, 1], "negative": "red"},
                {"prompt": CAT, "box": [0.5, 0, 1, 1]},
            ],
        }
    )
    job = Job(BEACH, options(base, negative="snow"), told)
    load = Loader(taught, base)
    part = layouts.Part(job, layouts.choose(base, load, taught.records(), job), (0,))
    wanted = ["snow", BEACH, "red", "a photo of a dog", "snow", CAT]
    with torch.no_grad():
        (texts,) = text.encode(base, [text.tokenize(base, [words]) for words in wanted], {}, layers=1)
    assert torch.equal(Texts(base, load).heard([part.said]), texts)
    assert layouts.sources_of(1) == (4, 5)


def test_a_crop_follows_its_part_of_the_structure_with_its_own_text(
    base: Base, taught: Registry, controls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While there is much noise the region's part is looked at alone, too; then only the whole picture."""
    told = layout(DOG, "full", (0.5, 0, 1, 1), crops=True, size=(128, 64))
    line = followed(tmp_path, controls / "controlnet")
    job = Job(DOG, options(base, size=(128, 64), steps=4), told, COMPLETE, line)
    seen: list[models.Condition | None] = []

    def predict(_base: Base, latents: torch.Tensor, _t: Any, _rows: Any, what: Any) -> torch.Tensor:
        seen.append(what)
        assert what is None or what.pixels.shape[-2:] == tuple(8 * side for side in latents.shape[-2:])
        return torch.zeros_like(latents)

    monkeypatch.setattr(regional, "predict", predict)
    one(base, taught, job)
    shapes = [tuple(what.pixels.shape[-2:]) for what in seen if what]
    assert shapes == [(64, 128), (64, 64)] * 3 + [(64, 128)]
    whole, crop = seen[0], seen[1]
    assert whole is not None
    assert crop is not None
    assert torch.equal(crop.pixels[0], whole.pixels[0, :, :, 64:])
    assert torch.equal(crop.texts, whole.texts)
    assert len(crop.texts) == 2


# -- the command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_layouts_picture_is_drawn_again_byte_for_byte(
    cidm: Cidm, taught: Registry, scene: Path, mode: str
) -> None:
    scene.write_text(SCENE % mode)
    where = ("--registry", taught.root, "-o")
    ran = cidm("generate", scene, "-n", 3, "--batch", 2, *where, "out", "--json")
    assert ran.code == 0, ran.err
    told = ran.answer["images"][0]["structure"]
    assert told["image"] == "lines/scribble.png"
    assert len(told["sha256"]) == len(told["control"]["sha256"]) == 64
    scene.unlink()
    for path, content in files_of(Path("out")).items():
        assert cidm("generate", "--from", Path("out") / path, *where, path).code == 0
        assert Path(path).read_bytes() == content
    assert cidm("generate", "-p", BEACH, "--seed", 4, "--steps", 2, *where, "plain.png").code == 0
    assert Image.open("plain.png").tobytes() != Image.open(next(Path("out").iterdir())).tobytes()


def test_a_prompts_structure_is_given_by_flags(cidm: Cidm, taught: Registry, scene: Path) -> None:
    flags = ("--structure", "lines/scribble.png", "--structure-kind", "scribble", "--structure-scale", 0.5)
    more = ("--structure-from", 0, "--structure-until", 0.5, "--control", "control", "--steps", 2)
    where = ("--registry", taught.root)
    ran = cidm("generate", "-p", DOG, *flags, *more, *where, "-o", "one.png", "--json")
    assert ran.code == 0, ran.err
    (image,) = ran.answer["images"]
    said = {key: image["structure"][key] for key in ("kind", "scale", "from", "until")}
    assert said == {"kind": "scribble", "scale": 0.5, "from": 0.0, "until": 0.5}
    assert cidm("generate", "--from", "one.png", *where, "-o", "again.png").code == 0
    assert Path("again.png").read_bytes() == Path("one.png").read_bytes()


def test_the_model_is_looked_for_in_flag_layout_and_settings(
    cidm: Cidm, taught: Registry, scene: Path, controls: Path
) -> None:
    """In this order; a folder counts from where it is named."""
    where = ("--registry", taught.root, "--steps", 1, "--json", "-o", "out")
    Path("settings").mkdir()
    shutil.copytree(controls / "t2i-adapter", "adapter")
    Path("cidm.toml").write_text('control = "adapter"\n')

    def source(*flags: object) -> str:
        ran = cidm("generate", scene, *flags, *where)
        assert ran.code == 0, ran.err
        return Path(ran.answer["images"][0]["structure"]["control"]["source"]).name

    assert source() == "control"
    assert source("--control", controls / "t2i-adapter") == "t2i-adapter"
    scene.write_text((SCENE % "fast").replace('model = "control"\n', ""))
    assert source() == "adapter"
    Path("cidm.toml").unlink()
    ran = cidm("generate", scene, *where)
    assert ran.code == ExitCode.USAGE
    assert "--control" in ran.err
    assert "mask" in ran.err


REFUSED: dict[str, tuple[tuple[object, ...], ExitCode, str]] = {
    "no image": (("-p", DOG, "--structure", "none.png"), ExitCode.NOT_FOUND, "none.png"),
    "no model": (("-p", DOG, "--structure", "lines/scribble.png"), ExitCode.USAGE, "--control"),
    "no prompt": (("scene.toml", "--structure", "lines/scribble.png"), ExitCode.USAGE, "[structure]"),
    "nothing to scale": (("-p", DOG, "--structure-scale", 1), ExitCode.USAGE, "--structure-scale"),
    "too strong": (
        ("-p", DOG, "--structure", "lines/scribble.png", "--structure-scale", 3), ExitCode.USAGE, "--structure-scale 3",
    ),
    "no kind": (
        ("-p", DOG, "--structure", "lines/scribble.png", "--structure-kind", "depth"), ExitCode.USAGE, "'edge'",
    ),
    "backwards": (
        ("-p", DOG, "--structure", "lines/scribble.png", "--structure-from", 0.6, "--structure-until", 0.5),
        ExitCode.USAGE, "--structure-from",
    ),
    "drawn again": (("--from", "a.png", "--control", "control"), ExitCode.USAGE, "--from"),
    "not a model": (("scene.toml", "--control", "lines"), ExitCode.INVALID, "lines"),
    "a model that is gone": (("scene.toml", "--set", "structure.model=nowhere"), ExitCode.NOT_FOUND, "structure.model"),
    "a picture elsewhere": (("scene.toml", "--set", "structure.image=../a.png"), ExitCode.USAGE, "structure.image"),
    "a picture that is gone": (
        ("scene.toml", "--set", "structure.image=none.png"), ExitCode.NOT_FOUND, "structure.image",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_followed_is_refused_before_a_model_is_loaded(
    cidm: Cidm, taught: Registry, scene: Path, what: str
) -> None:
    arguments, code, told = REFUSED[what]
    ran = cidm("generate", *arguments, "--registry", taught.root)
    assert ran.code == code
    assert told in ran.err
    assert ran.error


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("how", ["link", "pipe", "nonsense", "folder"])
def test_a_hostile_picture_is_refused(
    cidm: Cidm, taught: Registry, scene: Path, tmp_path: Path, how: str
) -> None:
    file = Path("lines/scribble.png")
    content = file.read_bytes()
    file.unlink()
    if how == "link":
        (tmp_path / "secret.png").write_bytes(content)
        file.symlink_to(tmp_path / "secret.png")
    elif how == "pipe":
        import os

        os.mkfifo(file)
    elif how == "folder":
        file.mkdir()
    else:
        file.write_bytes(content[: len(content) // 2])
    for command in (("generate", scene), ("layout", "check", scene, "--no-concepts")):
        ran = cidm(*command, "--registry", taught.root)
        assert ran.code == ExitCode.INVALID
        assert "structure.image" in ran.out + ran.err


def test_a_scribble_without_lines_is_told(cidm: Cidm, taught: Registry, scene: Path) -> None:
    Image.new("L", (64, 64), 255).save("lines/scribble.png")
    ran = cidm("generate", scene, "--registry", taught.root)
    assert ran.code == ExitCode.INVALID
    assert "no lines" in ran.error


@pytest.mark.parametrize("what", ["picture", "model"])
@pytest.mark.parametrize("how", ["gone", "another"])
def test_what_is_gone_or_another_when_drawn_again_is_told(
    cidm: Cidm, taught: Registry, scene: Path, controls: Path, what: str, how: str
) -> None:
    assert cidm("generate", scene, "--registry", taught.root, "-o", "one.png").code == 0
    if what == "model":
        shutil.rmtree("control")
        if how == "another":
            shutil.copytree(controls / "t2i-adapter", "control")
    else:
        Path("lines/scribble.png").unlink()
        if how == "another":
            Image.new("L", (64, 64), 9).save("lines/scribble.png")
    ran = cidm("generate", "--from", "one.png", "--registry", taught.root, "-o", "again.png")
    assert ran.code == ExitCode.NOT_FOUND
    assert ("control" if what == "model" else "scribble.png") in ran.error
    assert not Path("again.png").exists()


EDITS: dict[str, Any] = {
    "no model": lambda told: told.pop("control"),
    "too strong": lambda told: told.update(scale=9),
    "another kind": lambda told: told.update(kind="depth"),
    "backwards": lambda told: told.update({"from": 1.0}),
    "a key more": lambda told: told.update(more=1),
    "a picture in numbers": lambda told: told.update(image=3),
    "a model in words": lambda told: told.update(control="words"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_picture_with_edited_text_is_refused(
    edit: str, base: Base, taught: Registry, controls: Path, tmp_path: Path
) -> None:
    job = Job(DOG, options(base, steps=1), structure=followed(tmp_path, controls / "t2i-adapter"))
    (picture,) = draw(taught, base, [job])
    facts = json.loads(json.dumps(picture.facts))
    EDITS[edit](facts["structure"])
    with pytest.raises(CidmError) as caught:
        redraw(taught, base, facts)
    assert caught.value.code == ExitCode.INVALID


def test_a_layouts_picture_that_no_longer_tells_its_structure_is_refused(
    base: Base, taught: Registry, scene: Path
) -> None:
    told = load_layout(scene)
    job = Job(BEACH, options(base, steps=1), told, COMPLETE, structure.of_layout(told))
    (picture,) = draw(taught, base, [job])
    facts = json.loads(json.dumps(picture.facts))
    assert redraw(taught, base, facts).image.tobytes() == picture.image.tobytes()
    for edit in (lambda: facts.update(structure=None), lambda: facts.pop("structure")):
        edit()
        with pytest.raises(CidmError) as caught:
            redraw(taught, base, facts)
        assert caught.value.code == ExitCode.INVALID


def test_pictures_say_nothing_of_structures_they_do_not_follow(base: Base, taught: Registry) -> None:
    (picture,) = draw(taught, base, [Job(DOG, options(base, steps=1))])
    assert "structure" not in picture.facts


# -- evaluation -------------------------------------------------------------------------------------------------


def test_samples_are_kept_by_what_they_follow(base: Base, taught: Registry, scene: Path) -> None:
    """The picture, how it is followed, and the model, but not where they lie."""
    load, there = Loader(taught, base), samples.Scene(tuple(taught.records()), options(base))

    def key(*overrides: str) -> str:
        told = load_layout(scene, overrides=overrides)
        (batch,) = samples.plan_layout(taught, base, load, there, told, COMPLETE)
        assert batch.job.structure or not told.structure
        return batch.keys[0]

    first = key()
    others = [key("structure.scale=0.5"), key("structure.from=0.5"), key("structure.kind=as-is")]
    shutil.copytree("control", "moved")
    assert key("structure.model=moved") == first
    scribble(Path("copy.png"))
    assert key("structure.image=copy.png") == first
    Image.new("L", (64, 64), 9).save("copy.png")
    others.append(key("structure.image=copy.png"))
    scene.write_text(
        (SCENE % "full").replace("[structure]", "[structure]\nmodel = 'control'").split("[structure]")[0]
    )
    others.append(key())
    assert len({first, *others}) == 6


def test_an_evaluations_picture_is_the_one_that_generate_draws(
    cidm: Cidm, base: Base, taught: Registry, scene: Path
) -> None:
    load, there = Loader(taught, base), samples.Scene(tuple(taught.records()), options(base, seed=4))
    batches = samples.plan_layout(taught, base, load, there, load_layout(scene), COMPLETE)
    samples.fill(taught, base, Path("kept"), batches)
    same = ("--precision", "fp32", "-o", "one.png")
    assert cidm("generate", scene, "--registry", taught.root, *same).code == 0
    kept = samples.read(Path("kept"), batches[0].keys[0])
    assert kept.tobytes() == Image.open("one.png").tobytes()
    assert png.read_facts(Path("one.png"))["structure"]["kind"] == "scribble"


def test_a_layout_with_a_structure_survives_being_written() -> None:
    told = load_layout("scene.toml", SCENE % "full")
    assert told.structure == Structure.model_validate(
        {"image": "lines/scribble.png", "kind": "scribble", "model": "control"}
    )
    assert load_layout("scene.toml", told.to_toml()) == told
    assert "from = 0.0" in told.to_toml()
