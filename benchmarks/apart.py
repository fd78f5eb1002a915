"""Two concepts named in one prompt, without boxes, by method of drawing: how much of each is left, and what it costs.

Prints one JSON object with, for each pair, method and judge:

- ``kept``: a concept's gain over the class noun with both named, as a share of its gain with it alone named, in the
  part of the picture that is most like it (``together.WINDOWS``); ``confused``: the share of pictures in which that
  part is more like the other concept.
- ``cut``: the same share where each concept is looked for and cut out, no two from one place; one that is not found
  counts nothing. ``all_found``: the share of pictures in which every concept was.

``seconds`` are those of the processor for a picture. Everything drawn has the seeds and prompts of ``--first``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cidm_cli.draw import images as generate
from cidm_cli.draw.jobs import Job
from cidm_cli.judge.tasks import Task, load_tasks
from cidm_cli.models.identity import MINI
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry

from .lab import Lab, add_arguments, ending, say, told
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
    parser.add_argument("--data", type=Path, required=True, help="folder with tasks.toml")
    parser.add_argument("--pairs", nargs="+", required=True, help="names of concepts, joined by +")
    parser.add_argument("--methods", nargs="+", default=["named", "rows", "cells", "found"])
    parser.add_argument("--scenes", type=int, default=len(SCENES), help="prompts of each pair")
    parser.add_argument("--first", type=int, default=50_000, help="seed of each prompt's first picture")
    given = parser.parse_args()
    lab = Lab(given.work)
    tasks = {task.name: task for task in load_tasks(given.data)}
    registry = lab.registry("apart", [*tasks.values()], {"steps": given.steps} if given.steps else {})
    found = {}
    for pair in given.pairs:
        found[pair] = paired(lab, registry, [tasks[name] for name in pair.split("+")], given)
        say(json.dumps({pair: found[pair]}))
    print(json.dumps({"protocol": told(given), "pairs": found}))


def paired(lab: Lab, registry: Registry, pair: Sequence[Task], given: argparse.Namespace) -> dict[str, Any]:
    """The figures of a pair, by method."""
    names = [task.name for task in pair]
    own = {task.name: reference(lab, task) for task in pair}
    where = places()
    options = resolve_draw(
        dict(count=given.samples, seed=given.first, method="named", steps=given.draw_steps), MINI, lab.base.pixels
    )  # fmt: skip

    def drawn(named: Sequence[str], method: str = "named") -> tuple[list[Image.Image], float]:
        words = [f"a <{task.name}>" if task.name in named else f"a {task.class_noun}" for task in pair]
        wanted = replace(options, method=method)
        jobs = [Job(scene.format(" and ".join(words)), wanted) for scene in SCENES[: given.scenes]]
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
    out: dict[str, Any] = {method: {"seconds": both[method][1]} for method in given.methods}
    for judge in lab.judges.names:
        windows, all_over = seen(nothing, judge)
        base = {name: judged(windows, name).ia for name in names}
        level = all_over.max(1).mean(0)
        single = {name: seen(alone[name], judge) for name in names}
        gain = np.array([judged(single[name][0], name).ia - base[name] for name in names])
        cut_gain = np.array([(single[n][1][..., c].max(1) - level[c]).mean() for c, n in enumerate(names)])
        for method in given.methods:
            windows, all_over = seen(both[method][0], judge)
            each = [judged(windows, name) for name in names]
            cut = cut_out(all_over, where, level)
            gained = np.where(cut > 0, cut - level, 0).mean(0)
            out[method][judge] = {
                "kept": sum(one.ia - base[n] for one, n in zip(each, names, strict=True)) / gain.sum(),
                "confused": float(np.mean([one.confused for one in each])),
                "cut": gained.sum() / cut_gain.sum(),
                "all_found": float((cut > 0).all(1).mean()),
            }
    return out


if __name__ == "__main__":
    ending(main)
