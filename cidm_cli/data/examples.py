"""A user's folder of pictures, with captions and masks beside them, as a data set to learn from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

from cidm_cli.data.captions import DEFAULT_TEMPLATE, caption_from_template, read_caption
from cidm_cli.data.listing import list_pictures
from cidm_cli.errors import CidmError, ExitCode

from ..files.images import MAX_FILE_BYTES, decode_mask, decode_picture
from ..files.reading import read_bounded

MAX_KEPT_SIDE = 2048
MAX_KEPT_PIXELS = 1_000_000_000
FEW = 3
COLOURED = 8
"""Mean difference of a mask's colour channels, of 255, above which it is no mask."""


@dataclass(frozen=True)
class Example:
    """One picture to learn from."""

    image: Image.Image
    """RGB; a shorter side above MAX_KEPT_SIDE pixels is reduced to it"""
    caption: str
    """one line, from the picture's .txt file or the template"""
    mask: Image.Image | None
    """L, the size of `image`: 255 where to learn, 0 where not"""
    path: Path
    """the file it came from"""
    digest: str
    """sha256 of the picture's own pixels (rotated, unreduced): the key for caches of what derives from it"""


@dataclass(frozen=True)
class Dataset:
    """The usable pictures of a folder."""

    examples: tuple[Example, ...]
    """without duplicates, ordered by content, so that neither renaming nor moving changes anything"""
    digest: str
    """sha256 of the set of pictures, captions and masks; their file names, times and folder do not enter"""
    warnings: tuple[str, ...]
    """a line for everything that was left out or looks unintended"""


def load_examples(folder: Path, *, class_noun: str, caption_template: str | None = None) -> Dataset:
    """Load the pictures of a flat folder, or a single picture file.

    PNG, JPEG and WEBP are told by content, whatever the file's name. NAME.txt is the caption of NAME.*,
    else `caption_template` ("a photo of a {noun}") is filled with `class_noun`. NAME-mask.png is the mask
    of NAME.*; `list_pictures` knows other trainers' names of it. Other files, folders, pipes and links that lead out
    of the folder are skipped with a warning.

    Raises CidmError: NOT_FOUND if there is no such folder or file; INVALID, naming the file, for a damaged
    or oversized picture, an unreadable caption, a mask that does not fit, or when no picture is usable.
    """
    listing = list_pictures(folder)
    warnings = list(listing.warnings)
    examples: dict[str, Example] = {}
    masks: dict[str, str] = {}
    kept_pixels = 0
    for path in listing.pictures:
        decoded = decode_picture(read_bounded(path, MAX_FILE_BYTES), str(path))
        if decoded.animated:
            warnings.append(f"{path.name}: animated; only its first frame is used")
        if decoded.transparent:
            warnings.append(
                f"{path.name}: what is transparent becomes white (a mask, {path.stem}-mask.png, leaves it out)"
            )
        digest = _pixel_digest(decoded.image)
        if digest in examples:
            warnings.append(f"{path.name}: the same image as {examples[digest].path.name}; left out")
            continue
        mask = None
        if path.stem in listing.masks:
            mask = _load_mask(listing.masks[path.stem], decoded.image.size)
            masks[digest] = _pixel_digest(mask)
            mask = _reduced(mask)
        image = _reduced(decoded.image)
        kept_pixels += image.width * image.height
        if kept_pixels > MAX_KEPT_PIXELS:
            raise _invalid(f"{folder} holds more images than fit in memory", "use fewer or smaller images")
        caption = read_caption(listing.captions[path.stem]) if path.stem in listing.captions else ""
        if not caption:
            caption = caption_from_template(caption_template or DEFAULT_TEMPLATE, class_noun)
        examples[digest] = Example(image, caption, mask, path, digest)
    if len(examples) < FEW:
        warnings.append(f"only {len(examples)} usable image(s); 3 to 7 teach a concept better")
    ordered = tuple(examples[digest] for digest in sorted(examples))
    return Dataset(ordered, _set_digest(ordered, masks), tuple(warnings))


def _load_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    content = read_bounded(path, MAX_FILE_BYTES)
    if _is_coloured(decode_picture(content, str(path)).image):
        raise _invalid(
            f"{path} has colours, and a mask has none",
            "paint the concept white and the rest black; or give it another name if it is an image",
        )
    mask = decode_mask(content, str(path)).image
    if mask.size != size:
        raise _invalid(
            f"{path} is {mask.width} x {mask.height} pixels but its image is {size[0]} x {size[1]}",
            "save the mask in the image's size",
        )
    if mask.getextrema() == (0, 0):
        raise _invalid(
            f"{path} is all black: nothing of its image would be learned", "paint the concept white"
        )
    return mask


def _is_coloured(image: Image.Image) -> bool:
    red, green, blue = image.split()
    apart = (ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return max(ImageStat.Stat(channel).mean[0] for channel in apart) > COLOURED


def _reduced(image: Image.Image) -> Image.Image:
    """No larger than training can use, so that a folder of camera pictures stays within memory."""
    if min(image.size) <= MAX_KEPT_SIDE:
        return image
    ratio = MAX_KEPT_SIDE / min(image.size)
    size = (round(image.width * ratio), round(image.height * ratio))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _pixel_digest(image: Image.Image) -> str:
    return hashlib.sha256(
        f"{image.mode} {image.width} {image.height} ".encode() + image.tobytes()
    ).hexdigest()


def _set_digest(examples: tuple[Example, ...], masks: dict[str, str]) -> str:
    whole = hashlib.sha256(b"pictures and captions, version 1\n")
    for example in examples:
        # Captions are one line, so that a line each cannot be confused with one another.
        whole.update(f"{example.digest}\n{masks.get(example.digest, '')}\n{example.caption}\n".encode())
    return whole.hexdigest()


def _invalid(message: str, hint: str) -> CidmError:
    return CidmError(message, hint=hint, code=ExitCode.INVALID)
