"""Pictures that say how they were made: what is written is read again, and nothing else is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats import png

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


# Writing


def test_a_file_is_written_whole_with_its_folder_and_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "p.png"
    before = os.umask(0o027)
    try:
        png.write(path, b"content")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in path.parent.iterdir()] == ["p.png"]


@pytest.mark.parametrize("step", ["os.replace", "os.chmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"old")

    def fail(*_args: Any) -> None:
        raise error

    monkeypatch.setattr(f"cidm_cli.formats.png.{step}", fail)
    with pytest.raises((CidmError, KeyboardInterrupt)) as caught:
        png.write(path, b"new")
    if isinstance(caught.value, CidmError):
        assert str(path) in caught.value.message
        assert "No space left" in caught.value.message
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


@pytest.mark.parametrize("name", ["p.png", "new/deep/p.png", "old.png"])
def test_a_place_that_can_be_written_is_found_fit_and_left_as_it_was(name: str, tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    png.check_place(tmp_path / name)
    assert [p.name for p in tmp_path.rglob("*")] == ["old.png"]
    png.write(tmp_path / name, b"new")


@pytest.mark.parametrize(
    "name", ["old.png/p.png", "old.png/deep/p.png", "folder", "nowhere/p.png", "a" * 300]
)
def test_a_place_that_cannot_be_written_is_told_as_writing_would(name: str, tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    before = sorted(tmp_path.rglob("*"))
    for asked in (png.check_place, lambda path: png.write(path, b"new")):
        with pytest.raises(CidmError, match="cannot be written") as caught:
            asked(tmp_path / name)
        assert caught.value.code == ExitCode.FAILED
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_may_not_be_written_is_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the system, as whoever runs the tests may be allowed everything."""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(CidmError, match="Permission denied"):
        png.check_place(tmp_path / "new" / "p.png")
