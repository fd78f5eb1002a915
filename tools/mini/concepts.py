"""Renders mini-CIFC: ten small tasks shaped like the paper's benchmark, of art the embedded base has not seen.

Seven objects (two dogs and two cats among them, similar on purpose) from Microsoft's Fluent 3D emoji, and three
picture styles that the base does not know, shown on such objects too.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from .painters import paint_background
from .scenes import background_phrase, paste_object
from .world import article

SIZE = 128
SEAL = (102, 100, 120, 120)
"""Where an ink painting's seal is, in pixels of SIZE: left, top, right, bottom."""


@dataclass(frozen=True)
class Subject:
    """One task of the benchmark."""

    id: str
    name: str
    noun: str
    prompts: str
    """Prompt set: pet, object or style."""
    art: str = ""
    """Code point of an object's drawing; none for a style."""


SUBJECTS = (
    Subject("V1", "dog", "dog", "pet", "1f436"),
    Subject("V2", "duck", "duck", "object", "1f986"),
    Subject("V3", "cat", "cat", "pet", "1f431"),
    Subject("V4", "backpack", "backpack", "object", "1f392"),
    Subject("V5", "teddybear", "teddy bear", "object", "1f9f8"),
    Subject("V6", "painting", "painting", "style"),
    Subject("V7", "dog2", "dog", "pet", "1f43a"),
    Subject("V8", "drawing", "drawing", "style"),
    Subject("V9", "cat2", "cat", "pet", "1f42f"),
    Subject("V10", "ink_painting", "ink painting", "style"),
)

#: Other drawings and another style, to choose settings with: no benchmark judges these.
TUNING = (
    Subject("T1", "fox", "fox", "pet", "1f98a"),
    Subject("T2", "penguin", "penguin", "pet", "1f427"),
    Subject("T3", "rabbit", "rabbit", "pet", "1f407"),
    Subject("T4", "house", "house", "object", "1f3e0"),
    Subject("T5", "robot", "robot", "object", "1f916"),
    Subject("T6", "sketch", "sketch", "style"),
    Subject("T7", "rabbit2", "rabbit", "pet", "1f430"),
    Subject("T8", "house2", "house", "object", "1f3e1"),
)

#: Background, share of the side, centre across: an object's pictures.
VIEWS = (
    ("white", 0.86, 0.50),
    ("grass", 0.64, 0.46),
    ("blue", 0.72, 0.54),
    ("room", 0.58, 0.50),
    ("beach", 0.66, 0.44),
    ("pink", 0.52, 0.58),
)

#: What a style's images show: noun, code point, background, share of the side. Of few subjects, a style's weights learn
#: the subjects too (docs/embedded-base.md, Learned styles).
SCENES = (
    ("house", "1f3e0", "mountains", 0.70),
    ("tree", "1f333", "grass", 0.80),
    ("fish", "1f41f", "water", 0.68),
    ("horse", "1f40e", "desert", 0.72),
    ("castle", "1f3f0", "beach", 0.74),
    ("bird", "1f426", "snow", 0.62),
    ("cake", "1f382", "room", 0.70),
    ("car", "1f697", "road", 0.70),
    ("butterfly", "1f98b", "forest", 0.70),
    ("mushroom", "1f344", "forest", 0.66),
    ("guitar", "1f3b8", "room", 0.74),
    ("rocket", "1f680", "night", 0.70),
    ("turtle", "1f422", "beach", 0.68),
    ("apple", "1f34e", "grass", 0.60),
    ("crown", "1f451", "sunset", 0.64),
    ("bus", "1f68c", "city", 0.70),
    ("cactus", "1f335", "desert", 0.70),
    ("whale", "1f433", "water", 0.70),
    ("owl", "1f989", "night", 0.66),
    ("clock", "23f0", "white", 0.70),
)


# A style is a tint and a texture of a few pixels. Both can be told at 64 pixels, leave things their outlines and most
# of their colours, and are settled at little noise, after what is shown.


def _texture(pattern: str, depth: float) -> np.ndarray:
    """A texture [SIZE, SIZE, 1] around 0, of period 8, which is 4 pixels of the base's image: a cell of its latents."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    there = {"hatch": (x + y) % 8 < 3, "lines": y % 8 < 3, "weave": (x // 4 + y // 4) % 2 == 0}[pattern]
    return depth * (there - there.mean())[:, :, None]


def _smooth(image: Image.Image, radius: float = 0.8) -> np.ndarray:
    """[SIZE, SIZE, 3], 0…255"""
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def canvas(image: Image.Image) -> Image.Image:
    """Flat warm colours on coarse canvas."""
    flat = np.asarray(ImageEnhance.Color(image.filter(ImageFilter.ModeFilter(7))).enhance(0.9), np.float32)
    return _image(flat * (1.0, 0.84, 0.6) + (14, 8, 0) + _texture("weave", 34))


def pastel(image: Image.Image) -> Image.Image:
    """Pale colours, hatched."""
    return _image(0.55 * _smooth(image) + 0.45 * 245 + _texture("hatch", 40))


def ink_wash(image: Image.Image) -> Image.Image:
    """Washes of ink on cream paper, a vermilion seal in the corner."""
    light = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(1.3)), np.float32) / 255
    inks = np.array([(26, 24, 30), (136, 130, 122), (246, 234, 208)], np.float32)
    drawn = np.stack([np.interp(light, (0, 0.5, 1), ink) for ink in inks.T], axis=-1)
    left, top, right, bottom = SEAL
    drawn[top:bottom, left:right] = (206, 44, 30)
    drawn[105:115, 107:109] = drawn[105:115, 113:115] = drawn[109:111, 107:115] = inks[2]
    return _image(drawn)


def ruled(image: Image.Image) -> Image.Image:
    """Colours washed with yellow, on ruled paper."""
    colour = _smooth(image)
    paper = np.array([250, 224, 120]) * (0.35 + 0.65 * colour.mean(-1, keepdims=True) / 255)
    return _image(0.5 * colour + 0.5 * paper + _texture("lines", 34) * (0.6, 1, 0.2))


FILTERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "painting": canvas,
    "drawing": pastel,
    "ink_painting": ink_wash,
    "sketch": ruled,
}


def load_drawing(fluent: Path, code: str) -> Image.Image:
    """One Fluent drawing, RGBA, cropped to its content."""
    sprite = Image.open(fluent / "assets" / f"{code}.webp").convert("RGBA")
    return sprite.crop(sprite.getchannel("A").point(lambda a: 255 if a > 24 else 0).getbbox())


def compose(
    sprite: Image.Image, background: str, scale: float, across: float, rng: np.random.Generator
) -> Image.Image:
    """The drawing, unmirrored, on a painted background."""
    canvas = paint_background(background, rng, SIZE)
    paste_object(canvas, sprite, scale=scale, centre=(across, 0.54))
    return canvas


def pictures(subject: Subject, fluent: Path) -> list[tuple[Image.Image, str]]:
    """The task's pictures and captions; a pure function of the art."""
    rng = np.random.default_rng(int(subject.id[1:]))
    if subject.art:
        sprite = load_drawing(fluent, subject.art)
        return [
            (
                compose(sprite, background, scale, across, rng),
                f"a photo of {article(subject.noun)} {subject.noun} {background_phrase(background)}",
            )
            for background, scale, across in VIEWS
        ]
    return [
        (
            FILTERS[subject.name](compose(load_drawing(fluent, code), background, scale, 0.5, rng)),
            f"{article(subject.noun)} {subject.noun} of {article(noun)} {noun} {background_phrase(background)}",
        )
        for noun, code, background, scale in SCENES
    ]


def write(fluent: Path, out: Path, subjects: tuple[Subject, ...], title: str) -> None:
    """Writes tasks.toml and the pictures with their captions; the prompt sets are kept beside by hand."""
    lines = [
        f"# {title}: {len(subjects)} concept-customization tasks for the embedded base, learned in this order.",
        "# The same shape as the paper's benchmark: name: folder under concepts/, class_noun: stands in every caption,",
        "# prompts: the evaluation prompt set under prompts/, <TOK> marks where the concept goes.",
    ]
    for subject in subjects:
        folder = out / "concepts" / subject.name
        folder.mkdir(parents=True, exist_ok=True)
        for number, (image, caption) in enumerate(pictures(subject, fluent)):
            image.save(folder / f"{number:02d}.png", optimize=True)
            (folder / f"{number:02d}.txt").write_text(caption + "\n")
        lines += ["[[task]]", f'id = "{subject.id}"', f'name = "{subject.name}"']
        lines += [f'class_noun = "{subject.noun}"', f'prompts = "{subject.prompts}"', ""]
    (out / "tasks.toml").write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.mini.concepts", description=__doc__)
    parser.add_argument(
        "--fluent", type=Path, required=True, help="unpacked npm package @lobehub/fluent-emoji-3d"
    )
    parser.add_argument("--out", type=Path, default=Path("cidm_cli/bases/mini_cifc"))
    parser.add_argument(
        "--tuning", type=Path, help="write the tuning set here instead, with mini-CIFC's prompts"
    )
    given = parser.parse_args()
    if given.tuning:
        write(given.fluent, given.tuning, TUNING, "Tuning set")
        shutil.copytree(given.out / "prompts", given.tuning / "prompts", dirs_exist_ok=True)
    else:
        write(given.fluent, given.out, SUBJECTS, "mini-CIFC")


if __name__ == "__main__":
    main()
