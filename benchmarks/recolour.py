"""Other individuals of one drawing: its main colour dyed, a pattern painted on it, something put on.

Drawings are RGBA pictures cropped to their content. Shading is kept, and so is what is dark (eyes, outlines).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

#: Colours of coats, paints and patterns, RGB.
COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (58, 54, 64),
    "white": (242, 240, 238),
    "grey": (146, 150, 160),
    "cream": (246, 222, 176),
    "tan": (214, 160, 104),
    "brown": (126, 80, 50),
    "ginger": (238, 134, 44),
    "red": (220, 44, 50),
    "blue": (46, 110, 226),
    "green": (56, 164, 80),
    "yellow": (252, 208, 56),
    "purple": (134, 78, 200),
    "pink": (250, 146, 190),
    "teal": (36, 176, 176),
}

PATTERNS = ("stripes", "spots", "half", "band", "belly")
DARK = 60
"""Luminance, of 255, under which a pixel is an eye or an outline and keeps its colour."""


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Brightness [H, W], 0…255, of [H, W, 3]."""
    return rgb @ np.array([0.299, 0.587, 0.114])


def shaded(rgb: np.ndarray, colour: tuple[int, int, int], where: np.ndarray) -> np.ndarray:
    """[H, W, 3]: ``colour`` with the light and shade that the drawing has ``where`` (a mask [H, W]) it is painted."""
    light = luminance(rgb)
    usual = np.median(light[where > 0.5]) if (where > 0.5).any() else 128.0
    ratio = (light / max(usual, 1.0))[:, :, None]
    target = np.array(colour, float)
    bright = target + (255 - target) * np.clip((ratio - 1) * 0.9, 0, 0.75)
    return np.where(ratio < 1, target * np.clip(ratio, 0.3, 1) ** 0.9, bright)


def main_part(sprite: Image.Image) -> np.ndarray:
    """Mask [H, W], 0…1, of what has the drawing's main colour: its commonest hue, or grey and white if it has most."""
    pixels = np.asarray(sprite.convert("RGBA"), float)
    shown = pixels[:, :, 3] > 128
    hsv = np.asarray(sprite.convert("RGB").convert("HSV"), float)
    hue, saturation = hsv[:, :, 0] / 256, hsv[:, :, 1] / 255
    light = luminance(pixels[:, :, :3])
    coloured = shown & (saturation > 0.24) & (light > DARK)
    pale = shown & (saturation <= 0.24) & (light > DARK)
    if pale.sum() > coloured.sum():
        return pale.astype(float)
    counts, _ = np.histogram(hue[coloured], bins=24, range=(0, 1))
    smooth = counts + 0.5 * (np.roll(counts, 1) + np.roll(counts, -1))
    peak = (int(smooth.argmax()) + 0.5) / 24
    away = np.abs((hue - peak + 0.5) % 1 - 0.5)
    return np.clip(1.6 - away / 0.055, 0, 1) * coloured


def dye(sprite: Image.Image, colour: str) -> Image.Image:
    """The drawing with its main colour replaced by a named one."""
    where = main_part(sprite)
    return _painted(sprite, COLOURS[colour], where)


def paint(sprite: Image.Image, pattern: str, colour: str) -> Image.Image:
    """The drawing with a pattern of a named colour on it."""
    return _painted(sprite, COLOURS[colour], pattern_mask(pattern, sprite.size))


def pattern_mask(pattern: str, size: tuple[int, int]) -> np.ndarray:
    """Mask [H, W], 0 or 1, of a pattern over a drawing of ``size`` (width, height). Coarse: it has to show at 64 px."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    x, y = (x + 0.5) / width, (y + 0.5) / height
    if pattern == "stripes":
        mask = np.sin(2 * np.pi * (3.2 * x + 0.9 * y)) > 0.25
    elif pattern == "spots":
        centres = [
            (0.2, 0.3),
            (0.52, 0.14),
            (0.8, 0.34),
            (0.42, 0.5),
            (0.15, 0.68),
            (0.72, 0.68),
            (0.45, 0.86),
        ]
        mask = np.min([np.hypot(x - cx, y - cy) for cx, cy in centres], axis=0) < 0.105
    elif pattern == "half":
        mask = x + 0.15 * y > 0.57
    elif pattern == "band":
        mask = np.abs(y - 0.56) < 0.11
    elif pattern == "belly":
        mask = y > 0.6
    else:
        raise ValueError(f"no pattern {pattern!r}")
    return mask.astype(float)


def wear(
    sprite: Image.Image,
    thing: Image.Image,
    centre: tuple[float, float],
    width: float,
    hue: float | None = None,
) -> Image.Image:
    """The drawing with another one put on: its centre and width are shares of the drawing's box, or beyond it.

    Args:
        hue: in turns; all colours of the thing get it.
    """
    across = max(1, round(width * sprite.width))
    thing = thing.resize(
        (across, max(1, round(thing.height * across / thing.width))), Image.Resampling.LANCZOS
    )
    if hue is not None:
        thing = _with_hue(thing, hue)
    left = round(centre[0] * sprite.width - thing.width / 2)
    top = round(centre[1] * sprite.height - thing.height / 2)
    x0, y0 = min(0, left), min(0, top)
    x1 = max(sprite.width, left + thing.width)
    y1 = max(sprite.height, top + thing.height)
    canvas = Image.new("RGBA", (x1 - x0, y1 - y0))
    canvas.alpha_composite(sprite.convert("RGBA"), (-x0, -y0))
    canvas.alpha_composite(thing, (left - x0, top - y0))
    return canvas


def _with_hue(sprite: Image.Image, hue: float) -> Image.Image:
    saturated = Image.new("L", sprite.size, round(256 * hue) % 256)
    _, saturation, value = sprite.convert("RGB").convert("HSV").split()
    turned = Image.merge("HSV", (saturated, saturation, value)).convert("RGB")
    turned.putalpha(sprite.getchannel("A"))
    return turned


def _painted(sprite: Image.Image, colour: tuple[int, int, int], where: np.ndarray) -> Image.Image:
    pixels = np.asarray(sprite.convert("RGBA"), float)
    rgb = pixels[:, :, :3]
    cover = (where * (luminance(rgb) > DARK))[:, :, None]
    mixed = rgb * (1 - cover) + shaded(rgb, colour, where * (pixels[:, :, 3] > 128)) * cover
    whole = np.concatenate([mixed, pixels[:, :, 3:]], axis=2)
    return Image.fromarray(whole.clip(0, 255).astype(np.uint8))
