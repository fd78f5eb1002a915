"""Contact sheets and self-contained HTML pages of pictures. Every text in them is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from .output import Table


@dataclass(frozen=True)
class Strip:
    """Pictures in a row."""

    title: str
    note: str
    pictures: Sequence[tuple[Image.Image, str]]
    """With what stands under each."""


@dataclass(frozen=True)
class Plot:
    """A plot with its heading."""

    title: str
    note: str
    image: Image.Image
    """Drawn at twice the size that it is shown at: sharp on every screen."""
    dark: Image.Image
    """The same on ``DARK``."""


DARK = "#181818"
"""Ground of a page where readers like dark ones."""
GRID_COLUMNS, GRID_SIDE = 10, 256
"""Images in a row of a grid, and pixels that each is high."""
SMALL, LARGE = 128, 256
"""Pixels on the page: small images are enlarged towards the first, each pixel to whole ones; large ones are shown at
the second at most."""


def page(
    title: str,
    opening: Sequence[str],
    strips: Sequence[Strip],
    commands: Sequence[str],
    *,
    tables: Sequence[Table] = (),
    terms: Mapping[str, str] | None = None,
    plots: Sequence[Plot] = (),
) -> str:
    """An HTML page that holds its images itself: one file to keep or to send. ``terms`` are explained under tables."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"data_url": _data_url, "fitted": _fitted}
    return environment.get_template("page.html").render(
        title=title, opening=opening, strips=strips, commands=commands, tables=tables, terms=terms or {},
        plots=plots, dark=DARK,
    )  # fmt: skip


def sheet(strips: Sequence[Strip], side: int = 128, *, labelled: bool = False) -> Image.Image:
    """One picture of all strips, a row each with its title, every picture ``side`` pixels high.

    With ``labelled``, titles are written whole, and under each picture what stands there.
    """
    gap, line = 6, 20
    width = gap + max(sum(_width(image, side) + gap for image, _ in strip.pictures) for strip in strips)
    titles = [wrap(strip.title, max(width // 8, 16)) if labelled else [strip.title] for strip in strips]
    heights = [line * (len(title) + labelled) + side + 2 * gap for title in titles]
    canvas = Image.new("RGB", (width, sum(heights) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    write = partial(draw.text, fill=(30, 30, 30), font=ImageFont.load_default(13))
    top = gap
    for strip, title, height in zip(strips, titles, heights, strict=True):
        for number, words in enumerate(title):
            write((gap, top + line * number), words)
        left, under = gap, top + line * len(title)
        for image, label in strip.pictures:
            scaled = image.convert("RGB").resize((_width(image, side), side), _resampling(image, side))
            canvas.paste(scaled, (left, under))
            if labelled:
                write((left, under + side), label)
            left += scaled.width + gap
        top += height
    return canvas


def grid(drawn: Iterable[tuple[Image.Image, Mapping[str, Any]]]) -> bytes:
    """One sheet of drawn images with their facts, as a PNG file: a row a prompt, under each image its seed."""
    rows = groupby(drawn, key=lambda one: str(one[1]["prompt"]))
    return labelled(
        (prompt, [(image, f"seed {facts['seed']}") for image, facts in same]) for prompt, same in rows
    )


def labelled(rows: Iterable[tuple[str, Sequence[tuple[Image.Image, str]]]]) -> bytes:
    """A PNG file of images, each with what stands under it, in rows under titles; long rows are broken."""
    strips = [
        Strip("" if first else title, "", images[first : first + GRID_COLUMNS])
        for title, images in rows
        for first in range(0, len(images), GRID_COLUMNS)
    ]
    content = io.BytesIO()
    sheet(strips, GRID_SIDE, labelled=True).save(content, "PNG")
    return content.getvalue()


def _width(image: Image.Image, side: int) -> int:
    """Of an image made ``side`` high."""
    return max(round(side * image.width / image.height), 1)


def _resampling(image: Image.Image, side: int) -> Image.Resampling:
    # Small pictures are shown as they are, in whole pixels: smoothing would flatter them.
    return Image.Resampling.NEAREST if image.height < side else Image.Resampling.LANCZOS


def _fitted(image: Image.Image) -> tuple[Image.Image, int]:
    """An image as the page holds it, and how many pixels of the page each of its own takes."""
    if max(image.size) > LARGE:
        image = image.convert("RGB")
        image.thumbnail((LARGE, LARGE), Image.Resampling.LANCZOS)
    return image, max(min(SMALL // image.height, LARGE // image.width), 1)


def _data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
