"""The parts of a drawn picture that are judged: each region's box, and the largest part outside all boxes."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageStat

from ..layout import Box

Part = tuple[int, int, int, int]
"""Pixels x0, y0, x1, y1 of a picture, the last two outside."""

NARROWEST = 0.2
"""Of the picture's shorter side: what is narrower says nothing to a judge."""
CELLS = 64
"""Across and down at most, in which a background is looked for."""


def within(box: Box, mask: Image.Image | None) -> Box:
    """The part of a box that holds all the white of a mask in it; the box itself where there is none."""
    found = None if mask is None else mask.getbbox()
    if mask is None or found is None:
        return box
    sides = (mask.width, mask.height, mask.width, mask.height)
    x0, y0, x1, y1 = (edge / side for edge, side in zip(found, sides, strict=True))
    inside = (max(x0, box[0]), max(y0, box[1]), min(x1, box[2]), min(y1, box[3]))
    return inside if inside[0] < inside[2] and inside[1] < inside[3] else box


def part_of(box: Box, size: tuple[int, int]) -> Part:
    """The pixels of a box given in shares of a picture's width and height; at least one."""
    width, height = size
    x0, y0 = min(round(box[0] * width), width - 1), min(round(box[1] * height), height - 1)
    return x0, y0, max(round(box[2] * width), x0 + 1), max(round(box[3] * height), y0 + 1)


def background(parts: Sequence[Part], size: tuple[int, int]) -> Part | None:
    """The largest rectangle that no part reaches into; None where all that is left is narrow."""
    width, height = size
    across, down = min(width, CELLS), min(height, CELLS)
    xs = [round(k * width / across) for k in range(across + 1)]
    ys = [round(k * height / down) for k in range(down + 1)]
    free = [
        [not any(_meets((xs[c], ys[r], xs[c + 1], ys[r + 1]), part) for part in parts) for c in range(across)]
        for r in range(down)
    ]
    best: Part | None = None
    heights = [0] * across
    for row in range(down):
        heights = [high + 1 if open_ else 0 for high, open_ in zip(heights, free[row], strict=True)]
        for left in range(across):
            low = down
            for right in range(left, across):
                low = min(low, heights[right])
                if not low:
                    break
                found = (xs[left], ys[row + 1 - low], xs[right + 1], ys[row + 1])
                if _narrow_side(found) >= NARROWEST * min(size) and (
                    best is None or _area(found) > _area(best)
                ):
                    best = found
    return best


def square(picture: Image.Image, part: Part) -> Image.Image:
    """A part of a picture as a judge is shown it: in the middle of a square of the part's own mean colour.

    Judges cut whatever is not square, and would cut the ends off. Stretched, a thing in a narrow box is told less
    surely: of references cut to half their width, the second judge then knows 38 of 42, and 42 in a square like this.
    """
    crop = picture.crop(part)
    side = max(crop.size)
    mean = tuple(round(value) for value in ImageStat.Stat(crop).mean)
    canvas = Image.new("RGB", (side, side), mean)
    canvas.paste(crop, ((side - crop.width) // 2, (side - crop.height) // 2))
    return canvas


def _meets(one: Part, other: Part) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _narrow_side(part: Part) -> int:
    return min(part[2] - part[0], part[3] - part[1])


def _area(part: Part) -> int:
    return (part[2] - part[0]) * (part[3] - part[1])
