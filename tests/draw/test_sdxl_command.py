"""SDXL from the first to the last command: learned, explained, drawn, drawn again, merged and judged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors

import judging
import original
import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn.batches import prepare
from cidm_cli.learn.run import Events, caption_tokens
from cidm_cli.models import sd_parts
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_registry import Registry
from command import Cidm
from learning import FAST, files_of, learn_direct, task

LAYERS, GROUPS = 18, 7
WIDTH = tiny.TEXT_WIDTH + tiny.SECOND_WIDTH
LAYOUT = """
version = 1
[image]
mode = "{mode}"
[base]
prompt = "a photo of the beach"
[[region]]
prompt = "a <dog>"
box = [0.0, 0.0, 0.5, 1.0]
[[region]]
prompt = "a <cat>"
box = [0.5, 0.0, 1.0, 1.0]
"""


@pytest.fixture(scope="module")
def place(sdxl: Base, tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry on the small SDXL that knows <dog> and <cat>, and data for both. Do not change."""
    folder = tmp_path_factory.mktemp("place")
    judging.save_data(folder / "data", dog="dog", cat="cat")
    registry = Registry.create(folder / "registry", identify(str(tiny_sdxl)))
    for name in ("dog", "cat"):
        learn_direct(registry, sdxl, task(folder / "data" / "pictures" / name, name=name, noun=name))
    return folder


@pytest.fixture
def root(place: Path, tmp_path: Path) -> Path:
    return shutil.copytree(place / "registry", tmp_path / "registry")


def tokens_of(root: Path, name: str) -> torch.Tensor:
    registry = Registry.open(root)
    return load_tensors(registry.read_blob(registry.get(name).blob))["tokens.text_encoder"]


def stopping_at(step: int) -> Events:
    done: list[int] = []
    return Events(on_step=lambda number, _: done.append(number), stop=lambda: done[-1] == step)


def picture(path: object) -> np.ndarray[Any, Any]:
    with Image.open(str(path)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def test_a_registry_is_made_and_taught_on_the_command_line(
    cidm: Cidm, tiny_sdxl: Path, pictures: Path, tmp_path: Path
) -> None:
    root = tmp_path / "new"
    made = cidm("init", "--base", tiny_sdxl, "--registry", root, "--json").answer
    assert made["base"]["kind"] == "sdxl"
    ran = cidm("learn", "dog", pictures, *FAST, "--registry", root, "--json")
    assert ran.code == 0, ran.err
    tokens = tokens_of(root, "dog")
    assert tokens.shape == (GROUPS, 2, WIDTH)
    assert not torch.equal(tokens[0], tokens[1]), "each group's copy was trained for itself"


@pytest.mark.parametrize(
    ("flags", "copies"), [(("--token-groups", "layer"), LAYERS), (("--portable",), 1), ((), GROUPS)]
)
def test_how_many_copies_of_its_tokens_a_concept_gets_can_be_chosen(
    cidm: Cidm, root: Path, pictures: Path, flags: tuple[str, ...], copies: int
) -> None:
    """And all of them can be drawn, together with others."""
    assert cidm("learn", "toy", pictures, *FAST, *flags, "--registry", root).code == 0
    assert tokens_of(root, "toy").shape == (copies, 2, WIDTH)
    ran = cidm("generate", "-p", "a <toy> and a <dog>", "--steps", 1, "--registry", root, "--json")
    assert ran.code == 0, ran.err


def test_other_groups_are_refused_before_a_model_is_loaded(cidm: Cidm, root: Path, pictures: Path) -> None:
    ran = cidm("learn", "toy", pictures, "--token-groups", "most", "--registry", root)
    assert ran.code == ExitCode.USAGE
    assert "--token-groups" in ran.error


@pytest.mark.parametrize("method", ["ewc", "lwf", "c-lora", "finetune"])
def test_every_method_of_learning_goes_on_from_a_concept(
    sdxl: Base, tiny_sdxl: Path, tmp_path: Path, method: str
) -> None:
    registry = Registry.create(tmp_path / "registry", identify(str(tiny_sdxl)))
    folder = tiny.save_pictures(tmp_path / "dog")
    for name in ("dog", "cat"):
        record = learn_direct(registry, sdxl, task(folder, name=name, method=method, steps=2, ewc_draws=2))
    assert record.method == method


def test_an_interrupted_training_ends_in_the_same_bytes(sdxl: Base, tiny_sdxl: Path, tmp_path: Path) -> None:
    folder = tiny.save_pictures(tmp_path / "dog")
    whole = Registry.create(tmp_path / "whole", identify(str(tiny_sdxl)))
    record = learn_direct(whole, sdxl, task(folder))
    parts = Registry.create(tmp_path / "parts", identify(str(tiny_sdxl)))
    for stop in (1, 3):
        with pytest.raises(CidmError, match="stopped"):
            learn_direct(parts, sdxl, task(folder, resume=stop > 1), stopping_at(stop))
    assert learn_direct(parts, sdxl, task(folder, resume=True)).blob == record.blob


def test_sdxl_is_told_each_pictures_size_and_cutting(sdxl: Base, base: Base, tmp_path: Path) -> None:
    """As it was trained to be: what is cut off and blurred is not taken for the concept's own."""
    work = task(tiny.save_pictures(tmp_path / "dog"), crop=True)
    captions = caption_tokens(sdxl, work, Events())
    data = prepare(sdxl, work.dataset, captions, work.options)
    assert data.pooled is not None
    assert data.pooled.shape == (3, tiny.POOLED_WIDTH)
    assert data.sizes is not None
    assert data.sizes.shape == (3, 2, 6)
    heights, widths, tops, lefts, *shown = data.sizes.flatten(0, 1).T
    assert {*heights.tolist()} == {72}
    assert {*widths.tolist()} == {80}
    assert {*torch.cat(shown).tolist()} == {tiny.PIXELS}
    assert (tops >= 0).all()
    assert (lefts >= 0).all()
    assert (tops + tiny.PIXELS <= 72 / 0.8 * tiny.PIXELS / 72 + 1).all()
    assert len({*lefts.tolist()}) > 1
    plain = prepare(base, work.dataset, captions, work.options)
    assert plain.sizes is None
    assert plain.pooled is None


def test_a_drawn_picture_is_drawn_again_byte_for_byte(cidm: Cidm, root: Path, tmp_path: Path) -> None:
    draw = ("generate", "--registry", root, "--json")
    first = cidm(*draw, "-p", "a <dog> on the beach", "--steps", 2, "-o", "out").answer["images"][0]["path"]
    again = cidm(*draw, "--from", first, "-o", "again").answer["images"][0]["path"]
    assert Path(first).read_bytes() == Path(again).read_bytes()
    other = cidm(*draw, "-p", "a dog on the beach", "--steps", 2, "-o", "out").answer["images"][0]["path"]
    assert np.abs(picture(first) - picture(other)).max() > 2, "the concept is in it"


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_layouts_with_regions_are_drawn(cidm: Cidm, root: Path, elsewhere: Path, mode: str) -> None:
    (elsewhere / "scene.toml").write_text(LAYOUT.format(mode=mode))
    ran = cidm("generate", "scene.toml", "--steps", 2, "--registry", root, "--json", "-o", "out")
    assert ran.code == 0, ran.err
    path = ran.answer["images"][0]["path"]
    again = cidm("generate", "--from", path, "--registry", root, "--json", "-o", "again").answer["images"][0][
        "path"
    ]
    assert Path(path).read_bytes() == Path(again).read_bytes()


def test_a_part_of_a_picture_is_drawn_anew(cidm: Cidm, root: Path, pictures: Path) -> None:
    given = pictures / "0.png"
    ran = cidm(
        "edit", given, "--concept", "dog", "--box", "0.25,0.25,0.75,0.75", "--steps", 2, "--registry", root,
        "-q", "-o", "edited.png",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    before, after = picture(given), picture("edited.png")
    assert before.shape == after.shape
    changed = np.abs(before - after).max(-1) > 0
    assert changed.mean() > 0.1
    assert not changed[: before.shape[0] // 5].any()


def test_explain_tells_every_layer(cidm: Cidm, root: Path) -> None:
    ran = cidm("explain", "a <dog>", "--method", "sharp", "--registry", root, "--json")
    assert ran.code == 0, ran.err
    assert len(ran.answer["layers"]) == LAYERS


@pytest.mark.parametrize("method", ["fuse", "mean"])
def test_concepts_are_merged_and_drawn_from_the_merged_file(cidm: Cidm, root: Path, method: str) -> None:
    quick = ("--steps", 1, "--drawings", 1, "--templates", 2) if method == "fuse" else ()
    ran = cidm("merge", "--method", method, *quick, "-o", "both.safetensors", "--registry", root, "--json")
    assert ran.code == 0, ran.err
    drawn = cidm(
        "generate",
        "-p",
        "a <dog>",
        "--merged",
        "both.safetensors",
        "--steps",
        1,
        "--registry",
        root,
        "--json",
    )
    assert drawn.code == 0, drawn.err


def test_concepts_are_judged(cidm: Cidm, root: Path, place: Path, tmp_path: Path) -> None:
    clip = judging.save_clip(tmp_path / "clip", with_tokenizer=True)
    ran = cidm(
        "eval", "--registry", root, "--data", place / "data", "--steps", 1, "-n", 1, "--clip", clip,
        "--dino", "none", "-o", "out", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [concept["name"] for concept in ran.answer["evaluation"]["concepts"]] == ["dog", "cat"]


def test_older_concepts_are_not_touched(cidm: Cidm, root: Path, pictures: Path) -> None:
    before = files_of(root)
    assert cidm("learn", "toy", pictures, *FAST, "--registry", root).code == 0
    after = files_of(root)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_single_file_is_learned_and_drawn_on(
    cidm: Cidm, base: Base, sdxl: Base, tiny_base: Path, tiny_sdxl: Path, pictures: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str,
) -> None:  # fmt: skip
    from safetensors.torch import save_file

    folders = {"sd15": tiny_base, "sdxl": tiny_sdxl}
    monkeypatch.setattr(sd_parts, "settings_folder", folders.__getitem__)
    monkeypatch.setattr(sd_parts, "clip_tokenizer", tiny.tokenizer)
    whole = {"sd15": base, "sdxl": sdxl}[family]
    file = tmp_path / "model.safetensors"
    save_file(original.checkpoint(whole.denoiser, whole.vae, *whole.encoders), file)
    root = tmp_path / "single"
    assert cidm("init", "--base", file, "--registry", root, "--json").answer["base"]["kind"] == family
    assert cidm("learn", "dog", pictures, *FAST, "--registry", root).code == 0
    drawn = cidm("generate", "-p", "a <dog>", "--steps", 1, "--registry", root, "--json")
    assert drawn.code == 0, drawn.err
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    changed = cidm("generate", "-p", "a <dog>", "--steps", 1, "--registry", root)
    assert changed.code == ExitCode.REGISTRY
    file.unlink()
    assert cidm("generate", "-p", "a <dog>", "--registry", root).code == ExitCode.NOT_FOUND
