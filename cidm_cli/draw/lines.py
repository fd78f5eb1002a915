"""The lines of a picture, white on black: what models that follow a structure want to see."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

KINDS = ("edge", "scribble", "as-is")
"""What a picture is: an ordinary one, of which the edges are taken; a drawing of lines; or what the model wants."""
BLUR = 1.0
"""Pixels: edges of noise and of compression are no lines."""
SLOPE = 0.1
"""Of the step from black to white: where the grey changes less, there is no edge."""


def lines(image: Image.Image, kind: str, size: tuple[int, int]) -> Image.Image:
    """A picture's lines (RGB) in the size of the picture that is to have them.

    A picture of another shape is stretched, as masks are.
    """
    resized = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if kind == "as-is":
        return resized
    grey = resized.convert("L")
    return (edges(grey) if kind == "edge" else _white_on_black(grey)).convert("RGB")


def edges(grey: Image.Image) -> Image.Image:
    """The edges (L, 0 or 255) of a grey picture: Sobel's slopes, thinned to their ridges, above a threshold."""
    blurred = grey.filter(ImageFilter.GaussianBlur(BLUR))
    light = np.pad(np.asarray(blurred, np.float32) / 255, 1, mode="edge")
    across = light[:, 2:] - light[:, :-2]
    down = light[2:] - light[:-2]
    # Each is a difference over two pixels, smoothed by 1, 2, 1 the other way and divided by their sum.
    x = (across[:-2] + 2 * across[1:-1] + across[2:]) / 4
    y = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 4
    slope = np.hypot(x, y)
    ridge = np.where(np.abs(x) >= np.abs(y), _ridge(slope, 1), _ridge(slope, 0))
    return Image.fromarray(((slope > SLOPE) & ridge).astype(np.uint8) * 255)


def _ridge(slope: np.ndarray, axis: int) -> np.ndarray:
    """Where no neighbour along an axis is steeper; of two alike the first."""
    padded = np.pad(slope, [(1, 1) if way == axis else (0, 0) for way in (0, 1)])
    before, after = (np.take(padded, range(k, k + slope.shape[axis]), axis) for k in (0, 2))
    return (slope > before) & (slope >= after)


def _white_on_black(drawing: Image.Image) -> Image.Image:
    """A drawing of lines; one that is mostly light was drawn dark on white."""
    pixels = np.asarray(drawing)
    return Image.fromarray(255 - pixels if pixels.mean() > 127.5 else pixels)
