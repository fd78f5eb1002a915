"""Parts of a picture: cutting them out, finding a size to draw them at, and putting them back without a seam."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from ..errors import CidmError, ExitCode

Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels, from the top left; the last two lie just outside."""


def parse_box(text: str) -> tuple[float, float, float, float]:
    """ "x0,y0,x1,y1" as numbers. Raises CidmError USAGE for anything else, and for edges in the wrong order."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise CidmError(
            f"--box {text}: not x0,y0,x1,y1", "write for instance --box 0.1,0.3,0.5,0.9", ExitCode.USAGE
        ) from None
    if not (all(math.isfinite(edge) and edge >= 0 for edge in (x0, y0, x1, y1)) and x0 < x1 and y0 < y1):
        raise CidmError(
            f"--box {text}: must be left, upper, right and lower edge", "0,0 is the top left", ExitCode.USAGE
        )
    return x0, y0, x1, y1


def pixel_box(box: tuple[float, float, float, float], size: tuple[int, int], source: str) -> Box:
    """A box in the pixels of a picture of `size`. Edges up to 1 are shares of its width and height, others pixels.

    Raises CidmError USAGE, naming `source`, for a box that reaches out of the picture.
    """
    scale = size if max(box) <= 1 else (1, 1)
    x0, y0, x1, y1 = (round(edge * scale[k % 2]) for k, edge in enumerate(box))
    # A box of less than half a pixel is one pixel, and stays in the picture.
    x0, y0 = min(x0, size[0] - 1), min(y0, size[1] - 1)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    if max(box) > 1 and (box[2] > size[0] or box[3] > size[1]):
        said = ",".join(f"{edge:g}" for edge in box)
        raise CidmError(
            f"{source} is {size[0]} x {size[1]} pixels: --box {said} reaches out of it",
            hint="edges up to 1 are shares of its width and height",
            code=ExitCode.USAGE,
        )
    return x0, y0, x1, y1


def box_mask(box: Box, size: tuple[int, int]) -> Image.Image:
    """A mask (L) of a picture of `size`: 255 in the box, 0 elsewhere."""
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


def window_around(box: Box, size: tuple[int, int], context: float) -> Box:
    """The square around a box, `context` times its longer side, moved and cut to lie in a picture of `size`.

    A pixel or more around the box is in it, but where the picture ends.
    """
    longer = max(box[2] - box[0], box[3] - box[1])
    wanted = max(round(longer * context), longer + 2)
    edges = []
    for low, high, total in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        length = min(wanted, total)
        start = min(max(round((low + high - length) / 2), 0), total - length)
        edges.append((start, start + length))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def fitting_size(size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """The size in the shape of `size` and with about `side`² pixels whose sides are multiples of `multiple`."""
    scale = side / math.sqrt(size[0] * size[1])
    width, height = (max(round(length * scale / multiple), 1) * multiple for length in size)
    return width, height


def touched(mask: Image.Image, grid: tuple[int, int]) -> np.ndarray:
    """Which cells of a `grid` (width, height) laid over a mask hold any part of a pixel of it: bool [height, width]."""
    inside = np.asarray(mask) > 0
    # Sums over all pixels above and to the left: each cell's own is a difference of four.
    sums = np.zeros((inside.shape[0] + 1, inside.shape[1] + 1), np.int64)
    sums[1:, 1:] = inside.cumsum(0).cumsum(1)
    (top, bottom), (left, right) = (
        (np.arange(cells) * pixels // cells, -(-np.arange(1, cells + 1) * pixels // cells))
        for cells, pixels in zip(reversed(grid), inside.shape, strict=True)
    )
    within = sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)]
    return within + sums[np.ix_(top, left)] > 0


def feathered(mask: Image.Image, width: float) -> Image.Image:
    """The mask (L) with its inner edge, `width` pixels of it, fading to nothing; never more than the mask.

    Where a mask ends with the picture it does not fade.
    """
    values = np.asarray(mask)
    share = np.clip((_depth(values > 0) - 0.5) / max(width, 0.5), 0.0, 1.0)
    return Image.fromarray((values * share).round().astype(np.uint8))


def pasted(picture: Image.Image, patch: Image.Image, alpha: Image.Image, at: Box) -> Image.Image:
    """A copy of the picture with `patch` over its part `at`, where and as much as `alpha` (L) says.

    Where alpha is 0 every pixel is the picture's own, bit for bit.
    """
    out = picture.copy()
    out.paste(patch, at, alpha)
    return out


def _depth(inside: np.ndarray) -> np.ndarray:
    """How many steps up, down, left or right lead out of each cell's own region: 0 outside; float [h, w]."""
    steps = np.where(inside, float(sum(inside.shape)), 0.0)
    for axis in (0, 1):
        place = np.arange(inside.shape[axis], dtype=float).reshape((-1, 1) if axis == 0 else (1, -1))
        before = np.minimum.accumulate(steps - place, axis) + place
        after = np.flip(np.minimum.accumulate(np.flip(steps + place, axis), axis), axis) - place
        steps = np.minimum(before, after)
    return steps
