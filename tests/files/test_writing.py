"""Files are written whole or not at all, and whether they can be is told before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.files.writing import check_place, write_whole


def test_a_file_is_written_whole_with_its_folder_and_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "p.png"
    before = os.umask(0o027)
    try:
        write_whole(path, b"content")
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

    monkeypatch.setattr(f"cidm_cli.files.writing.{step}", fail)
    with pytest.raises((CidmError, KeyboardInterrupt)) as caught:
        write_whole(path, b"new")
    if isinstance(caught.value, CidmError):
        assert str(path) in caught.value.message
        assert "No space left" in caught.value.message
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


@pytest.mark.parametrize("name", ["p.png", "new/deep/p.png", "old.png"])
def test_a_place_that_can_be_written_is_found_fit_and_left_as_it_was(name: str, tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    check_place(tmp_path / name)
    assert [p.name for p in tmp_path.rglob("*")] == ["old.png"]
    write_whole(tmp_path / name, b"new")


@pytest.mark.parametrize(
    "name", ["old.png/p.png", "old.png/deep/p.png", "folder", "nowhere/p.png", "a" * 300]
)
def test_a_place_that_cannot_be_written_is_told_as_writing_would(name: str, tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    before = sorted(tmp_path.rglob("*"))
    for asked in (check_place, lambda path: write_whole(path, b"new")):
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
        check_place(tmp_path / "new" / "p.png")
