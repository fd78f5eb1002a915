"""Placing a picture of any size on a canvas of a given size, and drawing how to vary it."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from PIL import Image

SMALLEST_CROP = 0.8


@dataclass(frozen=True)
class Placement:
    """How a picture is laid on the canvas; the same for a picture and its mask."""

    crop: float = 1.0
    """share, in (0, 1], of the sides of the largest piece that has the canvas's aspect"""
    shift: tuple[float, float] = (0.0, 0.0)
    """where that piece lies, across and down: -1 at the left or top edge, 0 centred, 1 at the other edge"""
    mirror: bool = False
    """whether left and right are exchanged"""

    def apply(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """`place` with these parameters."""
        return place(image, size, crop=self.crop, shift=self.shift, mirror=self.mirror)

    def corner(self, image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """Where the piece begins, from the left and from the top, in pixels of the resized picture.

        ``image`` and ``size`` are (width, height) of the picture and of the canvas.
        """
        scale = self.crop * min(image[0] / size[0], image[1] / size[1])
        left, top = (
            (whole / scale - seen) * (1.0 + shift) / 2.0
            for whole, seen, shift in zip(image, size, self.shift, strict=True)
        )
        return round(left), round(top)


def place(
    image: Image.Image, size: tuple[int, int], *, crop: float, shift: tuple[float, float], mirror: bool
) -> Image.Image:
    """Cut a piece out of `image` and resize it to `size` (width, height in pixels), aspect kept.

    `crop`, `shift` and `mirror` are those of `Placement`; with crop 1 the piece is the largest that fits,
    so that the whole shorter side is seen. The result depends on the arguments alone.
    Raises ValueError for a crop outside (0, 1], a shift outside [-1, 1] or a size that is not positive.
    """
    if not 0.0 < crop <= 1.0 or not all(-1.0 <= s <= 1.0 for s in shift) or min(size) < 1:
        raise ValueError(f"no such placement: size {size}, crop {crop}, shift {shift}")
    scale = crop * min(image.width / size[0], image.height / size[1])
    width, height = size[0] * scale, size[1] * scale
    left = (image.width - width) * (1.0 + shift[0]) / 2.0
    top = (image.height - height) * (1.0 + shift[1]) / 2.0
    # Rounding may carry an edge a hair past the picture, which Pillow refuses.
    box = (max(left, 0.0), max(top, 0.0), min(left + width, image.width), min(top + height, image.height))
    placed = image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    return placed.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else placed


def draw_augmentation(rng: np.random.Generator, *, crop: bool = False, mirror: bool = False) -> Placement:
    """Draw a placement: with `crop`, a piece of SMALLEST_CROP to all of the picture anywhere in it; with
    `mirror`, left and right exchanged half of the time.

    Four numbers are drawn from `rng` whatever is asked for, so that switching one variation on does not
    change the other. Mirroring is off unless asked for: it spoils writing and whatever is not symmetric.
    """
    extent, across, down, flip = rng.random(4)
    return Placement(
        crop=float(1.0 - (1.0 - SMALLEST_CROP) * extent) if crop else 1.0,
        shift=(float(2.0 * across - 1.0), float(2.0 * down - 1.0)) if crop else (0.0, 0.0),
        mirror=bool(mirror and flip < 0.5),
    )


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
