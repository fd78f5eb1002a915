"""Pictures that say how they were made: what is written is read again, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cidm_cli.draw import png
from cidm_cli.errors import CidmError, ExitCode

FACTS: dict[str, Any] = {
    "format": 1,
    "prompt": 'a <dog>, "quoted" \\ 狐\nsecond line',
    "seed": 2**62,
    "options": {"steps": 20, "sampler": "dpm++", "guidance": 4.0, "size": [8, 8], "negative": "snow"},
    "weights": [0.1, 1e-30],
}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def file_of(folder: Path, *, key: str = "cidm", text: str | None = None, compressed: bool = False) -> Path:
    """A PNG file of another program."""
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_itxt(key, text, zip=compressed)
    PICTURE.save(folder / "foreign.png", pnginfo=info)
    return folder / "foreign.png"


def refused(path: Path, code: ExitCode = ExitCode.INVALID) -> str:
    with pytest.raises(CidmError) as caught:
        png.read_facts(path)
    assert caught.value.code == code
    assert str(path) in caught.value.message
    return caught.value.message


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png.encode(PICTURE, FACTS))
    assert png.read_facts(path) == FACTS
    assert Image.open(path).tobytes() == PICTURE.tobytes()


def test_equal_pictures_and_facts_give_equal_bytes() -> None:
    shuffled = dict(reversed(FACTS.items()))
    assert png.encode(PICTURE.copy(), shuffled) == png.encode(PICTURE, FACTS)
    assert png.encode(PICTURE, {**FACTS, "seed": 1}) != png.encode(PICTURE, FACTS)


def test_the_line_other_programs_show_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(png.encode(PICTURE, FACTS))
    shown = Image.open(tmp_path / "p.png").info["parameters"]
    assert shown.startswith(FACTS["prompt"])
    assert "Negative prompt: snow" in shown
    assert f"Steps: 20, Sampler: dpm++, CFG scale: 4, Seed: {2**62}, Size: 8x8" in shown


def test_a_picture_of_another_program_is_refused(tmp_path: Path) -> None:
    assert "does not say how it was made" in refused(file_of(tmp_path))
    refused(file_of(tmp_path, key="parameters", text="a dog"))


def test_a_picture_saved_again_by_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(png.encode(PICTURE, FACTS))
    Image.open(path).convert("L").save(path)
    refused(path)


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "1", "null", "{}", '{"format": 2}', '{"format": "1"}', "{" * 10, '{"format": 1'],
)
def test_a_text_that_is_not_ours_is_refused(text: str, tmp_path: Path) -> None:
    refused(file_of(tmp_path, text=text))


def test_a_text_nested_to_exhaust_the_stack_is_refused(tmp_path: Path) -> None:
    refused(file_of(tmp_path, text='{"format":1,"x":' + "[" * 100_000 + "]" * 100_000 + "}"))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_huge_text_is_refused(compressed: bool, tmp_path: Path) -> None:
    text = json.dumps({**FACTS, "prompt": "x" * (2 << 20)})
    refused(file_of(tmp_path, text=text, compressed=compressed))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", png.encode(PICTURE, FACTS)[:-40]])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(content)
    refused(tmp_path / "p.png")


def test_another_format_named_png_is_refused(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "p.png", "JPEG")
    refused(tmp_path / "p.png")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    refused(tmp_path / "none.png", ExitCode.NOT_FOUND)
    refused(tmp_path)
