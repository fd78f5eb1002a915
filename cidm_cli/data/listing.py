"""What lies in a user's folder of pictures: which file is a picture, a caption, a mask of which."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cidm_cli.data.captions import read_caption
from cidm_cli.errors import CidmError, ExitCode

from ..errors import nearest
from ..files.images import picture_format
from ..files.reading import read_start

MAX_ENTRIES = 10_000

_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_MASK = re.compile(r"(?P<owner>.+)[-_. ]mask(?:label)?", re.IGNORECASE)
"""A mask's name, `NAME-mask` as other trainers vary it; `NAME-masklabel` is OneTrainer's."""
_CONDITION = re.compile(r"(?P<owner>.+)[-_. ]condlabel", re.IGNORECASE)
"""OneTrainer's name of a picture that another is to be made from."""
_MASK_FOLDERS = frozenset({"mask", "masks"})
"""Folders of masks, each with its picture's name."""
_REPEATED = re.compile(r"\d+_.+")
"""A folder of kohya's kind: repeats, trigger, class."""


@dataclass(frozen=True)
class Listing:
    """The regular files of a folder by what they are for."""

    folder: Path
    """Where the pictures lie: the one named, or the one of kohya's kind in it."""
    pictures: tuple[Path, ...]
    masks: dict[str, Path]
    """By the pictures' names, without suffix."""
    captions: dict[str, Path]
    """.txt files, likewise."""
    warnings: tuple[str, ...]
    """A line for everything that is left out."""

    def said(self) -> list[str]:
        """The pictures' captions, but for empty ones. Raises what `read_caption` raises."""
        return [text for path in self.captions.values() if (text := read_caption(path))]


def list_pictures(place: Path) -> Listing:
    """Looks through a flat folder, or at what belongs to a single picture.

    A folder without pictures that holds one folder of kohya's kind ("10_sks dog") stands for that one.

    Raises CidmError: NOT_FOUND, with a suggestion, if there is no such folder or file; INVALID, naming the file, for
    what cannot be read, where there is no picture, or where several folders of kohya's kind are meant.
    """
    # os.path answers no for names that the system cannot hold, where Path would raise.
    if not os.path.exists(place):
        raise CidmError(f"{place}: no such folder or image", _meant(place), ExitCode.NOT_FOUND)
    if not os.path.isdir(place):
        # It may lie among thousands of others: only what belongs to it is looked at.
        beside = [path for path in sorted(place.parent.iterdir()) if _belongs(path, place) and path.is_file()]
        return _with_pictures(place, _sorted_out(place.parent, [place, *beside], [], []))
    files, folders, warnings = _entries(place)
    found = _sorted_out(place, files, folders, warnings)
    inner = [folder for folder in folders if _REPEATED.fullmatch(folder.name)]
    if found.pictures or not inner:
        return _with_pictures(place, found)
    if len(inner) > 1:
        raise _invalid(
            f"{place} holds no image itself, but {len(inner)} folders: {', '.join(path.name for path in inner)}",
            f"learn them one after another, for instance from '{inner[0]}'",
        )
    there = list_pictures(inner[0])
    note = (
        f"{inner[0].name}: the images in it are learned; its number of repeats is not, --steps says how long"
    )
    return Listing(there.folder, there.pictures, there.masks, there.captions, (note, *there.warnings))


def _with_pictures(place: Path, found: Listing) -> Listing:
    if not found.pictures:
        raise _invalid(
            f"{place} holds no usable image", found.warnings[0] if found.warnings else "it is empty"
        )
    return found


def _sorted_out(folder: Path, files: list[Path], folders: list[Path], warnings: list[str]) -> Listing:
    warnings = [*warnings]
    texts = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    images = _images((path for path in files if path.suffix.lower() != ".txt"), warnings)
    stems = {path.stem for path in images}
    masks: dict[str, Path] = {}
    pictures = []
    for path in images:
        if match := _CONDITION.fullmatch(path.stem):
            warnings.append(
                f"{path.name}: what {match['owner']} is to be made from, to other trainers; skipped"
            )
        elif match := _MASK.fullmatch(path.stem):
            if match["owner"] in stems:
                _add(masks, match["owner"], path, path.name, warnings)
            else:
                warnings.append(f"{path.name}: the mask of no image; skipped (rename it if it is an image)")
        else:
            pictures.append(path)
    for inner in folders:
        if inner.name.casefold() not in _MASK_FOLDERS:
            warnings.append(f"{inner.name}: a folder; images in it are not used")
            continue
        for path in _images(_entries(inner)[0], warnings):
            if path.stem in stems:
                _add(masks, path.stem, path, f"{inner.name}/{path.name}", warnings)
            else:
                warnings.append(f"{inner.name}/{path.name}: the mask of no image; skipped")
    captions = {path.stem: texts[path.stem] for path in pictures if path.stem in texts}
    warnings += [f"{texts[s].name}: the caption of no image" for s in sorted(texts) if s not in stems]
    return Listing(folder, tuple(pictures), masks, captions, tuple(warnings))


def _belongs(path: Path, picture: Path) -> bool:
    """Whether a file is the caption of a picture, its mask or the like."""
    if path.suffix.lower() == ".txt":
        return path.stem == picture.stem
    named = _MASK.fullmatch(path.stem) or _CONDITION.fullmatch(path.stem)
    return named is not None and named["owner"] == picture.stem


def _add(masks: dict[str, Path], owner: str, mask: Path, shown: str, warnings: list[str]) -> None:
    if owner in masks:
        warnings.append(f"{shown}: a second mask of {owner}, beside {masks[owner].name}; skipped")
    else:
        masks[owner] = mask


def _images(paths: Iterable[Path], warnings: list[str]) -> list[Path]:
    """Those that hold a picture, by content; a warning for the others."""
    found = []
    for path in paths:
        if picture_format(read_start(path, 16)) is not None:
            found.append(path)
        elif path.suffix.lower() in _PICTURE_SUFFIXES:
            warnings.append(f"{path.name}: not a PNG, JPEG or WEBP image, whatever its name says; skipped")
        else:
            warnings.append(f"{path.name}: not a PNG, JPEG or WEBP image; skipped")
    return found


def _entries(folder: Path) -> tuple[list[Path], list[Path], list[str]]:
    """The regular files and the folders directly in `folder`, by name, and a warning for everything else."""
    found: list[Path] = []
    folders: list[Path] = []
    warnings: list[str] = []
    try:
        names = sorted(os.listdir(folder))
        home = folder.resolve(strict=True)
    except OSError as error:
        raise _invalid(f"{folder} cannot be read: {error.strerror}", "check its permissions") from error
    if len(names) > MAX_ENTRIES:
        raise _invalid(
            f"{folder} holds {len(names)} entries; at most {MAX_ENTRIES} are looked at",
            "put the few images of the concept into a folder of their own",
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
            folders.append(path)
        elif not stat.S_ISREG(mode):
            warnings.append(f"{name}: not a regular file; skipped")
        else:
            found.append(path)
    return found, folders, warnings


def _meant(place: Path) -> str | None:
    """What lies where nothing of that name does, if a name there is like it."""
    try:
        there = [
            path.name for path in place.parent.iterdir() if path.is_dir() or path.suffix in _PICTURE_SUFFIXES
        ]
    except (OSError, ValueError):
        return None
    near = nearest(place.name, there)
    return f"did you mean '{place.with_name(near)}'?" if near else None


def _invalid(message: str, hint: str) -> CidmError:
    return CidmError(message, hint=hint, code=ExitCode.INVALID)
