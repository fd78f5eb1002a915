"""What can be drawn, but perhaps not as it was meant: regions that are thin, that meet, or that have no room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cidm_cli.layout.model import Box, Layout, Region, shown_key, thin_regions

from ..files.toml_files import KeyPath

LATENT_CELL = 8
"""Pixels that one cell of the latent picture spans in Stable Diffusion: nothing smaller is drawn by itself."""
HIDDEN = 0.9
"""Share of a region's box under later ones from which on it counts as hidden."""
TOUCHING = 1e-6
"""Shares of the picture's area that are no overlap but rounding."""


@dataclass(frozen=True)
class Picture:
    """What a layout is to be drawn on, as far as is known."""

    size: tuple[int, int] | None
    """width, height in pixels"""
    cells: tuple[int, int] | None
    """across, down: those of the base's coarsest attention map at that size"""
    multiple: int | None = None
    """What its sides must be multiples of, in pixels."""


def advice(layout: Layout, picture: Picture) -> list[str]:
    """Warnings about a layout, each with its place in the file, in the order of the regions."""
    found: list[tuple[KeyPath, str]] = []
    found += _thin(layout, picture)
    found += _without_room(layout, picture)
    found += _overlapping(layout)
    found.sort(key=lambda one: one[0][1])
    return [f"{layout.origin.place(path)}: {shown_key(path)} {message}" for path, message in found]


def overlap(one: Box, other: Box) -> float:
    """The area that two boxes have in common, in the square of their units."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _thin(layout: Layout, picture: Picture) -> Iterator[tuple[KeyPath, str]]:
    if picture.cells is None:
        return
    across, down = picture.cells
    for index in thin_regions(layout, picture.cells):
        yield (
            ("region", index, "box"),
            f"is thinner than a cell of the base's coarsest attention map ({across} x {down} cells): there it takes "
            "the one cell it holds most of",
        )


def _without_room(layout: Layout, picture: Picture) -> Iterator[tuple[KeyPath, str]]:
    for index, region in enumerate(layout.regions):
        if picture.size is not None and (box := layout.relative_box(region)) is not None:
            width, height = (box[2] - box[0]) * picture.size[0], (box[3] - box[1]) * picture.size[1]
            if min(width, height) < LATENT_CELL:
                yield (
                    ("region", index, "box"),
                    f"has no room: it is {width:.3g} x {height:.3g} pixels, and what is drawn is {LATENT_CELL} or more",
                )
        room = _room(layout, region, picture.size)
        if room is not None and region.feather > room:
            yield (
                ("region", index, "feather"),
                f"is {region.feather:g}, and the box has room for {room:.3g}: nothing of it is at full strength",
            )


def _room(layout: Layout, region: Region, size: tuple[int, int] | None) -> float | None:
    """The widest feather that leaves something of a box at full strength, in the feather's own units."""
    if region.box is None:
        return None
    width, height = region.box[2] - region.box[0], region.box[3] - region.box[1]
    if layout.image.units == "relative" and size is not None:
        shorter = min(size)
        width, height = width * size[0] / shorter, height * size[1] / shorter
    return min(width, height) / 2


def _overlapping(layout: Layout) -> Iterator[tuple[KeyPath, str]]:
    """A mask may keep two boxes apart: regions that have one are left out."""
    boxes = {
        index: box
        for index, region in enumerate(layout.regions)
        if region.mask is None and (box := layout.relative_box(region)) is not None
    }
    later_wins = layout.image.overlap == "priority"
    for index, box in boxes.items():
        others = {other: overlap(box, boxes[other]) for other in boxes if other > index}
        meeting = [other for other, area in others.items() if area > TOUCHING]
        if not meeting:
            continue
        area = (box[2] - box[0]) * (box[3] - box[1])
        named = ", ".join(f"region.{other}" for other in meeting[:5]) + (" and more" if meeting[5:] else "")
        most = max(others[other] for other in meeting) / area
        if not later_wins:
            yield ("region", index, "box"), f"overlaps {named}: there the mean of them is drawn"
        elif most >= HIDDEN:
            yield ("region", index, "box"), f"lies almost wholly under {named}: image.overlap is priority"
