"""A picture, or a mask, that the user gives to be drawn over."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import CidmError, ExitCode
from .images import MAX_FILE_BYTES, Decoded, decode_mask, decode_picture
from .reading import read_bounded


@dataclass(frozen=True)
class Given:
    """One file."""

    path: Path
    """as it was named"""
    image: Image.Image
    """RGB, or L for a mask; upright, without metadata"""
    sha256: str
    """of the file"""
    animated: bool
    """whether the file holds more frames than the one taken"""


def read_given(path: Path) -> Given:
    """Read a picture. Raises CidmError NOT_FOUND or INVALID, naming the file, as `decode_picture` does."""
    content = read_bounded(path, MAX_FILE_BYTES)
    return _given(path, content, decode_picture(content, str(path)))


def read_mask(path: Path) -> Given:
    """Read a mask: white where something may change, black where nothing may.

    Raises CidmError NOT_FOUND or INVALID, naming the file: as `decode_mask` does, and for one that is all black.
    """
    content = read_bounded(path, MAX_FILE_BYTES)
    decoded = decode_mask(content, str(path))
    if decoded.image.getextrema() == (0, 0):
        raise CidmError(
            f"{path} is all black: nothing may change", "paint white what is drawn anew", ExitCode.INVALID
        )
    return _given(path, content, decoded)


def _given(path: Path, content: bytes, decoded: Decoded) -> Given:
    return Given(path, decoded.image, hashlib.sha256(content).hexdigest(), decoded.animated)
