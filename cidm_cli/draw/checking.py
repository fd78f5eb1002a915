"""All that is wrong with a layout, and what may not come out as meant, for the base of a registry. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cidm_registry import Registry

from ..errors import CidmError
from ..layout import Layout, all_faults, unfit_size, unknown_concepts
from ..layout.advice import Picture, advice
from ..layout.masks import mask_folder, read_mask, read_structure
from .canvas import picture_of


@dataclass(frozen=True)
class Checked:
    """What was found in one layout."""

    layout: Layout | None
    """None where it cannot be read"""
    faults: Sequence[CidmError]
    """in the order of the file, each with line and key in its details"""
    warnings: Sequence[str]
    """each with its place in the file"""
    picture: Picture
    """what it would be drawn on"""


def checked(
    path: str | Path, text: str | None, registry: Registry | None, names: Sequence[str] | None
) -> Checked:
    """Looks at a layout file, or at a text of that name.

    Args:
        names: the concepts there are; None: they are not looked for.
    """
    layout = all_faults(path, text)
    if isinstance(layout, list):
        return Checked(None, layout, (), picture_of(None, registry))
    picture = picture_of(layout.image.size, registry)
    faults = [] if names is None else [*unknown_concepts(layout, names)]
    if unfit := unfit_size(layout, picture.multiple):
        faults.append(unfit)
    for index, region in enumerate(layout.regions):
        if region.mask is not None:
            try:
                read_mask(layout, index, mask_folder(layout))
            except CidmError as error:
                faults.append(error)
    if layout.structure is not None:
        try:
            read_structure(layout, mask_folder(layout))
        except CidmError as error:
            faults.append(error)
    return Checked(layout, faults, advice(layout, picture), picture)
