"""Images that were dropped into the page, a folder for each concept: `cidm learn` reads the same folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cidm_registry import InvalidName, canonical_key

from ..errors import CidmError, ExitCode
from ..files.images import MAX_FILE_BYTES, decode_picture, picture_format
from ..files.places import words
from ..files.reading import decode_utf8, read_text
from ..files.writing import write_beside, write_whole
from .place import Place

MAX_FILES = 200
"""In one folder."""
MAX_CAPTION = 10 << 10
"""Bytes."""
MASK = "-mask.png"
"""What the name of an image's mask ends in."""
ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
"""By the format that a file's content shows."""


def listed(place: Place) -> list[dict[str, Any]]:
    """The folders, each with its images and, where a training of it can be resumed, what that was asked for with."""
    home = place.within("uploads")
    registry = place.workspace().registry
    unfinished = {run.config["key"]: _asked(run.config) for run in registry.runs()}
    names = sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    return [
        {"name": name, "unfinished": unfinished.get(name), "images": _images(place, name)}
        for name in names
        if _is_key(name)
    ]


def kept(place: Place, concept: str, name: str, content: bytes) -> str:
    """Keeps one uploaded file, an image or a caption, and returns its name.

    Raises:
        CidmError: INVALID for what `cidm learn` would not read, or for too much of it.
    """
    folder = _folder(place, concept)
    stem, ending = Path(name).stem, Path(name).suffix.lower()
    if len(content) > MAX_FILE_BYTES or (folder.is_dir() and len([*folder.iterdir()]) >= MAX_FILES):
        raise CidmError(f"{name}: too much", "3 to 7 images teach a concept well", ExitCode.INVALID)
    if ending == ".txt":
        if len(content) > MAX_CAPTION:
            raise CidmError(f"{name}: too long for a caption", code=ExitCode.INVALID)
        decode_utf8(content, name)
        write_whole(folder / f"{words(stem)}.txt", content)
        return f"{words(stem)}.txt"
    decode_picture(content, name)
    return write_beside(folder, words(stem), ENDINGS[picture_format(content) or "PNG"], content).name


def captioned(place: Place, concept: str, name: str, caption: str) -> dict[str, Any]:
    """Sets the caption of an image; an empty one leaves it to the template."""
    path = place.there("uploads", _folder(place, concept).name, name)
    content = " ".join(caption.split()).encode()
    if len(content) > MAX_CAPTION:
        raise CidmError("too long for a caption", code=ExitCode.INVALID)
    if content:
        write_whole(path.with_suffix(".txt"), content + b"\n")
    else:
        path.with_suffix(".txt").unlink(missing_ok=True)
    return {"caption": content.decode()}


def dropped(place: Place, concept: str, name: str) -> dict[str, Any]:
    """Deletes an uploaded image with its caption and mask."""
    path = place.there("uploads", _folder(place, concept).name, name)
    for one in (path.with_suffix(".txt"), path.with_name(f"{path.stem}{MASK}"), path):
        one.unlink(missing_ok=True)
    return {}


def _folder(place: Place, concept: str) -> Path:
    """The folder of a concept's images. Raises InvalidName for what is no concept's name."""
    return place.within("uploads", canonical_key(concept))


def _asked(config: dict[str, Any]) -> dict[str, Any]:
    options = config.get("options", {})
    said = {key: options[key] for key in ("steps", "seed") if key in options}
    return {"noun": config.get("noun", ""), "style": config.get("style", False), "options": said}


def _is_key(name: str) -> bool:
    try:
        return canonical_key(name) == name
    except InvalidName:
        return False


def _images(place: Place, concept: str) -> list[dict[str, Any]]:
    folder = place.within("uploads", concept)
    there = {path.name: path for path in sorted(folder.iterdir()) if path.suffix in ENDINGS.values()}
    masks = {name: mask for name, path in there.items() if (mask := f"{path.stem}{MASK}") in there}
    return [
        {"name": name, "caption": _caption(path), "mask": masks.get(name)}
        for name, path in there.items()
        if name not in masks.values()
    ]


def _caption(image: Path) -> str:
    path = image.with_suffix(".txt")
    return " ".join(read_text(path, MAX_CAPTION).split()) if path.exists() else ""
