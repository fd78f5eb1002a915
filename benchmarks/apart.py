"""Two concepts named in one prompt, without boxes, by method of drawing: how much of each is left, and what it costs.

Pairs of one class noun are look-alikes, all others unlike. Everything is kept in ``--work`` and not made again. Prints
one JSON object: ``composed.two.lookalike`` and ``.unlike``, by method, with intervals from leaving out concepts:

- ``kept``: the concepts' gain over the class noun with both named, as a share of their gain with one alone named, in
  the part of the image that is most like each (``together.WINDOWS``); ``confusion``: the share of images in which that
  part is more like the other concept.
- ``cut``: the same share where each concept is looked for and cut out, no two from one place; one that is not found
  counts nothing. ``all_found``: the share of images in which every concept was.
- ``kept_beside`` and ``cut_beside``: differences to ``named``, paired. ``time_ratio``: processor time over that of
  ``named``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cidm_cli.draw import images as generate
from cidm_cli.draw.jobs import Job
from cidm_cli.judge.tasks import Task
from cidm_cli.models.identity import MINI
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry

from . import figures
from .continual import DEFAULT, learned, whole
from .lab import Lab, add_arguments, ending, say, told
from .sets import SETS
from .together import SCENES, WINDOWS, embedded, judged, parts, reference

SIDES = (0.42, 0.58, 0.75)
"""Sides of the places in which a concept is looked for."""
STEP = 0.14
"""From one to the next."""
SHARED = 0.25
"""Of two concepts' places, the part of the smaller that both may hold."""

Place = tuple[float, float, float, float]


def places() -> list[Place]:
    """Squares all over a picture, as shares of its sides."""
    out = []
    for side in SIDES:
        starts = np.linspace(0, 1 - side, 1 + round((1 - side) / STEP))
        out += [(x, y, x + side, y + side) for y in starts.tolist() for x in starts.tolist()]
    return out


def shared(one: Place, other: Place) -> float:
    """The part of the smaller place that lies in both."""
    width, height = (min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in (0, 1))
    areas = [(p[2] - p[0]) * (p[3] - p[1]) for p in (one, other)]
    return max(width, 0.0) * max(height, 0.0) / min(areas)


def cut_out(likeness: np.ndarray, where: Sequence[Place], level: Sequence[float]) -> np.ndarray:
    """Each concept's likeness in the place it is found in, 0 where it is missing [pictures, concepts].

    Places are dealt out so that the concepts' likenesses are largest together, no two from one place. A concept is
    found if it is the likeliest there, and likelier than where nothing was learned.

    Args:
        likeness: of each place to each concept [pictures, places, concepts].
        level: each concept's likeness of the best place where only class nouns are named.
    """
    pictures, number, concepts = likeness.shape
    free = np.array([[shared(one, other) <= SHARED for other in where] for one in where])
    out = np.zeros((pictures, concepts))
    deals = np.array([
        deal for deal in itertools.product(range(number), repeat=concepts)
        if all(free[a, b] for a, b in itertools.combinations(deal, 2))
    ])  # fmt: skip
    for picture, seen in enumerate(likeness):
        best = deals[sum(seen[deals[:, c], c] for c in range(concepts)).argmax()]
        for c, place in enumerate(best.tolist()):
            if seen[place].argmax() == c and seen[place, c] > level[c]:
                out[picture, c] = seen[place, c]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--set", choices=list(SETS), default="judge")
    parser.add_argument("--data", type=Path, help="folder of the set's tasks, where it is not shipped")
    parser.add_argument("--seeds", type=int, nargs="*", help="trainings of the set, else all")
    parser.add_argument("--unlike", type=int, default=6, help="pairs of different class nouns")
    parser.add_argument("--methods", nargs="+", default=["rows", "cells", "found"], help="beside named")
    given = parser.parse_args()
    given.methods = [*dict.fromkeys(["named", *given.methods])]
    lab, chosen = Lab(given.work), SETS[given.set]
    rows: dict[str, list[Row]] = {"lookalike": [], "unlike": []}
    for seed in given.seeds or chosen.trainings:
        run = whole(chosen, seed, given)
        registry = learned(lab, DEFAULT, run)
        for kind, some in pairs(chosen.tasks(given.data), given.unlike).items():
            for pair in some:
                rows[kind] += kept(lab, registry, pair, f"apart-{run.judged}", chosen.pictures(seed), given)
    print(
        json.dumps(
            {
                "protocol": {**told(given), "set": chosen.name, "seeds": given.seeds or chosen.trainings},
                "composed": {
                    "two": {kind: table(some, lab.judges.names) for kind, some in rows.items() if some}
                },
            }
        )
    )


Row = dict[str, Any]
"""One concept in one pair, drawn by one method: ``pair``, ``concept``, ``method``; ``seconds`` of the processor for an
image; and for each judge what ``paired`` sees."""


def pairs(tasks: Sequence[Task], unlike: int) -> dict[str, list[tuple[Task, ...]]]:
    """All pairs of look-alike objects, and so many of the unlike ones, the same each time."""
    every = [*itertools.combinations([task for task in tasks if not task.style], 2)]
    alike = [pair for pair in every if pair[0].class_noun == pair[1].class_noun]
    others = [pair for pair in every if pair not in alike]
    picked = np.random.default_rng(2).choice(len(others), min(unlike, len(others)), replace=False)
    return {"lookalike": alike, "unlike": [others[k] for k in sorted(picked.tolist())]}


def kept(
    lab: Lab, registry: Registry, pair: Sequence[Task], name: str, first: int, given: argparse.Namespace
) -> list[Row]:
    """A pair's rows, read from their file where they are there."""
    name = f"{name}-{'+'.join(task.name for task in pair)}"
    path = lab.folder / "results" / f"{name}.json"
    found: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    missing = [method for method in given.methods if all(row["method"] != method for row in found)]
    if missing:
        # Times are compared: what they are compared with is drawn beside.
        found = paired(lab, registry, pair, first, given)
        lab.keep(name, {"rows": found})
        say(name)
    return [row for row in found if row["method"] in given.methods]


def paired(
    lab: Lab, registry: Registry, pair: Sequence[Task], first: int, given: argparse.Namespace
) -> list[Row]:
    """A pair's rows. For each judge: ``base``, ``alone`` and ``all``, likeness in the windows with class nouns, the
    concept, and both named; ``confused``; ``cut_alone`` and ``cut``, likeness of what is cut out above the class
    noun's; ``all_found``.

    Args:
        first: seed of each prompt's first image.
    """
    names = [task.name for task in pair]
    own = {task.name: reference(lab, task) for task in pair}
    where = places()
    options = resolve_draw(
        dict(count=given.samples, seed=first, method="named", steps=given.draw_steps), MINI, lab.base.pixels
    )  # fmt: skip

    def drawn(named: Sequence[str], method: str = "named") -> tuple[list[Image.Image], float]:
        words = [f"a <{task.name}>" if task.name in named else f"a {task.class_noun}" for task in pair]
        wanted = replace(options, method=method)
        jobs = [Job(scene.format(" and ".join(words)), wanted) for scene in SCENES]
        started = time.process_time()
        some = [p.image for p in generate.draw(registry, lab.base, jobs)]
        return some, (time.process_time() - started) / len(some)

    def seen(images: Sequence[Image.Image], judge: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Likeness to each concept of the windows of together, and of all places."""
        out = []
        for some in (WINDOWS, where):
            every = embedded(lab, judge, [part for image in images for part in parts(image, some)])
            out.append({n: (every @ own[n][judge].T).mean(1).reshape(len(images), -1) for n in names})
        return out[0], np.stack([out[1][name] for name in names], -1)

    nothing, alone = drawn([])[0], {name: drawn([name])[0] for name in names}
    both = {method: drawn(names, method) for method in given.methods}
    rows: list[Row] = [
        {"pair": "+".join(names), "concept": name, "method": method, "seconds": both[method][1]}
        for method in given.methods for name in names
    ]  # fmt: skip
    for judge in lab.judges.names:
        windows, all_over = seen(nothing, judge)
        level = all_over.max(1).mean(0)
        single = {name: seen(alone[name], judge) for name in names}
        by_method = {method: seen(both[method][0], judge) for method in given.methods}
        cuts = {method: cut_out(all_over, where, level) for method, (_, all_over) in by_method.items()}
        for row in rows:
            name, c = row["concept"], names.index(row["concept"])
            one, cut = judged(by_method[row["method"]][0], name), cuts[row["method"]]
            row[judge] = {
                "base": judged(windows, name).ia,
                "alone": judged(single[name][0], name).ia,
                "all": one.ia,
                "confused": one.confused,
                "cut_alone": float((single[name][1][..., c].max(1) - level[c]).mean()),
                "cut": float(np.where(cut[:, c] > 0, cut[:, c] - level[c], 0).mean()),
                "all_found": float((cut > 0).all(1).mean()),
            }
    return rows


FIGURES: dict[str, Callable[[np.ndarray], float]] = {
    "kept": lambda t: t[0].sum() / t[2].sum(),
    "kept_beside": lambda t: (t[0] - t[1]).sum() / t[2].sum(),
    "cut": lambda t: t[3].sum() / t[5].sum(),
    "cut_beside": lambda t: (t[3] - t[4]).sum() / t[5].sum(),
    "confusion": lambda t: t[6].mean(),
    "all_found": lambda t: t[7].mean(),
}
"""Of columns: gain with both named, by ``named``, alone; cut out, by ``named``, alone; confused; all found."""


def table(rows: Sequence[Row], judges: Sequence[str]) -> dict[str, Any]:
    """The figures of some pairs, by method."""
    out: dict[str, Any] = {}
    by_method = {
        method: [r for r in rows if r["method"] == method] for method in {r["method"]: 0 for r in rows}
    }
    for method, own in by_method.items():
        usual = by_method["named"]
        held = {
            name: {r["pair"] for r in own if r["concept"] == name} for name in {r["concept"]: 0 for r in own}
        }
        # A concept is left out with every pair that it is in.
        without = np.array([[row["pair"] in some for row in own] for some in held.values()])
        without = without[~without.all(1)]
        out[method] = {
            "time_ratio": sum(row["seconds"] for row in own) / sum(row["seconds"] for row in usual),
        }
        for judge in judges:
            seen, beside = ([row[judge] for row in some] for some in (own, usual))
            columns = [
                [one["all"] - one["base"] for one in seen], [one["all"] - one["base"] for one in beside],
                [one["alone"] - one["base"] for one in seen],
                *([one[figure] for one in some] for figure, some in (("cut", seen), ("cut", beside))),
                *([one[figure] for one in seen] for figure in ("cut_alone", "confused", "all_found")),
            ]  # fmt: skip
            out[method][judge] = {
                name: figures.interval(figure, np.array(columns), without) for name, figure in FIGURES.items()
            }
    return out


if __name__ == "__main__":
    ending(main)
