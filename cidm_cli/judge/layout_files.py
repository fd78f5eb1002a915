"""An evaluation of layouts as files: figures, and a page on which every way of drawing stands beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ..files.places import told_path
from ..files.writing import write_whole
from ..layout import Layout
from ..terminal.output import Table
from ..terminal.pages import Strip, page
from . import samples
from .layout_scores import LayoutScores, NeglectScores
from .report_files import Figures, figure_cells, figure_heads, judged_by, write_json
from .rivals import ALONE, BASE, RIVALS, SINGLE

FIGURES: Figures = {
    "identity": ("IA", "Image alignment ↑", "mean cosine of a box and its concept's reference "
                 "images. Higher is better."),
    "identity_ratio": ("RATIO", "Identity ratio ↑", "image alignment over what the concept reaches with no other "
                       "region in the layout. Higher is better; 1 is as good as alone."),
    "kept": ("KEPT", "Kept ↑", "what is left of the image alignment that the concept gains there over the base. Higher "
             "is better."),
    "presence": ("FOUND", "Presence ↑", "share of boxes in which the concept is the likeliest of all, and likelier "
                 "than where the base draws the class noun. Higher is better."),
    "taken": ("TAKEN", "Taken ↓", "share of boxes in which a concept of another box is likelier. Lower is better."),
    "background": ("SPILL", "Spill ↓", "what the image outside all boxes gains in likeness to the concepts. Lower is "
                   "better."),
}  # fmt: skip
"""Figures that each judge gives."""
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")
"""Of boxes, by region: told apart by colour-blind readers (Okabe and Ito)."""
LEAST_SIDE = 256
"""Pixels to which small pictures are enlarged, so that a box's edge covers little of them."""


def table(found: NeglectScores, *, whole: bool = False) -> Table:
    """A row for each way of drawing; ``whole`` writes the headings in full, for a page."""
    ways = (*found.rivals, ALONE, SINGLE, BASE)
    rows = [(way, figure_cells(FIGURES, found.figures(way), found.judges)) for way in ways]
    heads = figure_heads(FIGURES, found.judges, whole=whole)
    return Table(("Drawn" if whole else "DRAWN", *heads), [(way, *cells) for way, cells in rows])


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
    count = len(found.layouts)
    whole = page(
        f"Evaluation of {count} {'layout' if count == 1 else 'layouts'}", _opening(found), strips, [],
        tables=[table(found, whole=True)], terms=_terms(found),
    )  # fmt: skip
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
    boxes = sum(len(layout.boxes) for layout in found.layouts)
    return [
        f"Boxes: {boxes}. Images of each layout, in each way: {found.draw['count']}.",
        judged_by(found.judges),
        *(f"{told_path(Path(what))} was not judged: {why}." for what, why in found.skipped),
    ]


def _terms(found: NeglectScores) -> dict[str, str]:
    """What the table's columns and rows mean."""
    return {
        **{title: text for _, title, text in FIGURES.values()},
        **{way: f"{RIVALS[way]}." for way in found.rivals},
        ALONE: "each region with no other in the layout.",
        SINGLE: "each region's prompt as an image of its own, as large as the box.",
        BASE: "class nouns, no concept.",
    }


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
    return Strip(told_path(Path(scores.name)), note, shown)


def _picture(scores: LayoutScores, way: str, folder: Path) -> Image.Image:
    return samples.read(folder, Path(scores.shown[way]).stem)


def _names(scores: LayoutScores, region: int) -> str:
    return ", ".join(f"<{box.name}>" for box in scores.boxes if box.region == region)
