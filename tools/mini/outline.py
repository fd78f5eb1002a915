"""A judge that is no network: does the thing that was drawn have the outline of the drawing it is named after?

A thing on a plain background is cut out by its difference from the background's colour, its outline scaled to a common
size, and compared with the outlines of all drawings by intersection over union. Colours and textures say nothing here,
which is what a CLIP that was trained on the same world looks at first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .world import PLAIN

SIDE = 48
"""Longer side of a compared outline in pixels."""
DIFFERENT = 36
"""A pixel whose colour is further than this from the background's (Euclidean, of 255 a channel) is of the thing."""


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask [H, W] of bool with its holes filled: what cannot be reached from outside is of the thing."""
    padded = Image.fromarray(np.pad(mask, 1).astype(np.uint8) * 255).copy()  # a buffer that can be written
    ImageDraw.floodfill(padded, (0, 0), 128)
    return np.asarray(padded)[1:-1, 1:-1] != 128


def cut_out(image: Image.Image) -> np.ndarray:
    """Mask [H, W] of the thing in an image whose background is plain, specks left out."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    different = np.linalg.norm(pixels - np.median(border, axis=0), axis=-1) > DIFFERENT
    smooth = Image.fromarray(different.astype(np.uint8) * 255).filter(ImageFilter.MedianFilter(3))
    return filled(np.asarray(smooth) > 0)


def shape_of(sprite: Image.Image) -> np.ndarray:
    """Mask [H, W] of an RGBA drawing."""
    return filled(np.asarray(sprite.getchannel("A")) > 128)


def scaled(mask: np.ndarray) -> np.ndarray:
    """The mask's content in a square of ``SIDE``, as large as fits, in its middle; all False where there is none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    square = np.zeros((SIDE, SIDE), bool)
    if not len(rows):
        return square
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(SIDE * n / max(part.shape))) for n in part.shape)
    image = Image.fromarray(part.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    square[top : top + height, left : left + width] = np.asarray(image) > 127
    return square


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks of one size, 0…1."""
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


def fits(image: Image.Image, drawings: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
    """Overlap of the thing in a plain image with each name's best outline, mirrored or not.

    Args:
        drawings: scaled outlines of each name, as ``scaled(shape_of(sprite))``.
    """
    seen = scaled(cut_out(image))
    return {
        name: max(overlap(seen, way) for shape in shapes for way in (shape, shape[:, ::-1]))
        for name, shapes in drawings.items()
    }


def clearest_background(sprite: Image.Image) -> str:
    """The plain background from which the drawing's edge differs most."""
    inside = shape_of(sprite)
    shape = Image.fromarray(np.pad(inside, 3).astype(np.uint8))
    ring = inside & (np.asarray(shape.filter(ImageFilter.MinFilter(7)))[3:-3, 3:-3] == 0)
    edge = np.asarray(sprite.convert("RGB"), np.float32)[ring]

    def contrast(colour: str) -> float:
        return float(np.quantile(np.linalg.norm(edge - np.array(PLAIN[colour]), axis=-1), 0.05))

    return max(PLAIN, key=contrast)
