"""Concept neglect: layouts of two to four mini-CIFC objects, similar ones together, drawn in several ways and judged.

Every layout is drawn as it says, in fast mode, by each ablation and by plain prompting; what a concept reaches at
that place and size comes from the same layout without the other regions. Everything is kept in ``--work`` and not made
again. Prints one JSON object: the figures of each way, over all layouts, by number of regions and by picture size.
``--out`` also writes the layout files and a page with all pictures side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cidm_cli.judge.layout_files import write
from cidm_cli.judge.layout_scores import NeglectScores
from cidm_cli.judge.layouts import evaluate_layouts
from cidm_cli.judge.rivals import ALONE, BASE, RIVALS, SINGLE
from cidm_cli.judge.subjects import match
from cidm_cli.judge.tasks import Task
from cidm_cli.layout import Layout, load_layout
from cidm_cli.machine.session import Listener

from .continual import TRAININGS, learned, whole
from .lab import Lab, add_arguments, ending, protocol, quiet, say, told
from .sets import JUDGE

SEED = 2000
"""Of each layout's first picture, and of what is drawn at random in making the layouts."""


@dataclass(frozen=True)
class Arrangement:
    """Where regions are in a picture."""

    name: str
    size: tuple[int, int]
    """Width and height in pixels; the base's own pictures have 64 each way."""
    boxes: tuple[tuple[float, float, float, float], ...]


#: Most boxes are about as large as the base's own pictures; those at 64 and 96 pixels are smaller, which is harder.
ARRANGEMENTS = (
    Arrangement("beside", (128, 64), ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))),
    Arrangement("above", (64, 128), ((0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0))),
    Arrangement("diagonal", (128, 128), ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0))),
    Arrangement("near and far", (128, 128), ((0.0, 0.375, 0.625, 1.0), (0.625, 0.125, 1.0, 0.5))),
    Arrangement("middle", (96, 96), ((0.0, 0.25, 0.5, 0.75), (0.5, 0.25, 1.0, 0.75))),
    Arrangement("narrow", (64, 64), ((0.0, 0.125, 0.5, 0.875), (0.5, 0.125, 1.0, 0.875))),
    Arrangement("row", (192, 64), ((0.0, 0.0, 1 / 3, 1.0), (1 / 3, 0.0, 2 / 3, 1.0), (2 / 3, 0.0, 1.0, 1.0))),
    Arrangement("triangle", (128, 128), ((0.25, 0.0, 0.75, 0.5), (0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 1.0))),
    Arrangement("three small", (96, 96), ((0.25, 0.0, 0.75, 0.5), (0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 1.0))),
    Arrangement(
        "grid", (128, 128),
        ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 1.0)),
    ),
    Arrangement(
        "grid with room", (160, 160),
        ((0.05, 0.05, 0.45, 0.45), (0.55, 0.05, 0.95, 0.45), (0.05, 0.55, 0.45, 0.95), (0.55, 0.55, 0.95, 0.95)),
    ),
)  # fmt: skip
GROUPS: tuple[tuple[str, ...], ...] = (
    ("dog", "dog2"), ("cat", "cat2"), ("dog", "cat"), ("dog2", "cat2"), ("dog", "cat2"), ("dog2", "cat"),
    ("teddybear", "dog2"), ("cat", "teddybear"), ("duck", "backpack"), ("backpack", "dog"),
    ("dog", "dog2", "cat"), ("cat", "cat2", "dog"), ("dog", "cat", "teddybear"), ("dog2", "cat2", "duck"),
    ("cat2", "teddybear", "backpack"), ("dog", "dog2", "teddybear"),
    ("dog", "dog2", "cat", "cat2"), ("dog", "cat", "duck", "backpack"), ("dog2", "cat2", "teddybear", "cat"),
)  # fmt: skip
"""Concepts drawn together: alike ones first."""
SCENES = ("on the beach", "in the forest", "in the snow", "in the city", "on the grass", "in the mountains",
          "in a room", "on the road", "in the desert", "at sunset")  # fmt: skip
STYLED = {3: "painting", 12: "ink_painting", 24: "drawing"}
"""Layouts whose whole picture is in a learned style, by their place in the list."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--training", default="cidm", choices=list(TRAININGS), help="how concepts were learned"
    )
    parser.add_argument("--limit", type=int, help="only so many layouts, evenly spread over the list")
    parser.add_argument(
        "--rivals", nargs="*", default=[w for w in RIVALS if w != "full"], choices=list(RIVALS)
    )
    parser.add_argument("--out", type=Path, help="folder for the layout files, the figures and the page")
    given = parser.parse_args()
    lab = Lab(given.work)
    run = whole(JUDGE, 0, given)
    tasks = run.tasks
    registry = learned(lab, given.training, run)
    layouts = spread(made(tasks), given.limit)
    say(f"{len(layouts)} layouts")
    found = evaluate_layouts(
        registry, lab.base, layouts, protocol(given, 0), folder=lab.folder / "samples", judges=lab.judges,
        subjects=match(registry.records(), tasks)[0], rivals=given.rivals, listener=Listener(say, stage=quiet),
    )  # fmt: skip
    if given.out:
        (given.out / "layouts").mkdir(parents=True, exist_ok=True)
        for name, layout in layouts.items():
            (given.out / "layouts" / f"{name}.toml").write_text(layout.to_toml())
        write(found, given.out, lab.folder / "samples", layouts)
    print(json.dumps({"protocol": {**told(given), "training": given.training}, **summary(found)}))


def made(tasks: Sequence[Task]) -> dict[str, Layout]:
    """The layouts, by name; the same each time. Every group in each arrangement for its number, but for repeats."""
    nouns = {task.name: task.class_noun for task in tasks}
    random = np.random.default_rng(SEED)
    out: dict[str, Layout] = {}
    places = {n: [a for a in ARRANGEMENTS if len(a.boxes) == n] for n in (2, 3, 4)}
    for number, group in enumerate(GROUPS):
        for turn in range(3 if len(group) == 4 else 2):
            if len(group) == 4:
                place = places[4][turn % 2]
            else:
                place = places[len(group)][(2 * number + turn) % len(places[len(group)])]
            concepts = [group[k] for k in random.permutation(len(group))]
            name = f"{len(out) + 1:02} {place.name}: {' '.join(concepts)}"
            scene = str(random.choice(SCENES))
            out[name] = layout(
                name, place, concepts, nouns, scene, STYLED.get(len(out)), SEED + 10 * len(out)
            )
    return out


def layout(
    name: str, place: Arrangement, concepts: Sequence[str], nouns: Mapping[str, str], scene: str,
    style: str | None, seed: int,
) -> Layout:  # fmt: skip
    """One layout; the style, if there is one, is the whole picture's."""
    things = [f"a {nouns[concept]}" for concept in concepts]
    opening = f"a <{style}>" if style else "a photo"
    lines = [
        f"version = 1\n[image]\nsize = {list(place.size)}\nseed = {seed}",
        f'[base]\nprompt = "{opening} of {", ".join(things[:-1])} and {things[-1]} {scene}"',
    ]
    for concept, box in zip(concepts, place.boxes, strict=True):
        edges = [round(edge, 4) for edge in box]
        lines.append(f'[[region]]\nprompt = "a photo of a <{concept}> {scene}"\nbox = {edges}')
    return load_layout(name, text="\n".join(lines) + "\n")


def spread(layouts: Mapping[str, Layout], limit: int | None) -> dict[str, Layout]:
    """Some of them, evenly spread over the list."""
    names = list(layouts)
    picked = np.linspace(0, len(names) - 1, min(limit or len(names), len(names))).round().astype(int)
    return {names[k]: layouts[names[k]] for k in picked}


def summary(found: NeglectScores) -> dict[str, Any]:
    """The figures of each way of drawing, in all and by kind of layout."""
    ways = (*found.rivals, ALONE, SINGLE, BASE)
    by_count: dict[str, Any] = {}
    by_size: dict[str, Any] = {}
    for layout in found.layouts:
        by_count.setdefault(str(len(layout.boxes)), []).append(layout)
        by_size.setdefault("{}x{}".format(*layout.size), []).append(layout)
    return {
        "layouts": len(found.layouts),
        "boxes": sum(len(layout.boxes) for layout in found.layouts),
        "ways": {way: found.figures(way) for way in ways},
        "by_regions": {
            k: {way: found.figures(way, some) for way in ways} for k, some in sorted(by_count.items())
        },
        "by_size": {
            k: {way: found.figures(way, some) for way in ways} for k, some in sorted(by_size.items())
        },
    }


if __name__ == "__main__":
    ending(main)
