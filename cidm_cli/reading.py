"""Reading a user's file whole, without trusting what stands behind its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from cidm_cli.errors import CidmError, ExitCode


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the bytes of the regular file `path`, which must hold at most `limit` bytes.

    Raises CidmError: NOT_FOUND if there is no such file, INVALID if it is a folder, pipe or device, is
    larger than `limit`, or cannot be read.
    """
    return _within(limit, read_start(path, limit + 1), str(path))


def read_stream(stream: BinaryIO, limit: int, source: str) -> bytes:
    """Return all that `stream` holds, at most `limit` bytes. Raises CidmError INVALID if it holds more."""
    return _within(limit, stream.read(limit + 1), source)


def read_start(path: Path, count: int) -> bytes:
    """Return the first `count` bytes, or all if there are fewer. Raises CidmError as `read_bounded` does."""
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise CidmError(f"{path} is not a regular file", code=ExitCode.INVALID)
            return file.read(count)
    except (FileNotFoundError, NotADirectoryError):
        raise CidmError(f"{path}: no such file", code=ExitCode.NOT_FOUND) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CidmError(f"{path} cannot be read: {reason}", code=ExitCode.INVALID) from error


def _within(limit: int, content: bytes, source: str) -> bytes:
    if len(content) > limit:
        raise CidmError(f"{source} is larger than the {readable_size(limit)} allowed", code=ExitCode.INVALID)
    return content


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
