"""The one door for safetensors files from anyone: kind of file, size and header, before a weight is read. No torch."""

from __future__ import annotations

from pathlib import Path

from cidm_registry import MAX_HEADER, Header, Invalid, check_header

from ..errors import CidmError, ExitCode
from .reading import read_start

_FIRST = 512


def read_header(path: Path, *, shown: str = "", hint: str = "give a .safetensors file") -> Header:
    """What the regular file `path` says it holds; its tensors are not read, and fit its size.

    Args:
        shown: what to call it in errors; its path unless given.
        hint: what to give instead, for errors.

    Raises:
        CidmError: NOT_FOUND for no such file; INVALID, saying what it is, for a folder, pipe or device, for what is no
            safetensors file by its content, and for a header that no honest file has.
    """
    start = read_start(path, _FIRST)
    length = int.from_bytes(start[:8], "little")
    try:
        if _FIRST - 8 < length <= MAX_HEADER:
            start = read_start(path, 8 + length)
        return check_header(start, path.stat().st_size)
    except Invalid as error:
        message = f"{shown or path}: {error.message}"
        raise CidmError(message, error.hint or hint, ExitCode.INVALID) from error
