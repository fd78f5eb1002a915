"""A user's folder of pictures, with captions and masks beside them, as a data set to learn from."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cidm_cli.data.captions import DEFAULT_TEMPLATE, caption_from_template, read_caption
from cidm_cli.data.decode import MAX_FILE_BYTES, decode_mask, decode_picture, picture_format
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.reading import read_bounded, read_start

MAX_ENTRIES = 10_000
MAX_KEPT_SIDE = 2048
MAX_KEPT_PIXELS = 1_000_000_000
FEW = 3

_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_MASK_ENDING = "-mask"


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


@dataclass(frozen=True)
class _Listing:
    """The regular files of a folder by what they are for."""

    pictures: tuple[Path, ...]
    masks: dict[str, Path]
    captions: dict[str, Path]
    warnings: tuple[str, ...]


def load_examples(folder: Path, *, class_noun: str, caption_template: str | None = None) -> Dataset:
    """Load the pictures of a flat folder, or a single picture file.

    PNG, JPEG and WEBP are told by content, whatever the file's name. NAME.txt is the caption of NAME.*,
    else `caption_template` ("a photo of a {noun}") is filled with `class_noun`. NAME-mask.png is the mask
    of NAME.*. Other files, folders, pipes and links that lead out of the folder are skipped with a warning.

    Raises CidmError: NOT_FOUND if there is no such folder or file; INVALID, naming the file, for a damaged
    or oversized picture, an unreadable caption, a mask that does not fit, or when no picture is usable.
    """
    listing = _list_files(folder)
    warnings = list(listing.warnings)
    examples: dict[str, Example] = {}
    masks: dict[str, str] = {}
    kept_pixels = 0
    for path in listing.pictures:
        decoded = decode_picture(read_bounded(path, MAX_FILE_BYTES), str(path))
        if decoded.animated:
            warnings.append(f"{path.name}: animated; only its first frame is used")
        digest = _pixel_digest(decoded.image)
        if digest in examples:
            warnings.append(f"{path.name}: the same picture as {examples[digest].path.name}; left out")
            continue
        mask = None
        if path.stem in listing.masks:
            mask = _load_mask(listing.masks[path.stem], decoded.image.size)
            masks[digest] = _pixel_digest(mask)
            mask = _reduced(mask)
        image = _reduced(decoded.image)
        kept_pixels += image.width * image.height
        if kept_pixels > MAX_KEPT_PIXELS:
            raise _invalid(
                f"{folder} holds more pictures than fit in memory", "use fewer or smaller pictures"
            )
        caption = read_caption(listing.captions[path.stem]) if path.stem in listing.captions else ""
        if not caption:
            caption = caption_from_template(caption_template or DEFAULT_TEMPLATE, class_noun)
        examples[digest] = Example(image, caption, mask, path, digest)
    if not examples:
        raise _invalid(f"{folder} holds no usable picture", warnings[0] if warnings else "it is empty")
    if len(examples) < FEW:
        warnings.append(f"only {len(examples)} usable picture(s); 3 to 7 teach a concept better")
    ordered = tuple(examples[digest] for digest in sorted(examples))
    return Dataset(ordered, _set_digest(ordered, masks), tuple(warnings))


def _list_files(folder: Path) -> _Listing:
    # os.path answers no for names that the system cannot hold, where Path would raise.
    if os.path.isdir(folder):
        candidates, warnings = _regular_files(folder)
    elif os.path.exists(folder):
        # A picture named by itself may lie among thousands of others: look only for what belongs to it.
        beside = (folder.with_suffix(".txt"), folder.with_name(f"{folder.stem}{_MASK_ENDING}.png"))
        candidates, warnings = [folder, *(path for path in beside if os.path.isfile(path))], []
    else:
        raise CidmError(f"{folder}: no such folder or picture", code=ExitCode.NOT_FOUND)

    captions = {path.stem: path for path in candidates if path.suffix.lower() == ".txt"}
    pictures = []
    for path in candidates:
        if path.suffix.lower() == ".txt":
            continue
        if picture_format(read_start(path, 16)) is not None:
            pictures.append(path)
        elif path.suffix.lower() in _PICTURE_SUFFIXES:
            warnings.append(f"{path.name}: not a PNG, JPEG or WEBP picture, whatever its name says; skipped")
        else:
            warnings.append(f"{path.name}: not a PNG, JPEG or WEBP picture; skipped")

    stems = {path.stem for path in pictures}
    masks = {}
    for path in pictures:
        owner = path.stem.removesuffix(_MASK_ENDING)
        if owner != path.stem and path.suffix.lower() == ".png":
            masks[owner] = path
            if owner not in stems:
                warnings.append(
                    f"{path.name}: the mask of no picture; skipped (rename it if it is a picture)"
                )
    warnings += [f"{captions[s].name}: the caption of no picture" for s in sorted(captions.keys() - stems)]
    return _Listing(tuple(p for p in pictures if p not in masks.values()), masks, captions, tuple(warnings))


def _regular_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The regular files directly in `folder`, by name, and a warning for everything else."""
    found, warnings = [], []
    try:
        names = sorted(os.listdir(folder))
        home = folder.resolve(strict=True)
    except OSError as error:
        raise _invalid(f"{folder} cannot be read: {error.strerror}", "check its permissions") from error
    if len(names) > MAX_ENTRIES:
        raise _invalid(
            f"{folder} holds {len(names)} entries; at most {MAX_ENTRIES} are looked at",
            "put the few pictures of the concept into a folder of their own",
        )
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        try:
            target = path.resolve(strict=True)
            mode = path.stat().st_mode
        except (OSError, RuntimeError):
            # A loop is an OSError or, before Python 3.13, a RuntimeError.
            warnings.append(f"{name}: a link that leads nowhere; skipped")
            continue
        if path.is_symlink() and not target.is_relative_to(home):
            warnings.append(f"{name}: a link that leads out of the folder; skipped")
        elif stat.S_ISDIR(mode):
            warnings.append(f"{name}: a folder; pictures in it are not used")
        elif not stat.S_ISREG(mode):
            warnings.append(f"{name}: not a regular file; skipped")
        else:
            found.append(path)
    return found, warnings


def _load_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    mask = decode_mask(read_bounded(path, MAX_FILE_BYTES), str(path)).image
    if mask.size != size:
        raise _invalid(
            f"{path} is {mask.width} x {mask.height} pixels but its picture is {size[0]} x {size[1]}",
            "save the mask in the picture's size",
        )
    if mask.getextrema() == (0, 0):
        raise _invalid(
            f"{path} is all black: nothing of its picture would be learned", "paint the concept white"
        )
    return mask


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
