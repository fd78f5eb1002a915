"""Captioned scenes: Noto emoji composed on painted backgrounds, in a few picture styles.

``render(art, seed, index)`` is a pure function of its arguments: scene number ``index`` is the same picture on
every machine, so a data set needs no files and a training run no loader state. About 1 ms a scene at 64 px.
"""

from __future__ import annotations

import colorsys
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from .painters import paint_background
from .world import BACKGROUNDS, FILLERS, NOUNS, PLAIN, SIZES, STYLES, TINTS, article

Art = dict[str, list[Image.Image]]


@dataclass(frozen=True)
class Scene:
    """One rendered picture and what is in it."""

    image: Image.Image
    caption: str
    nouns: tuple[str, ...]
    background: str
    style: str
    individuals: tuple[tuple[str, int], ...]
    """Noun and number of each drawing shown; tinted ones are left out (they are somebody else)."""


def load_art(package: Path, nouns: dict[str, tuple[str, ...]] = NOUNS) -> Art:
    """The drawings of every noun, cropped to their content, from the unpacked npm package of Noto."""
    index = {e["short_name"]: e["image"] for e in json.loads((package / "emoji.json").read_text())}
    return {noun: [_sprite(package, index[name]) for name in names] for noun, names in nouns.items()}


def load_others(package: Path) -> Art:
    """Every further drawing of the package's things, animals, food, places and faces, each under its own name."""
    known = {name for names in NOUNS.values() for name in names}
    groups = {
        "Animals & Nature",
        "Food & Drink",
        "Travel & Places",
        "Objects",
        "Activities",
        "Smileys & Emotion",
    }
    return {
        e["short_name"]: [_sprite(package, e["image"])]
        for e in json.loads((package / "emoji.json").read_text())
        if e["category"] in groups and e["has_img_google"] and e["short_name"] not in known
    }


def _sprite(package: Path, file: str) -> Image.Image:
    sprite = Image.open(package / "img" / "google" / "64" / file).convert("RGBA")
    return sprite.crop(sprite.getchannel("A").getbbox())


def render(art: Art, seed: int, index: int, *, size: int = 64, kind: str | None = None) -> Scene:
    """Scene ``index`` of the stream ``seed``; ``kind`` "single" or "pair" fixes the number of objects."""
    rng = np.random.default_rng((seed, index))
    background = _choose_background(rng)
    style = rng.choice(list(STYLES), p=_STYLE_ODDS)
    canvas = paint_background(background, rng, size)
    nouns = list(art)
    if kind == "pair" or (kind is None and rng.random() < 0.24):
        first, second = (nouns[i] for i in rng.choice(len(nouns), 2, replace=False))
        put = [
            _put(canvas, art, noun, rng, scale=rng.uniform(0.40, 0.54), centre=(x, rng.uniform(0.40, 0.68)))
            for noun, x in ((first, rng.uniform(0.24, 0.30)), (second, rng.uniform(0.70, 0.76)))
        ]
        drawn, phrases, shown = (first, second), [p for p, _ in put], [i for _, i in put]
        subject = " and ".join(phrases)
        if rng.random() < 0.3:
            subject = f"{phrases[0]} on the left and {phrases[1]} on the right"
    else:
        noun = nouns[rng.integers(len(nouns))]
        word = rng.choice(list(SIZES), p=(0.17, 0.66, 0.17))
        scale = rng.uniform(*SIZES[word])
        side = rng.choice(["", "left", "right"], p=(0.76, 0.12, 0.12)) if word != "big" else ""
        centre_x = {"": rng.uniform(0.44, 0.56), "left": 0.30, "right": 0.70}[side]
        slack = max(0.0, 0.5 - scale / 2)
        centre = (centre_x, 0.5 + rng.uniform(-0.3, 0.8) * slack)
        subject, one = _put(canvas, art, noun, rng, scale=scale, centre=centre, size_word=word)
        drawn, shown = (noun,), [one]
        if side:
            subject += f" on the {side}"
    picture = apply_style(canvas, style, rng)
    opening = STYLES[style][0]
    place = "" if rng.random() < 0.08 else " " + background_phrase(background)
    individuals = tuple(i for i in shown if i is not None)
    return Scene(picture, f"{opening} {subject}{place}", drawn, background, style, individuals)


def render_individual(
    art: Art, name: str, number: int, rng: np.random.Generator, size: int = 64
) -> Image.Image:
    """One given drawing, untinted, somewhere on some background in some style."""
    canvas = paint_background(_choose_background(rng), rng, size)
    centre = (rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.6))
    paste_object(canvas, art[name][number], rng, scale=rng.uniform(0.42, 0.94), centre=centre)
    return apply_style(canvas, rng.choice(list(STYLES), p=_STYLE_ODDS), rng)


def background_phrase(background: str) -> str:
    """How a caption names a background: "on the beach", "on a red background"."""
    if background in BACKGROUNDS:
        return BACKGROUNDS[background]
    return f"on {article(background)} {background} background"


_STYLE_ODDS = [odds for _, odds in STYLES.values()]


def _choose_background(rng: np.random.Generator) -> str:
    names = list(BACKGROUNDS) if rng.random() < 0.72 else list(PLAIN)
    return names[rng.integers(len(names))]


def _put(
    canvas: Image.Image,
    art: Art,
    noun: str,
    rng: np.random.Generator,
    *,
    scale: float,
    centre: tuple[float, float],
    size_word: str = "",
) -> tuple[str, tuple[str, int] | None]:
    """Draws one object onto the canvas; its phrase, "a small blue dog", and which drawing of the noun it is."""
    number = int(rng.integers(len(art[noun])))
    sprite = art[noun][number]
    tint = ""
    if rng.random() < 0.10:
        tint = list(TINTS)[rng.integers(len(TINTS))]
        sprite = tint_to(sprite, TINTS[tint])
    paste_object(canvas, sprite, rng, scale=scale, centre=centre)
    filler = FILLERS[rng.integers(len(FILLERS))] if rng.random() < 0.06 else ""
    words = [w for w in (filler, size_word, tint) if w] + [noun]
    opening = article(words[0] if len(words) > 1 else noun)
    return " ".join(([opening] if opening else []) + words), None if tint else (noun, number)


def paste_object(
    canvas: Image.Image,
    sprite: Image.Image,
    rng: np.random.Generator,
    *,
    scale: float,
    centre: tuple[float, float],
    mirror: bool | None = None,
) -> tuple[int, int, int, int]:
    """Pastes a sprite whose longer side is ``scale`` of the canvas; returns its box in pixels."""
    size = canvas.width
    if mirror if mirror is not None else rng.random() < 0.5:
        sprite = ImageOps.mirror(sprite)
    side = scale * size / max(sprite.size)
    sprite = sprite.resize(
        (max(1, round(sprite.width * side)), max(1, round(sprite.height * side))), Image.Resampling.LANCZOS
    )
    if rng.random() < 0.5:
        sprite = sprite.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    left = round(centre[0] * size - sprite.width / 2)
    top = round(centre[1] * size - sprite.height / 2)
    left = min(max(left, -sprite.width // 8), size - sprite.width + sprite.width // 8)
    top = min(max(top, 0), max(0, size - sprite.height))
    canvas.paste(sprite, (left, top), sprite)
    return left, top, left + sprite.width, top + sprite.height


def tint_to(sprite: Image.Image, hue: float) -> Image.Image:
    """The sprite with all its colours moved to one hue, shading kept."""
    alpha = sprite.getchannel("A")
    grey = ImageOps.autocontrast(sprite.convert("RGB").convert("L"), cutoff=2)
    dark, mid, light = (_rgb(hue, s, v) for s, v in ((0.9, 0.22), (0.8, 0.85), (0.22, 1.0)))
    coloured = ImageOps.colorize(grey, dark, light, mid)
    coloured.putalpha(alpha)
    return coloured


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, saturation, value))  # type: ignore[return-value]


def apply_style(image: Image.Image, style: str, rng: np.random.Generator) -> Image.Image:
    """The RGB picture redrawn in one of the styles of the base's world."""
    size = image.width
    if style == "pencil":
        grey = image.convert("L")
        blurred = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(size / 24))
        g, b = np.asarray(grey, np.float32), np.asarray(blurred, np.float32)
        sketch = np.clip(g * 255 / np.maximum(255 - b, 24), 0, 255)
        return Image.fromarray(np.clip(sketch * 0.92 + 8, 0, 255).astype(np.uint8)).convert("RGB")
    if style == "pixel":
        return ImageOps.posterize(image.reduce(size // 16), 4).resize(image.size, Image.Resampling.NEAREST)
    if style == "watercolor":
        soft = image.filter(ImageFilter.GaussianBlur(size / 52))
        edges = ImageOps.invert(image.convert("L").filter(ImageFilter.FIND_EDGES)).convert("RGB")
        paper = Image.new("RGB", image.size, (252, 248, 238))
        washed = Image.blend(ImageEnhance.Color(soft).enhance(1.25), paper, 0.38)
        return Image.blend(washed, ImageChops.multiply(washed, edges), 0.35)
    if style == "oil":
        thick = image.filter(ImageFilter.ModeFilter(max(3, size // 14)))
        return ImageEnhance.Contrast(ImageEnhance.Color(thick).enhance(1.5)).enhance(1.15)
    if style == "monochrome":
        return ImageEnhance.Contrast(image.convert("L")).enhance(1.1).convert("RGB")
    return image
