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
from .world import BACKGROUNDS, FILLERS, FURTHER, NOUNS, PLAIN, SIZES, STYLES, TINTS, article

Art = dict[str, Image.Image]
"""One drawing a name, RGBA, cropped to its content."""


@dataclass(frozen=True)
class Scene:
    """One rendered picture and what is in it."""

    image: Image.Image
    caption: str
    nouns: tuple[str, ...]
    background: str
    style: str
    untinted: tuple[str, ...]
    """The nouns whose drawings are shown in their own colours (a tinted one is somebody else)."""


@dataclass(frozen=True)
class Manner:
    """How a stream of scenes is laid out: outlines are learned before their variety."""

    pairs: float
    """Share of scenes that show two things."""
    sized: float
    """Share of single things that are "small", and as many "big"."""
    sided: float
    """Share of single things at the left, and as many at the right."""
    sizes: tuple[float, float]
    """Longer side of a thing of no said size, as a share of the image's."""
    tinted: float
    """Share of things in another colour than their own, which the caption says."""
    photo: float
    """Share of scenes that are photos; the other styles have equal shares of the rest."""


OUTLINES = Manner(pairs=0.36, sized=0.08, sided=0.06, sizes=(0.58, 0.72), tinted=0.0, photo=0.80)
VARIETY = Manner(pairs=0.36, sized=0.12, sided=0.10, sizes=(0.52, 0.74), tinted=0.04, photo=0.66)


def load_art(package: Path, nouns: dict[str, str] = NOUNS) -> Art:
    """The drawing of every noun, from the unpacked npm package of Noto."""
    index = {e["short_name"]: e["image"] for e in json.loads((package / "emoji.json").read_text())}
    return {noun: _sprite(package, index[name]) for noun, name in nouns.items()}


def load_others(package: Path) -> Art:
    """Every further drawing of the package's things, animals, food, places and faces, each under its own name."""
    known = {*NOUNS.values(), *FURTHER.values()}
    groups = {
        "Animals & Nature",
        "Food & Drink",
        "Travel & Places",
        "Objects",
        "Activities",
        "Smileys & Emotion",
    }
    return load_art(package, FURTHER) | {
        name: _sprite(package, e["image"])
        for e in json.loads((package / "emoji.json").read_text())
        if e["category"] in groups
        and e["has_img_google"]
        and e["short_name"] not in known
        and (name := e["short_name"].replace("_", " ")) not in NOUNS
    }


def _sprite(package: Path, file: str) -> Image.Image:
    sprite = Image.open(package / "img" / "google" / "64" / file).convert("RGBA")
    return sprite.crop(sprite.getchannel("A").getbbox())


def render(
    art: Art, seed: int, index: int, *, size: int = 64, kind: str | None = None, manner: Manner = VARIETY
) -> Scene:
    """Scene ``index`` of the stream ``seed``; ``kind`` "single" or "pair" fixes the number of objects."""
    rng = np.random.default_rng((seed, index))
    background = _choose_background(rng)
    style = _choose_style(rng, manner.photo)
    canvas = paint_background(background, rng, size)
    nouns = list(art)
    if kind == "pair" or (kind is None and rng.random() < manner.pairs):
        first, second = (nouns[i] for i in rng.choice(len(nouns), 2, replace=False))
        put = [
            _put(canvas, art, noun, rng, manner, scale=rng.uniform(0.42, 0.52), centre=(x, rng.uniform(0.46, 0.64)))
            for noun, x in ((first, rng.uniform(0.25, 0.29)), (second, rng.uniform(0.71, 0.75)))
        ]  # fmt: skip
        drawn, phrases, shown = (first, second), [p for p, _ in put], [i for _, i in put]
        subject = " and ".join(phrases)
        if rng.random() < 0.3:
            subject = f"{phrases[0]} on the left and {phrases[1]} on the right"
    else:
        noun = nouns[rng.integers(len(nouns))]
        word = rng.choice(list(SIZES), p=(manner.sized, 1 - 2 * manner.sized, manner.sized))
        scale = rng.uniform(*(manner.sizes if word == "" else SIZES[word]))
        side = ""
        if word != "big":
            side = rng.choice(["", "left", "right"], p=(1 - 2 * manner.sided, manner.sided, manner.sided))
        centre_x = {"": rng.uniform(0.45, 0.55), "left": 0.30, "right": 0.70}[side]
        slack = max(0.0, 0.5 - scale / 2)
        centre = (centre_x, 0.5 + rng.uniform(-0.1, 0.7) * slack)
        subject, one = _put(canvas, art, noun, rng, manner, scale=scale, centre=centre, size_word=word)
        drawn, shown = (noun,), [one]
        if side:
            subject += f" on the {side}"
    picture = apply_style(canvas, style, rng)
    opening = STYLES[style]
    place = "" if rng.random() < 0.08 else " " + background_phrase(background)
    untinted = tuple(i for i in shown if i is not None)
    return Scene(picture, f"{opening} {subject}{place}", drawn, background, style, untinted)


def render_individual(art: Art, name: str, rng: np.random.Generator, size: int = 64) -> Image.Image:
    """One given drawing, untinted, somewhere on some background in some style."""
    canvas = paint_background(_choose_background(rng), rng, size)
    centre = (rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.6))
    paste_object(canvas, art[name], scale=rng.uniform(0.42, 0.94), centre=centre)
    return apply_style(canvas, _choose_style(rng, VARIETY.photo), rng)


def background_phrase(background: str) -> str:
    """How a caption names a background: "on the beach", "on a red background"."""
    if background in BACKGROUNDS:
        return BACKGROUNDS[background]
    return f"on {article(background)} {background} background"


def _choose_style(rng: np.random.Generator, photo: float) -> str:
    others = [style for style in STYLES if style != "photo"]
    return "photo" if rng.random() < photo else others[rng.integers(len(others))]


def _choose_background(rng: np.random.Generator) -> str:
    names = list(BACKGROUNDS) if rng.random() < 0.72 else list(PLAIN)
    return names[rng.integers(len(names))]


def _put(
    canvas: Image.Image,
    art: Art,
    noun: str,
    rng: np.random.Generator,
    manner: Manner,
    *,
    scale: float,
    centre: tuple[float, float],
    size_word: str = "",
) -> tuple[str, str | None]:
    """Draws one object onto the canvas; its phrase, "a small blue dog", and its noun unless it is tinted."""
    sprite = art[noun]
    tint = ""
    if rng.random() < manner.tinted:
        tint = list(TINTS)[rng.integers(len(TINTS))]
        sprite = tint_to(sprite, TINTS[tint])
    paste_object(canvas, sprite, scale=scale, centre=centre)
    filler = FILLERS[rng.integers(len(FILLERS))] if rng.random() < 0.04 else ""
    words = [w for w in (filler, size_word, tint) if w] + [noun]
    opening = article(words[0] if len(words) > 1 else noun)
    return " ".join(([opening] if opening else []) + words), None if tint else noun


def paste_object(
    canvas: Image.Image, sprite: Image.Image, *, scale: float, centre: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Pastes a sprite whose longer side is ``scale`` of the canvas's shorter one; returns its box in pixels."""
    size = min(canvas.size)
    side = scale * size / max(sprite.size)
    sprite = sprite.resize(
        (max(1, round(sprite.width * side)), max(1, round(sprite.height * side))), Image.Resampling.LANCZOS
    )
    left = round(centre[0] * canvas.width - sprite.width / 2)
    top = round(centre[1] * canvas.height - sprite.height / 2)
    left = min(max(left, -sprite.width // 8), canvas.width - sprite.width + sprite.width // 8)
    top = min(max(top, 0), max(0, canvas.height - sprite.height))
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
