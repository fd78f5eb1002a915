"""Several concepts named in one prompt, without boxes: how much of each is left beside the others.

Each concept is looked for in parts of the picture. Its gain over the class noun, with all named, is set against its
gain with it alone named: that of its own LoRA, and that of a plain one, which no consolidation has weakened. The first
tells how much the concepts disturb each other, the second what comes out in the end.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from cidm_cli.data import load_examples
from cidm_cli.draw import images as generate
from cidm_cli.draw.jobs import Job
from cidm_cli.judge.tasks import Task
from cidm_cli.models.identity import MINI
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry

from .figures import jackknife
from .lab import Lab

SCENES = ("a photo of {} on the beach", "a photo of {} in the snow", "a photo of {} on a white background",
          "a photo of {} on the grass")  # fmt: skip
WINDOWS = ((0.0, 0.0, 1.0, 1.0), (0.0, 0.25, 0.58, 0.83), (0.21, 0.25, 0.79, 0.83), (0.42, 0.25, 1.0, 0.83))
"""Parts of a picture in which a concept is looked for: all of it, left, middle, right."""

Row = dict[str, Any]
"""One concept in one group: ``group``, its number; ``concept``; and for each judge its IA with ``all`` named, with it
``alone`` named, and with only class nouns (``base``), and ``confused``: the share of pictures with all named whose part
that is most like it is nearer to another concept's own pictures."""


def rows(
    lab: Lab,
    registry: Registry,
    tasks: Sequence[Task],
    name: str,
    size: int,
    number: int,
    given: argparse.Namespace,
    *,
    named: Sequence[Row] | None = None,
) -> list[Row]:
    """Groups of ``size`` objects drawn together, each concept at full weight; read from their file if they are there.

    Args:
        number: of groups; fewer than there are, they are picked at random, the same each time.
        named: such rows, of which only the pictures with all named are drawn anew, each at the ``size``-th part of its
            weight.
    """
    path = lab.folder / "results" / f"{name}-{size}.json"
    if not path.exists():
        references = {task.name: reference(lab, task) for task in tasks}
        groups = list(itertools.combinations([task for task in tasks if not task.style], size))
        picked = np.random.default_rng(size).choice(len(groups), min(number, len(groups)), replace=False)
        out: list[Row] = []
        for k in picked.tolist():
            old = None if named is None else [row for row in named if row["group"] == k]
            found = _together(lab, registry, groups[k], references, given, old)
            out += [{"group": k, **row} for row in found]
        lab.keep(f"{name}-{size}", {"rows": out})
    kept: list[Row] = json.loads(path.read_text())["rows"]
    return kept


def figures(own: Sequence[Row], plain: Sequence[Row], default: Sequence[Row], judge: str) -> dict[str, Any]:
    """What one training's rows say by one judge; each figure a pair of value and standard error.

    - ``ia``: with all named.
    - ``of_plain``: retention against a plain LoRA alone.
    - ``of_own``: retention against the same LoRA alone.
    - ``behind``: IA by which it is behind the default.
    - ``confusion``: share of pictures in which it is nearer to another concept.

    Args:
        own, plain, default: rows of this training, of the plain one and of the default, of the same groups.
    """
    columns = [
        [row[judge][way] for row in some]
        for some, way in (
            (own, "all"),
            (own, "alone"),
            (own, "base"),
            (plain, "alone"),
            (default, "all"),
            (own, "confused"),
        )
    ]
    table = np.array(columns)
    # A concept is left out with every group that it is in.
    held = {
        name: {row["group"] for row in own if row["concept"] == name}
        for name in {r["concept"]: 0 for r in own}
    }
    without = np.array([[row["group"] in some for row in own] for some in held.values()])
    return {
        "ia": jackknife(lambda t: t[0].mean(), table, without),
        "of_plain": jackknife(lambda t: (t[0] - t[2]).mean() / (t[3] - t[2]).mean(), table, without),
        "of_own": jackknife(lambda t: (t[0] - t[2]).mean() / (t[1] - t[2]).mean(), table, without),
        "behind": jackknife(lambda t: (t[4] - t[0]).mean(), table, without),
        "confusion": jackknife(lambda t: t[5].mean(), table, without),
    }


def _together(
    lab: Lab,
    registry: Registry,
    group: Sequence[Task],
    references: Mapping[str, Mapping[str, np.ndarray]],
    given: argparse.Namespace,
    old: Sequence[Row] | None,
) -> list[Row]:
    """Each concept of a group, by each judge; of ``old`` rows only what is seen with all named is found anew."""
    names = [task.name for task in group]
    options = resolve_draw(
        dict(
            count=given.samples, batch=len(SCENES) * given.samples, seed=500, method="named", steps=given.draw_steps
        ),
        MINI, lab.base.pixels,
    )  # fmt: skip

    def look(named: Sequence[str], method: str = "named") -> dict[str, dict[str, Seen]]:
        words = [f"a <{task.name}>" if task.name in named else f"a {task.class_noun}" for task in group]
        jobs = [Job(scene.format(" and ".join(words)), replace(options, method=method)) for scene in SCENES]
        there = [record for record in registry.records() if record.name in named]
        pictures = [p.image for p in generate.draw(registry, lab.base, jobs, records=there)]
        return _seen(lab, pictures, names, references)

    whole = look(names) if old is None else look(names, "mean")
    if old is None:
        base, alone = look([]), {name: look([name])[name] for name in names}
        old = [
            {
                "concept": name,
                **{
                    judge: {"alone": one.ia, "base": base[name][judge].ia}
                    for judge, one in alone[name].items()
                },
            }
            for name in names
        ]
    return [
        {
            **row,
            **{
                judge: {**row[judge], "all": seen.ia, "confused": seen.confused}
                for judge, seen in whole[row["concept"]].items()
            },
        }
        for row in old
    ]


@dataclass(frozen=True)
class Seen:
    """What one judge sees of a concept in some pictures."""

    ia: float
    """Mean over pictures of the likeness of the part that is most like it."""
    confused: float
    """Share of pictures in which that part is more like another concept."""


def _seen(
    lab: Lab,
    pictures: Sequence[Image.Image],
    names: Sequence[str],
    references: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, Seen]]:
    """What each judge sees of each of ``names``; ``references`` are its and all others' own pictures."""
    windows = [part for picture in pictures for part in parts(picture, WINDOWS)]
    out: dict[str, dict[str, Seen]] = {name: {} for name in names}
    for judge in lab.judges.names:
        seen = embedded(lab, judge, windows)
        likeness = {
            name: (seen @ own[judge].T).mean(1).reshape(-1, len(WINDOWS)) for name, own in references.items()
        }
        for name in names:
            out[name][judge] = judged(likeness, name)
    return out


def judged(likeness: Mapping[str, np.ndarray], name: str) -> Seen:
    """A concept among others, of each one's likeness to the parts of pictures [pictures, parts]."""
    own = likeness[name]
    best = own.argmax(1)[:, None]
    others = np.stack([np.take_along_axis(other, best, 1) for key, other in likeness.items() if key != name])
    return Seen(float(own.max(1).mean()), float((others.max(0)[:, 0] > own.max(1)).mean()))


def parts(picture: Image.Image, where: Sequence[tuple[float, float, float, float]]) -> list[Image.Image]:
    """Parts of a picture in which a concept is looked for, enlarged to the whole."""
    side = picture.width
    return [
        picture.crop(tuple(round(edge * side) for edge in part)).resize(  # type: ignore[arg-type]
            picture.size, Image.Resampling.LANCZOS
        )
        for part in where
    ]


def reference(lab: Lab, task: Task) -> dict[str, np.ndarray]:
    """Embeddings of a concept's own pictures, by judge."""
    images = [e.image for e in load_examples(task.images, class_noun=task.class_noun).examples]
    return {judge: embedded(lab, judge, images) for judge in lab.judges.names}


def embedded(lab: Lab, judge: str, images: Sequence[Image.Image]) -> np.ndarray:
    found: np.ndarray = getattr(lab.judges, judge).embed(images)
    return found
