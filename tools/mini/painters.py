"""The painted backgrounds of the scenes, one painter each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .world import PLAIN


def paint_background(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    """A fresh RGB canvas of one background, its details drawn from ``rng``."""
    if name in PLAIN:
        shade = rng.uniform(0.9, 1.08)
        colour = tuple(int(np.clip(c * shade + rng.uniform(-6, 6), 0, 255)) for c in PLAIN[name])
        return Image.new("RGB", (size, size), colour)
    return _PAINTERS[name](rng, size)


def _gradient(size: int, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    ramp = np.linspace(0, 1, size)[:, None, None]
    rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(np.broadcast_to(rows, (size, size, 3)).astype(np.uint8))


def _vary(rng: np.random.Generator, colour: tuple[int, int, int], by: float = 10) -> tuple[int, int, int]:
    return tuple(int(np.clip(c + rng.uniform(-by, by), 0, 255)) for c in colour)  # type: ignore[return-value]


def _band(draw: ImageDraw.ImageDraw, size: int, top: float, colour: tuple[int, int, int]) -> None:
    draw.rectangle((0, int(top * size), size, size), fill=colour)


def _dots(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, n: int, colour: tuple[int, int, int],
    *, top: float = 0.0, bottom: float = 1.0, radius: tuple[float, float] = (0.006, 0.014),
) -> None:  # fmt: skip
    for x, y, r in zip(rng.random(n), rng.uniform(top, bottom, n), rng.uniform(*radius, n), strict=True):
        draw.ellipse(((x - r) * size, (y - r) * size, (x + r) * size, (y + r) * size), fill=colour)


def _ridge(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, base: float, height: float, n: int,
    colour: tuple[int, int, int], cap: tuple[int, int, int] | None = None,
) -> None:  # fmt: skip
    for k in range(n):
        x = (k + rng.uniform(0.2, 0.8)) / n
        h, w = height * rng.uniform(0.7, 1.15), 0.75 * height * rng.uniform(0.8, 1.3)
        peak, left, right = (x, base - h), (x - w, base), (x + w, base)
        draw.polygon([(px * size, py * size) for px, py in (peak, left, right)], fill=colour)
        if cap:
            c = 0.3
            snow = (peak, (x - w * c, base - h * (1 - c)), (x + w * c, base - h * (1 - c)))
            draw.polygon([(px * size, py * size) for px, py in snow], fill=cap)


def _beach(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (110, 190, 245)), _vary(rng, (200, 232, 250)))
    draw = ImageDraw.Draw(image)
    horizon = rng.uniform(0.30, 0.40)
    _band(draw, size, horizon, _vary(rng, (28, 130, 190)))
    shore = horizon + rng.uniform(0.18, 0.26)
    _band(draw, size, shore - 0.03, (222, 240, 246))
    _band(draw, size, shore, _vary(rng, (240, 214, 150)))
    _dots(draw, rng, size, 10, (222, 192, 126), top=shore + 0.05)
    return image


def _forest(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (150, 200, 150)), _vary(rng, (90, 150, 90)))
    draw = ImageDraw.Draw(image)
    for row, (base, shade) in enumerate(((0.60, 70), (0.72, 48))):
        for k in range(5):
            x, h = (k + rng.uniform(0.1, 0.9)) / 5, rng.uniform(0.42, 0.62)
            green = _vary(rng, (22 - 8 * row, shade + 20, 36), 8)
            draw.rectangle([(x - 0.015) * size, (base - 0.1) * size, (x + 0.015) * size, (base + 0.04) * size],
                           fill=(84, 58, 36))  # fmt: skip
            tip = [(x, base - h), (x - 0.12, base), (x + 0.12, base)]
            draw.polygon([(px * size, py * size) for px, py in tip], fill=green)
    _band(draw, size, 0.74, _vary(rng, (52, 84, 40)))
    return image


def _snow(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (170, 198, 224)), _vary(rng, (214, 228, 240)))
    draw = ImageDraw.Draw(image)
    ground = rng.uniform(0.55, 0.65)
    draw.ellipse((-0.4 * size, ground * size, 0.9 * size, 1.6 * size), fill=(240, 246, 252))
    draw.ellipse((0.3 * size, (ground + 0.05) * size, 1.5 * size, 1.7 * size), fill=(250, 252, 255))
    _dots(draw, rng, size, 34, (255, 255, 255), radius=(0.010, 0.020))
    return image


def _night(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (8, 10, 40), 6), _vary(rng, (34, 40, 92), 8))
    draw = ImageDraw.Draw(image)
    _dots(draw, rng, size, 26, (236, 236, 210), bottom=0.75, radius=(0.006, 0.012))
    x, y, r = rng.uniform(0.12, 0.88), rng.uniform(0.12, 0.22), 0.08
    draw.ellipse(((x - r) * size, (y - r) * size, (x + r) * size, (y + r) * size), fill=(250, 244, 200))
    _band(draw, size, 0.82, _vary(rng, (14, 22, 38), 4))
    return image


def _city(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (160, 184, 206)), _vary(rng, (206, 214, 222)))
    draw = ImageDraw.Draw(image)
    x = -0.02
    while x < 1:
        w, h, tone = rng.uniform(0.12, 0.2), rng.uniform(0.36, 0.72), rng.uniform(80, 150)
        top, wall = 0.80 - h, _vary(rng, (int(tone), int(tone * 0.95), int(tone * 1.02)), 12)
        draw.rectangle((x * size, top * size, (x + w) * size, 0.8 * size), fill=wall)
        for wy in np.arange(top + 0.05, 0.74, 0.095):
            for wx in np.arange(x + 0.03, x + w - 0.04, 0.07):
                lit = (248, 228, 140) if rng.random() < 0.5 else (60, 70, 90)
                draw.rectangle((wx * size, wy * size, (wx + 0.025) * size, (wy + 0.03) * size), fill=lit)
        x += w + 0.01
    _band(draw, size, 0.80, _vary(rng, (92, 92, 98), 6))
    return image


def _desert(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (120, 188, 236)), _vary(rng, (252, 226, 178)))
    draw = ImageDraw.Draw(image)
    for base, colour in ((0.5, (232, 176, 98)), (0.62, (220, 156, 76)), (0.76, (204, 136, 58))):
        x = rng.uniform(-0.3, 0.6)
        draw.ellipse(((x - 0.6) * size, base * size, (x + 1.0) * size, 1.9 * size), fill=_vary(rng, colour))
        _band(draw, size, base + 0.16, _vary(rng, colour, 4))
    return image


def _grass(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (130, 200, 248)), _vary(rng, (212, 238, 252)))
    draw = ImageDraw.Draw(image)
    _dots(draw, rng, size, 5, (255, 255, 255), top=0.08, bottom=0.26, radius=(0.05, 0.08))
    ground = rng.uniform(0.46, 0.56)
    _band(draw, size, ground, _vary(rng, (98, 186, 66)))
    _dots(draw, rng, size, 12, (64, 150, 44), top=ground + 0.05, radius=(0.010, 0.018))
    _dots(draw, rng, size, 6, (252, 240, 120), top=ground + 0.08)
    return image


def _mountains(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (132, 182, 232)), _vary(rng, (222, 234, 244)))
    draw = ImageDraw.Draw(image)
    _ridge(draw, rng, size, 0.72, 0.52, 3, _vary(rng, (106, 112, 134)), (246, 248, 252))
    _band(draw, size, 0.70, _vary(rng, (84, 122, 84)))
    return image


def _water(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (40, 168, 200)), _vary(rng, (6, 52, 120)))
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        x, y, r = rng.random(), rng.random(), rng.uniform(0.015, 0.035)
        ring = ((x - r) * size, (y - r) * size, (x + r) * size, (y + r) * size)
        draw.ellipse(ring, outline=(190, 236, 250))
    for _ in range(5):
        x, h = rng.random(), rng.uniform(0.1, 0.24)
        draw.line(
            (x * size, size, (x + rng.uniform(-0.05, 0.05)) * size, (1 - h) * size),
            fill=(24, 120, 80),
            width=2,
        )
    return image


def _room(rng: np.random.Generator, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), _vary(rng, (232, 214, 186), 12))
    draw = ImageDraw.Draw(image)
    floor = rng.uniform(0.66, 0.74)
    _band(draw, size, floor, _vary(rng, (150, 98, 60)))
    for y in np.arange(floor + 0.07, 1.0, 0.08):
        draw.line((0, y * size, size, y * size), fill=(124, 78, 46))
    x = rng.choice([rng.uniform(0.05, 0.12), rng.uniform(0.62, 0.70)])
    draw.rectangle((x * size, 0.10 * size, (x + 0.26) * size, 0.40 * size), fill=(160, 210, 240),
                   outline=(250, 250, 250))  # fmt: skip
    draw.line(((x + 0.13) * size, 0.10 * size, (x + 0.13) * size, 0.40 * size), fill=(250, 250, 250))
    return image


def _sunset(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (108, 52, 130)), _vary(rng, (255, 168, 72)))
    draw = ImageDraw.Draw(image)
    x, y, r = rng.uniform(0.25, 0.75), rng.uniform(0.52, 0.62), 0.13
    draw.ellipse(((x - r) * size, (y - r) * size, (x + r) * size, (y + r) * size), fill=(255, 226, 120))
    _band(draw, size, 0.70, _vary(rng, (70, 34, 62)))
    return image


def _road(rng: np.random.Generator, size: int) -> Image.Image:
    image = _gradient(size, _vary(rng, (140, 200, 244)), _vary(rng, (220, 236, 248)))
    draw = ImageDraw.Draw(image)
    _band(draw, size, 0.46, _vary(rng, (116, 168, 80)))
    spread = rng.uniform(0.42, 0.55)
    road = [(0.46, 0.46), (0.54, 0.46), (0.5 + spread, 1.0), (0.5 - spread, 1.0)]
    draw.polygon([(px * size, py * size) for px, py in road], fill=_vary(rng, (78, 80, 86), 6))
    for y0, y1 in ((0.54, 0.60), (0.68, 0.78), (0.88, 1.0)):
        draw.rectangle((0.485 * size, y0 * size, 0.515 * size, y1 * size), fill=(246, 238, 200))
    return image


_PAINTERS: dict[str, Callable[[np.random.Generator, int], Image.Image]] = {
    "beach": _beach,
    "forest": _forest,
    "snow": _snow,
    "night": _night,
    "city": _city,
    "desert": _desert,
    "grass": _grass,
    "mountains": _mountains,
    "water": _water,
    "room": _room,
    "sunset": _sunset,
    "road": _road,
}
