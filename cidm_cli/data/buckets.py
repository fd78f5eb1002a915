"""Sizes to learn pictures at: about the area a base was trained on, and near each picture's own aspect."""

from __future__ import annotations

from math import log

STEP = 64
"""Sides are multiples of this many pixels, which the UNets of both families halve evenly."""


def bucket(image: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The size nearest in aspect to a picture's, both as (width, height).

    There are the square of ``pixels``, the base's own, and for each side in steps of STEP from half to twice of it
    the largest rectangle of no more area.
    """
    long = range(-(-pixels // 2 // STEP) * STEP, 2 * pixels + 1, STEP)
    pairs = [(side, pixels**2 // side // STEP * STEP) for side in long if side >= STEP]
    sizes = {(pixels, pixels), *pairs, *((b, a) for a, b in pairs)}
    aspect = log(image[0] / image[1])
    return min(
        ((w, h) for w, h in sizes if min(w, h) >= STEP or w == h),
        key=lambda size: (abs(log(size[0] / size[1]) - aspect), -size[0] * size[1], size),
    )
