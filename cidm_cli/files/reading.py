"""The one door for files of anyone's: what stands behind a name is looked at before it is read.

Kind and size here, depth and numbers in `json_files` and `toml_files`, pixels in `images`. A name may be that of a
pipe, a device or a link into them; a file may be larger than memory.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import CidmError, ExitCode


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The regular file `path`, open for reading.

    Raises CidmError: NOT_FOUND if there is no such file, INVALID if it is a folder, pipe or device, or while it is
    open cannot be read.
    """
    try:
        handle = _descriptor(path)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise CidmError(f"{path} is not a regular file", code=ExitCode.INVALID)
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise CidmError(f"{path}: no such file", code=ExitCode.NOT_FOUND) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise CidmError(f"{path} cannot be read: {reason}", code=ExitCode.INVALID) from error


def _descriptor(path: Path) -> int:
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        raise CidmError(f"{str(path)!r} can be no file's name: {error}", code=ExitCode.INVALID) from error


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the bytes of the regular file `path`, which must hold at most `limit` bytes.

    Raises CidmError as `opened` does, and INVALID for a larger file, of which nothing is read.
    """
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise _too_large(str(path), limit)
        return _within(limit, file.read(limit + 1), str(path))


def read_text(path: Path, limit: int) -> str:
    """The UTF-8 text of a file. Raises CidmError as `read_bounded` and `decode_utf8` do."""
    return decode_utf8(read_bounded(path, limit), str(path))


def read_standard_input(limit: int, source: str) -> bytes:
    """Return all that standard input holds, at most `limit` bytes.

    Raises CidmError: INVALID if it holds more, USAGE if there is none.
    """
    # None is what Python makes of a descriptor that was closed from the start: `<&-`.
    if sys.stdin is None:
        raise CidmError(f"{source} is closed", hint="pipe a file into it", code=ExitCode.USAGE)
    return _within(limit, sys.stdin.buffer.read(limit + 1), source)


def read_start(path: Path, count: int) -> bytes:
    """Return the first `count` bytes, or all if there are fewer. Raises CidmError as `opened` does."""
    with opened(path) as file:
        return file.read(count)


def _within(limit: int, content: bytes, source: str) -> bytes:
    if len(content) > limit:
        raise _too_large(source, limit)
    return content


def _too_large(source: str, limit: int) -> CidmError:
    return CidmError(f"{source} is larger than the {readable_size(limit)} allowed", code=ExitCode.INVALID)


def decode_utf8(content: bytes, source: str) -> str:
    """Decode UTF-8, with or without a byte order mark. Raises CidmError INVALID naming `source`."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CidmError(
            f"{source} is not UTF-8 text (byte {error.start})",
            hint="save it again as UTF-8",
            code=ExitCode.INVALID,
        ) from None


def readable_size(count: int) -> str:
    """`count` bytes in words: "12 bytes", "10 KiB", "256 MiB"."""
    if count >= 1 << 20:
        return f"{count / (1 << 20):.0f} MiB"
    if count >= 1 << 10:
        return f"{count / (1 << 10):.0f} KiB"
    return f"{count} bytes"
