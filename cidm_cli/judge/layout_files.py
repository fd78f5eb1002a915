"""An evaluation of layouts as files: figures, and a page on which every way of drawing stands beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ..files.writing import write_whole
from ..layout import Layout
from ..terminal.output import Table
from ..terminal.pages import Strip, page
from . import samples
from .layout_scores import LayoutScores, NeglectScores
from .report_files import SHORT, number, write_json
from .rivals import ALONE, BASE, RIVALS, SINGLE

COLUMNS = (
    ("identity", "IA"), ("identity_ratio", "RATIO"), ("kept", "KEPT"), ("presence", "FOUND"),
    ("taken", "TAKEN"), ("background", "SPILL"),
)  # fmt: skip
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")
"""Of boxes, by region: told apart by colour-blind readers (Okabe and Ito)."""
LEAST_SIDE = 256
"""Pixels to which small pictures are enlarged, so that a box's edge covers little of them."""


def table(found: NeglectScores) -> Table:
    """A row for each way of drawing."""
    judges = list(found.judges)
    heads = ["DRAWN"]
    for place, (_, word) in enumerate(COLUMNS):
        # The judges' names in full over the first figure only: the table has to fit a terminal.
        first = word if place else f"{word} {SHORT[judges[0]]}"
        heads += [first, *(SHORT[judge] for judge in judges[1:])]
    body = []
    for way in (*found.rivals, ALONE, SINGLE, BASE):
        figures = found.figures(way)
        cells = [number(figures[name][judge], name) for name, _ in COLUMNS for judge in judges]
        body.append((way, *cells))
    return Table(tuple(heads), body)


def write(
    found: NeglectScores, folder: Path, pictures: Path, layouts: Mapping[str, Layout]
) -> dict[str, Path]:
    """Writes layouts.json and layouts.html into a folder; returns their paths.

    Args:
        pictures: the folder of samples the evaluation was made with.
        layouts: by name, as they were evaluated.
    """
    paths = {"results": folder / "layouts.json", "report": folder / "layouts.html"}
    write_json(paths["results"], found.to_json())
    strips = [_strip(scores, layouts[scores.name], pictures, found.rivals) for scores in found.layouts]
    whole = page("cidm eval --layouts", _opening(found), strips, [], tables=[table(found)])
    write_whole(paths["report"], whole.encode())
    return paths


def outlined(picture: Image.Image, parts: Sequence[tuple[int, Any]]) -> Image.Image:
    """A picture, enlarged in whole pixels if it is small, with the edges of boxes in it: (region, part)."""
    times = max(1, -(-LEAST_SIDE // min(picture.size)))
    whole = picture.convert("RGB").resize(
        (picture.width * times, picture.height * times), Image.Resampling.NEAREST
    )
    draw = ImageDraw.Draw(whole)
    for region, (x0, y0, x1, y1) in parts:
        draw.rectangle(
            (x0 * times, y0 * times, x1 * times - 1, y1 * times - 1), outline=COLOURS[region % len(COLOURS)],
            width=max(2, min(whole.size) // 100),
        )  # fmt: skip
    return whole


def _opening(found: NeglectScores) -> list[str]:
    judged = ", ".join(f"{SHORT[judge]} ({source})" for judge, source in found.judges.items())
    boxes = sum(len(layout.boxes) for layout in found.layouts)
    return [
        f"{len(found.layouts)} layouts, {boxes} boxes, {found.draw['count']} pictures of each; judged by {judged}.",
        "IA: mean cosine of a box and its concept's reference pictures. RATIO: the same over what the concept "
        "reaches with no other box in the layout. KEPT: share of what it gains there over the base that is left. "
        "FOUND: share of boxes in which the concept is the likeliest of all, and likelier than where the base draws "
        "the bare class noun. TAKEN: share of boxes in which a concept of another box is likelier. SPILL: what the "
        "picture outside all boxes gains in likeness to the concepts.",
        *(f"{way}: {RIVALS[way]}." for way in found.rivals),
        f"{ALONE}: each region with no other in the layout. {SINGLE}: its prompt as a picture of its own, made as "
        f"large as the box. {BASE}: class nouns in the concepts' places.",
        *(f"{what} was not judged: {why}." for what, why in found.skipped),
    ]


def _strip(scores: LayoutScores, layout: Layout, folder: Path, rivals: Sequence[str]) -> Strip:
    parts = {box.region: box.part for box in scores.boxes}
    shown = []
    for way in rivals:
        shown.append((outlined(_picture(scores, way, folder), list(parts.items())), way))
    for region, part in parts.items():
        alone = outlined(_picture(scores, f"{ALONE} {region}", folder), [(region, part)])
        single = _picture(scores, f"{SINGLE} {region}", folder)
        names = _names(scores, region)
        shown += [(alone, f"{ALONE}: {names}"), (single, f"{SINGLE}: {names}")]
    shown.append((outlined(_picture(scores, BASE, folder), list(parts.items())), BASE))
    note = "; ".join([layout.base.prompt, *(region.prompt for region in layout.regions)])
    return Strip(scores.name, note, shown)


def _picture(scores: LayoutScores, way: str, folder: Path) -> Image.Image:
    return samples.read(folder, Path(scores.shown[way]).stem)


def _names(scores: LayoutScores, region: int) -> str:
    return ", ".join(f"<{box.name}>" for box in scores.boxes if box.region == region)
