"""`cidm generate`: the same picture from the same words, and again from the picture itself."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image

import tiny
from cidm_cli.draw import png
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Job
from cidm_cli.errors import ExitCode
from cidm_cli.models import sampling
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry
from command import Cidm, Ran
from learning import files_of, learn_direct, task

DOG = "a photo of a <dog>"
DRAW = ("generate", "--steps", 2, "--precision", "fp32")


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows <dog> and <cat>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog")))
    cats = tiny.save_pictures(folder / "cat", ("a photo of a cat",) * 3, seed=2)
    learn_direct(registry, base, task(cats, name="cat", noun="cat"))
    return registry.root


@pytest.fixture
def mine(taught: Path, tmp_path: Path) -> Registry:
    """A copy of the registry that knows <dog> and <cat>."""
    return Registry.open(shutil.copytree(taught, tmp_path / "mine"))


def only(folder: str | Path) -> Path:
    """The one file in a folder."""
    (path,) = Path(folder).iterdir()
    return path


def drawn(ran: Ran) -> list[Path]:
    assert ran.code == 0, ran.err
    return [Path(line) for line in ran.out.splitlines()]


def apart(first: Path, second: Path) -> int:
    """Largest difference of two pictures, of 255."""
    a, b = (np.asarray(Image.open(path)).astype(int) for path in (first, second))
    return int(abs(a - b).max())


# The same again


def test_the_same_words_give_the_same_file(cidm: Cidm, taught: Path) -> None:
    for folder in ("one", "two"):
        assert cidm(*DRAW, "-p", DOG, "-n", 3, "--registry", taught, "-o", folder).code == 0
    one = files_of(Path("one"))
    assert len(one) == 3
    assert files_of(Path("two")) == one
    assert len(set(one.values())) == 3, "each seed its own picture"


def test_what_is_said_changes_the_picture(cidm: Cidm, taught: Path) -> None:
    where = ("--registry", taught, "-q", "-o")
    (plain,) = drawn(cidm(*DRAW, "-p", DOG, *where, "plain"))
    for change in (
        ("--seed", 1), ("--steps", 3), ("--guidance", 1), ("--negative", "red"), ("--sampler", "ddim"),
    ):  # fmt: skip
        (other,) = drawn(cidm(*DRAW, "-p", DOG, *where, change[0].strip("-"), *change))
        assert apart(plain, other) > 0, change


def test_each_named_concept_is_in_the_picture(cidm: Cidm, taught: Path) -> None:
    prompts = ("a <dog>", "a <cat>", "a <dog> on a <cat>", "a dog on a cat")
    arguments = [word for prompt in prompts for word in ("-p", prompt)]
    answer = cidm(*DRAW, *arguments, "--registry", taught, "-o", "out", "--json").answer
    told = [[(c["key"], c["named"], set(c["weights"])) for c in i["concepts"]] for i in answer["images"]]
    dog, cat = ("dog", True, {1.0}), ("cat", True, {1.0})
    assert told == [[dog], [cat], [dog, cat], []]
    assert len({Image.open(image["path"]).tobytes() for image in answer["images"]}) == 4


def test_a_concept_not_named_changes_nothing(cidm: Cidm, mine: Registry) -> None:
    where = ("--registry", mine.root, "-o")
    assert cidm(*DRAW, "-p", DOG, *where, "with").code == 0
    mine.remove("cat")
    assert cidm(*DRAW, "-p", DOG, *where, "without").code == 0
    assert files_of(Path("without")) == files_of(Path("with"))


# Again from the picture


def test_a_picture_is_drawn_again_from_itself_byte_for_byte(cidm: Cidm, taught: Path) -> None:
    """Also one of a batch that was not the first, and one of a batch that was not full."""
    where = ("--registry", taught, "-q", "-o")
    pictures = drawn(
        cidm(*DRAW, "-p", DOG, "-n", 3, "--batch", 2, "--seed", 7, "--negative", "red", *where, "out")
    )
    for picture in pictures:
        again = f"again-{picture.name}"
        assert cidm("generate", "--from", picture, *where, again).code == 0
        assert Path(again).read_bytes() == picture.read_bytes()


def test_a_picture_from_a_layout_is_drawn_again_without_it(cidm: Cidm, taught: Path) -> None:
    layout = Path("scene.toml")
    layout.write_text('version = 1\n[image]\nseed = 3\nsteps = 2\n[base]\nprompt = "a <cat> on the beach"\n')
    where = ("--registry", taught, "-o")
    assert cidm("generate", layout, *where, "out").code == 0
    layout.unlink()
    assert cidm("generate", "--from", only("out"), *where, "again").code == 0
    assert files_of(Path("again")) == files_of(Path("out"))


def test_a_picture_is_drawn_again_after_the_registry_went_on(cidm: Cidm, base: Base, mine: Registry) -> None:
    """Another concept learned, the concept updated, the concept renamed: the picture is of the old version."""
    where = ("--registry", mine.root, "-o")
    assert cidm(*DRAW, "-p", DOG, *where, "before").code == 0
    (picture,) = files_of(Path("before")).values()
    ducks = tiny.save_pictures(Path("ducks"), ("a duck",) * 3, seed=4)
    learn_direct(mine, base, task(ducks, name="duck", noun="duck", steps=1))
    assert cidm("generate", "--from", only("before"), *where, "learned.png").code == 0
    assert Path("learned.png").read_bytes() == picture
    learn_direct(mine, base, task(ducks, update=True))
    assert cidm("generate", "--from", only("before"), *where, "updated.png").code == 0
    assert Path("updated.png").read_bytes() == picture
    assert cidm(*DRAW, "-p", DOG, *where, "new.png").code == 0
    assert apart(Path("new.png"), Path("updated.png")) > 0, "a prompt means the newest version"
    mine.rename("dog", "rex")
    ran = cidm("generate", "--from", only("before"), *where, "renamed.png")
    assert ran.code == 0, ran.err
    assert Path("renamed.png").read_bytes() == picture


def test_a_picture_of_a_removed_concept_says_so(cidm: Cidm, mine: Registry) -> None:
    assert cidm(*DRAW, "-p", DOG, "--registry", mine.root, "-o", "dog.png").code == 0
    mine.remove("dog")
    ran = cidm("generate", "--from", "dog.png", "--registry", mine.root, "-o", "again.png")
    assert ran.code == ExitCode.NOT_FOUND
    assert "<dog>" in ran.error
    assert not Path("again.png").exists()


def test_a_picture_of_another_base_says_so(cidm: Cidm, taught: Path, tiny_base: Path) -> None:
    assert cidm(*DRAW, "-p", DOG, "--registry", taught, "-o", "dog.png").code == 0
    other = shutil.copytree(tiny_base, "other")
    weights = Path(other) / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    Registry.create("elsewhere", identify(str(other)))
    ran = cidm("generate", "--from", "dog.png", "--registry", "elsewhere")
    assert ran.code == ExitCode.REGISTRY
    assert "another base" in ran.error


EDITS: dict[str, dict[str, Any]] = {
    "no prompt": {"prompt": None},
    "a prompt that names another concept": {"prompt": "a <fox>"},
    "a prompt that names a concept more": {"prompt": "a <dog> on a <cat>"},
    "no options": {"options": {}},
    "no batch": {"batch": []},
    "no seed": {"seed": ...},
    "a seed in words": {"batch": ["one"]},
    "concepts in words": {"concepts": "dog"},
    "an infinite place": {"index": float("inf")},
    "an infinite seed": {"batch": [float("inf")]},
    "no layout": {"layout": ...},
}
OPTION_EDITS: dict[str, dict[str, Any]] = {
    "steps": 0,
    "steps ": "many",
    "sampler": "../x",
    "size": [7, 7],
    "size ": [1 << 40, 64],
    "size  ": "large",
    "size   ": "",
    "steps  ": 1 << 70,
    "negative ": "\ud800",
    "guidance": None,
    "negative": 3,
    "unknown": 1,
}


@pytest.mark.parametrize("edit", [*EDITS, *(f"options: {name}" for name in OPTION_EDITS)])
def test_a_picture_with_edited_text_is_refused(edit: str, cidm: Cidm, taught: Path) -> None:
    assert cidm(*DRAW, "-p", DOG, "--registry", taught, "-o", "dog.png").code == 0
    facts = png.read_facts(Path("dog.png"))
    if edit.startswith("options: "):
        name = edit.removeprefix("options: ")
        facts["options"][name.strip()] = OPTION_EDITS[name]
    else:
        facts = {key: value for key, value in {**facts, **EDITS[edit]}.items() if value is not ...}
    Path("edited.png").write_bytes(with_facts(Image.open("dog.png"), facts))
    ran = cidm("generate", "--from", "edited.png", "--registry", taught, "-o", "again.png")
    assert ran.code == ExitCode.INVALID, ran.err
    assert ran.error
    assert not Path("again.png").exists()


def with_facts(image: Image.Image, facts: dict[str, Any]) -> bytes:
    """A PNG file that says whatever it is told to."""
    info = png.PngImagePlugin.PngInfo()
    info.add_itxt("cidm", json.dumps(facts))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def test_from_takes_no_other_settings(cidm: Cidm, taught: Path) -> None:
    ran = cidm("generate", "--from", "dog.png", "--seed", 3, "--registry", taught)
    assert ran.code == ExitCode.USAGE


# How the weights are mixed


@pytest.fixture
def spied(base: Base, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What is on the UNet at each of its calls."""
    seen: list[dict[str, Any]] = []
    forward = base.denoiser.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        modules = dict(base.denoiser.named_modules())
        seen.append(
            {
                "lora": [name for name, module in modules.items() if isinstance(module, LoraLayer)],
                "hooks": [name for name, module in modules.items() if module._forward_hooks],
                "pre-hooks": [name for name, module in modules.items() if module._forward_pre_hooks],
                "weights": {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()},
            }
        )
        return forward(*args, **kwargs)

    monkeypatch.setattr(base.denoiser, "forward", spy)
    return seen


def test_concepts_are_merged_into_the_weights_and_taken_out_again(
    base: Base, taught: Path, spied: list[dict[str, Any]]
) -> None:
    """Denoising costs what it costs without concepts: nothing is added to the forward pass."""
    registry = Registry.open(taught)
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    options = resolve_draw(dict(steps=2), "sd15", base.pixels)
    list(draw(registry, base, [Job("a <dog> on a <cat>", options)]))
    assert spied
    sites = {name for name in before if ".attn2.to_" in name and name.endswith("weight")}
    for during in spied:
        assert during["lora"] == []
        assert during["hooks"] == []
        assert sorted(during["pre-hooks"]) == sorted(base.layers)
        changed = {name for name, tensor in before.items() if not tensor.equal(during["weights"][name])}
        assert changed == sites
    after = base.denoiser.state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    assert not any(module._forward_pre_hooks for module in base.denoiser.modules())


def test_the_weights_are_put_back_when_drawing_is_given_up(
    base: Base, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(taught)
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    options = resolve_draw(dict(steps=2, count=3, batch=1), "sd15", base.pixels)
    pictures = draw(registry, base, [Job(DOG, options)])
    next(pictures)
    pictures.close()  # type: ignore[attr-defined]
    assert all(tensor.equal(before[name]) for name, tensor in base.denoiser.state_dict().items())
    monkeypatch.setattr(sampling, "decode", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(draw(registry, base, [Job(DOG, replace(options, count=1))]))
    assert all(tensor.equal(before[name]) for name, tensor in base.denoiser.state_dict().items())
    assert torch.is_grad_enabled()
