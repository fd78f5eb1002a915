"""The pictures that a layout names: masks, which say where a region is, and one whose lines are followed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout.model import Layout, shown_key

from ..files.reading import read_bounded
from ..files.toml_files import KeyPath

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 16 << 20


def mask_folder(layout: Layout) -> Path:
    """Where a layout's masks lie: the folder of its file, or the working folder for standard input."""
    return Path(layout.origin.source).parent


def read_masks(layout: Layout, folder: Path) -> dict[int, Image.Image]:
    """The masks of a layout's regions (mode L), by the region's index.

    Raises CidmError with the mask's place in the layout: NOT_FOUND if there is no such file; INVALID if it leads out
    of `folder`, is no picture, or is black all over.
    """
    return {
        index: read_mask(layout, index, folder)
        for index, region in enumerate(layout.regions)
        if region.mask is not None
    }


def read_mask(layout: Layout, index: int, folder: Path) -> Image.Image:
    """The mask of one region. Raises CidmError as `read_masks` does."""
    from ..files.images import decode_mask

    name = layout.regions[index].mask
    assert name is not None
    path: KeyPath = ("region", index, "mask")
    place = _place(layout, path)
    content = _content(place, folder, name, "save a grey image there, white where the region is")
    mask = decode_mask(content, f"{place}: {name}").image
    if mask.getextrema() == (0, 0):
        hint = "paint white where the region is"
        raise CidmError(f"{place}: {name} is black all over", hint, ExitCode.INVALID)
    return mask


def read_structure(layout: Layout, folder: Path) -> Image.Image:
    """The picture (mode RGB) whose lines a layout follows. Raises CidmError as `read_masks` does."""
    from ..files.images import decode_picture

    assert layout.structure
    place, name = _place(layout, ("structure", "image")), layout.structure.image
    content = _content(place, folder, name, "save the image there whose lines are to be followed")
    return decode_picture(content, f"{place}: {name}").image


def pixel_digest(image: Image.Image) -> str:
    """sha256 of a mask's, or a structure's, size and pixels: the same however its file is packed."""
    return hashlib.sha256(f"{image.width} {image.height} ".encode() + image.tobytes()).hexdigest()


def _place(layout: Layout, path: KeyPath) -> str:
    return f"{layout.origin.place(path)}: {shown_key(path)}"


def _content(place: str, folder: Path, name: str, hint: str) -> bytes:
    """A file in or under a folder; `hint` is what to do where there is none."""
    file = folder / name
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
        content = read_bounded(file, MAX_BYTES) if inside else b""
    except (CidmError, OSError, RuntimeError, ValueError) as error:
        code = error.code if isinstance(error, CidmError) else ExitCode.INVALID
        raise CidmError(f"{place}: {error}", hint if code == ExitCode.NOT_FOUND else None, code) from None
    if not inside:
        hint = "copy the image beside the layout"
        raise CidmError(f"{place}: {name} leads out of the layout's folder", hint, ExitCode.INVALID)
    return content
