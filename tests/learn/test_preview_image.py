"""The image in a concept's record: what generate draws, there or not, and never in the way of the concept."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cidm_cli.draw import images
from cidm_cli.draw.png import read_facts
from cidm_cli.errors import ExitCode
from cidm_cli.learn.preview_image import prompt_of
from cidm_registry import Registry
from command import Cidm
from learning import FAST


def test_a_concept_is_drawn_once_it_is_learned_as_generate_draws_it(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    where = ("--registry", tiny_registry.root, "--precision", "fp32")
    assert cidm("learn", "dog", pictures, *where, *FAST, "--preview-image").code == 0
    record = tiny_registry.get("dog")
    assert record.preview is not None
    kept = tiny_registry.blob_path(record.preview)
    facts = read_facts(kept)
    assert (facts["prompt"], facts["seed"]) == ("a photo of a <dog>", 0)
    ran = cidm("generate", "-p", "a photo of a <dog>", *where, "-q", "-o", "own.png")
    assert (ran.code, Path("own.png").read_bytes() == kept.read_bytes()) == (0, True), ran.err
    ran = cidm("generate", "--from", kept, *where, "-q", "-o", "again.png")
    assert (ran.code, Path("again.png").read_bytes() == kept.read_bytes()) == (0, True), ran.err
    assert cidm("learn", "cat", pictures, "--class", "dog", *where, *FAST).code == 0
    assert tiny_registry.get("cat").preview is None
    assert str(kept) in cidm("show", "dog", *where[:2]).out
    tiny_registry.rename("dog", "rex")
    tiny_registry.gc(grace=0.0)
    assert tiny_registry.get("rex").preview == record.preview
    assert tiny_registry.verify() == []

    listed = cidm("list", "-o", "sheet.png", *where[:2])
    assert "without a preview image: cat\n" in listed.err
    assert listed.out.splitlines()[-1] == "sheet.png"
    answer = cidm("list", "-o", "sheet.png", *where[:2], "--json").answer
    assert (answer["sheet"], [one["preview"] for one in answer["concepts"]]) == (
        "sheet.png",
        [record.preview, None],
    )
    with Image.open("sheet.png") as sheet, Image.open(kept) as image:
        assert sheet.width > 2 * 256, "both have their place"
        shown = sheet.crop((6, 6, 262, 262)).resize(image.size, Image.Resampling.NEAREST)
        assert shown.getpixel((32, 32)) == image.getpixel((32, 32))
    assert cidm("list", "-o", "sheet.jpg", *where[:2]).code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            RuntimeError("out of luck\nand more"),
            0,
            "<dog> is learned, but has no preview image: out of luck\n",
        ),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "<dog> is learned; interrupted while its preview"),
    ],
)
def test_what_stops_the_image_leaves_the_concept(
    error: BaseException, code: int, said: str, cidm: Cidm, tiny_registry: Registry, pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def draw(*_args: object, **_options: object) -> object:
        raise error

    monkeypatch.setattr(images, "draw", draw)
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--preview-image")
    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert tiny_registry.get("dog").preview is None
    assert tiny_registry.runs() == []
    assert tiny_registry.verify() == []


def test_a_style_is_shown_on_something_else() -> None:
    from registry_support import make_draft

    ink = make_draft("ink", class_noun="ink painting", style=True)
    assert prompt_of(ink) == "an <ink> of a house"
    assert prompt_of(make_draft("rex", class_noun="owl")) == "a photo of an <rex>"
