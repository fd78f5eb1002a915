"""One picture file, from untrusted bytes to plain pixels.

The format is told by content, size and shape are checked in the header before any pixel is decoded, and
nothing of the file survives but its pixels: rotation is applied, metadata and colour profiles are dropped.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import CidmError, ExitCode

MAX_FILE_BYTES = 256 << 20
MAX_PIXELS = 64_000_000
MAX_ASPECT = 10
MIN_SIDE = 16

_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """The pixels of one file."""

    image: Image.Image
    """mode RGB, or L for a mask"""
    animated: bool
    """whether the file holds more frames than the one returned"""
    transparent: bool
    """whether some of it is, or was, transparent"""


def picture_format(content: bytes) -> str | None:
    """The format that the first bytes of a file give away: "PNG", "JPEG", "WEBP" or None."""
    if content.startswith(_PNG):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    return None


def decode_picture(content: bytes, source: str) -> Decoded:
    """Decode a PNG, JPEG or WEBP file as RGB; what is transparent becomes white.

    Raises CidmError INVALID, naming `source`, for other formats, damaged or cut-off files, more than
    MAX_PIXELS pixels, a side under MIN_SIDE pixels, or sides in a ratio above MAX_ASPECT.
    """
    return _decode(content, source, _to_rgb)


def decode_mask(content: bytes, source: str) -> Decoded:
    """Decode a PNG, JPEG or WEBP file as grey (L); what is transparent becomes black, that is, left out.

    Raises CidmError as `decode_picture` does.
    """
    return _decode(content, source, _to_grey)


def _decode(content: bytes, source: str, convert: Callable[[Image.Image], Image.Image]) -> Decoded:
    if picture_format(content) is None:
        raise _invalid(f"{source} is not a PNG, JPEG or WEBP image", "convert it to one of these")
    with opened(content, source) as picture:
        _check_shape(picture.size, source)
        picture.load()
        # Some phones store a second view or a gain map behind a JPEG: that is no animation.
        animated = picture.format in ("PNG", "WEBP") and getattr(picture, "is_animated", False)
        transparent = picture.has_transparency_data and _alpha(picture).getextrema() != (255, 255)
        turn = _TURNS.get(_orientation(picture))
        image = convert(picture)
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    return Decoded(image, animated, transparent)


@contextmanager
def opened(
    content: bytes, source: str, formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP")
) -> Iterator[Image.Image]:
    """A picture file whose header was read, and of which no pixel is decoded yet.

    Raises CidmError INVALID, naming `source`, for more than MAX_PIXELS pixels; and whatever goes wrong while it is
    open means that the file is damaged or of another format.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns about sizes, which are checked here, and about metadata, which is dropped.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(_without_profile(content)), formats=formats) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise _too_many_pixels(source, picture.size)
                yield picture
    except (CidmError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise _too_many_pixels(source) from None
    except Exception as error:
        # Decoders meet hostile bytes with nearly any exception type; all mean the same to the user.
        raise _invalid(f"{source} is damaged or cut off: {error}", "copy or save the image again") from error


def _without_profile(content: bytes) -> bytes:
    """A PNG without its colour profile: that is dropped anyway, and Pillow reads no picture with one above 1 MB."""
    at = len(_PNG)
    while content.startswith(_PNG) and (kind := content[at + 4 : at + 8]) not in (b"IDAT", b"IEND", b""):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        if kind == b"iCCP":
            return content[:at] + content[end:]
        at = end
    return content


def _check_shape(size: tuple[int, int], source: str) -> None:
    width, height = size
    if min(size) < MIN_SIDE:
        raise _invalid(f"{source} is only {width} x {height} pixels", f"each side needs {MIN_SIDE} or more")
    if max(size) > MAX_ASPECT * min(size):
        raise _invalid(
            f"{source} is {width} x {height} pixels: too long and narrow to learn from",
            "crop it to the part that shows the concept",
        )


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        # Broken EXIF beside sound pixels is common in the wild; such a picture is taken as it lies.
        return 1


def _alpha(picture: Image.Image) -> Image.Image:
    return _eight_bit(picture).convert("RGBA").getchannel("A")


def _to_rgb(picture: Image.Image) -> Image.Image:
    picture = _eight_bit(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    return _composited(picture, (255, 255, 255))


def _to_grey(picture: Image.Image) -> Image.Image:
    picture = _eight_bit(picture)
    if not picture.has_transparency_data:
        return picture.convert("L")
    return _composited(picture, (0, 0, 0)).convert("L")


def _composited(picture: Image.Image, backdrop: tuple[int, int, int]) -> Image.Image:
    layers = picture.convert("RGBA")
    image = Image.new("RGB", layers.size, backdrop)
    image.paste(layers, mask=layers.getchannel("A"))
    return image


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Pillow's own conversion of 16-bit grey clips at 255 instead of scaling."""
    if picture.mode in ("I", "I;16", "I;16B", "I;16L"):
        return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return picture


def _too_many_pixels(source: str, size: tuple[int, int] | None = None) -> CidmError:
    shape = f"{size[0]} x {size[1]}" if size else "far too many"
    return _invalid(
        f"{source} has {shape} pixels; at most {MAX_PIXELS // 1_000_000} million are read",
        "make the image smaller",
    )


def _invalid(message: str, hint: str) -> CidmError:
    return CidmError(message, hint=hint, code=ExitCode.INVALID)
