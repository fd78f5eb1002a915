"""The three promises of remembering (routed, composed, static), at 10, 30 and 100 concepts, many of them alike.

The concepts come from ``python -m benchmarks.concepts``. Everything is kept in ``--work`` and not made again. Prints
one JSON object:

- ``retention.routed.K``: named concepts drawn with K learned, by method of drawing; ``identical``: whether concepts
  drawn right after they were learned and at the end are the same, byte for byte, named.
- ``retention.composed.N``: N concepts named in one prompt, each compared with itself alone in the same prompt.
- ``retention.static.K``: all K in one file, by merge method.

Retention is the share of a concept's gain that survives: (IA - IA of the base) / (IA alone - IA of the base).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cidm_cli.data import Task, load_examples, load_tasks
from cidm_cli.formats import merged as merged_file
from cidm_cli.merge_options import MergeOptions
from cidm_cli.method import metrics
from cidm_cli.models.identity import MINI
from cidm_cli.options import DrawOptions, resolve_draw
from cidm_cli.workflow import generate, merge
from cidm_cli.workflow.evaluate import State
from cidm_registry import Record, Registry

from .continual import TRAININGS
from .lab import Lab, add_arguments, cells, ending, protocol, say, told

COUNTS = (10, 30, 100)
MERGES = ("fuse", "mean", "sum", "svd", "ties", "dare")
SEED = 1000
"""Of each prompt's first picture."""
ROUTED = ("named", "sharp", "official", "paper")
SCENES = ("a photo of {} on the beach", "a photo of {} in the snow", "a photo of {} on a white background",
          "a photo of {} on the grass")  # fmt: skip
WINDOWS = ((0.0, 0.0, 1.0, 1.0), (0.0, 0.25, 0.58, 0.83), (0.21, 0.25, 0.79, 0.83), (0.42, 0.25, 1.0, 0.83))
"""Parts of a picture in which a concept is looked for: all of it, left, middle, right."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--concepts", type=Path, required=True, help="folder of benchmarks.concepts")
    parser.add_argument("--parts", nargs="*", default=["routed", "composed", "static"])
    parser.add_argument("--counts", type=int, nargs="*", default=list(COUNTS))
    parser.add_argument("--trainings", nargs="*", default=["cidm", "plain"], choices=list(TRAININGS))
    parser.add_argument("--merges", nargs="*", default=list(MERGES))
    parser.add_argument(
        "--judged", type=int, default=10, help="concepts judged of each number, evenly spread"
    )
    parser.add_argument("--groups", type=int, default=12, help="pairs and triples of concepts named together")
    given = parser.parse_args()
    lab = Lab(given.work)
    tasks = load_tasks(given.concepts)
    out: dict[str, Any] = {}
    for training in given.trainings:
        out[training] = {}
        for count in given.counts:
            registry = learned(lab, tasks, training, count, given)
            records = registry.records()[:count]
            if "routed" in given.parts:
                found = routed(lab, registry, records, tasks[:count], training, given)
                out[training].setdefault("routed", {})[str(count)] = found
            if "static" in given.parts and (count < 100 or training == "cidm"):
                found = static(lab, registry, records, tasks[:count], training, given)
                out[training].setdefault("static", {})[str(count)] = found
        if "composed" in given.parts:
            registry = learned(lab, tasks, training, min(given.counts), given)
            out[training]["composed"] = {
                str(size): composed(lab, registry, tasks[: min(given.counts)], training, size, given)
                for size in (2, 3)
            }
    print(
        json.dumps(
            {"protocol": {**told(given), "judged": given.judged, "groups": given.groups}, "promises": out}
        )
    )


def learned(
    lab: Lab, tasks: Sequence[Task], training: str, count: int, given: argparse.Namespace
) -> Registry:
    """A registry with the first ``count`` tasks learned, at least."""
    steps = {"steps": given.steps} if given.steps else {}
    return lab.registry(f"many-{training}", tasks, {**TRAININGS[training], **steps}, count=count)


def spread(tasks: Sequence[Task], number: int) -> list[str]:
    """Names of concepts evenly spread over the order of learning, the first and the last among them."""
    picked = np.linspace(0, len(tasks) - 1, min(number, len(tasks))).round().astype(int)
    return [tasks[k].name for k in picked]


def routed(
    lab: Lab,
    registry: Registry,
    records: Sequence[Record],
    tasks: Sequence[Task],
    training: str,
    given: argparse.Namespace,
) -> dict[str, Any]:
    """Retention and confusion by method of drawing, with ``len(records)`` concepts learned."""
    only = spread(tasks, given.judged)
    out: dict[str, Any] = {"identical": identical(lab, registry, records, only, training)}
    state = [State(records[-1].sequence, tuple(records))]
    single: Mapping[str, Any] | None = None
    for method in ROUTED:
        name = f"routed-{training}-{len(records)}-{method}"
        options = replace(protocol(given, SEED), method=method)
        found = lab.judged(name, registry, tasks, options, only=only, states=state, single=single)
        single = single or cells(found, "single")
        out[method] = figures(found)
    return out


def identical(
    lab: Lab, registry: Registry, records: Sequence[Record], only: Sequence[str], training: str
) -> dict[str, int]:
    """How many concepts' pictures are the same bytes with only the concepts up to theirs, and with all."""
    name = f"identical-{training}-{len(records)}"
    path = lab.folder / "results" / f"{name}.json"
    if not path.exists():
        options = resolve_draw(DrawOptions(count=1, seed=7, method="named"), MINI, lab.base.pixels)
        same = 0
        for record in [r for r in records if r.name in only]:
            job = [generate.Job(f"a photo of a <{record.name}> on the beach", options)]
            then = records[: list(records).index(record) + 1]
            old, new = (
                next(iter(generate.draw(registry, lab.base, job, records=some))) for some in (then, records)
            )
            same += old.image.tobytes() == new.image.tobytes()
        lab.keep(name, {"same": same, "of": len(only)})
    return json.loads(path.read_text())


def static(
    lab: Lab,
    registry: Registry,
    records: Sequence[Record],
    tasks: Sequence[Task],
    training: str,
    given: argparse.Namespace,
) -> dict[str, Any]:
    """Retention and confusion of all concepts in one file, by merge method."""
    only = spread(tasks, given.judged)
    alone = lab.judged(
        f"routed-{training}-{len(records)}-named", registry, tasks, replace(protocol(given, SEED), method="named"),
        only=only, states=[State(records[-1].sequence, tuple(records))],
    )  # fmt: skip
    out = {}
    for method in given.merges:
        name = f"static-{training}-{len(records)}-{method}"
        path = lab.folder / "merged" / f"{name}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            options = MergeOptions(method=method)
            selection = merge.Selection(tuple(records), (1.0,) * len(records), None, options)
            made = merge.merge(registry, lab.base, selection)
            path.write_bytes(merged_file.pack_merged(made.factors, {}))
            say(f"{name}: merged")
        whole = generate.read_static(path, lab.base)
        found = lab.judged(
            name, registry, tasks, protocol(given, SEED), only=only, single=cells(alone, "single"),
            states=[State(records[-1].sequence, tuple(records), whole)],
        )  # fmt: skip
        out[method] = figures(found)
    return out


def figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """The means over concepts that the tables show, with the spread of retention over concepts."""
    means = found["means"]
    each = {
        judge: [c["retention"][judge] for c in found["concepts"] if c["retention"][judge] is not None]
        for judge in means["retention"]
    }
    return {
        **{name: means[name] for name in ("ia", "ta", "retention", "confusion")},
        "retention_sd": {judge: statistics.stdev(v) if len(v) > 1 else None for judge, v in each.items()},
        "concepts": len(found["concepts"]),
    }


def composed(
    lab: Lab,
    registry: Registry,
    tasks: Sequence[Task],
    training: str,
    size: int,
    given: argparse.Namespace,
) -> dict[str, Any]:
    """Retention of concepts named together, over ``given.groups`` groups of objects."""
    path = lab.folder / "results" / f"composed-{training}-{size}.json"
    if path.exists():
        return json.loads(path.read_text())
    groups = list(itertools.combinations([task for task in tasks if not task.style], size))
    picked = np.random.default_rng(size).choice(len(groups), min(given.groups, len(groups)), replace=False)
    rows = [row for k in picked for row in together(lab, registry, groups[k], given)]
    result: dict[str, Any] = {"groups": len(picked), "size": size}
    for judge in lab.judges.names:
        gains = [metrics.retention(r[judge]["all"], r[judge]["base"], r[judge]["alone"]) for r in rows]
        known = [gain for gain in gains if gain is not None]
        total = {way: statistics.fmean(r[judge][way] for r in rows) for way in ("all", "alone", "base")}
        result[judge] = {
            "retention": (total["all"] - total["base"]) / (total["alone"] - total["base"]),
            "mean_of_each": statistics.fmean(known), "sd": statistics.stdev(known), "counted": len(known),
            "ia": total,
        }  # fmt: skip
    lab.keep(f"composed-{training}-{size}", result)
    return result


def together(
    lab: Lab, registry: Registry, group: Sequence[Task], given: argparse.Namespace
) -> list[dict[str, dict[str, float]]]:
    """For each concept of a group and each judge: IA with all of them named, with it alone, with none."""
    mine = {task.name: reference(lab, task) for task in group}

    def look(named: Sequence[str]) -> dict[str, dict[str, float]]:
        words = [f"a <{task.name}>" if task.name in named else f"a {task.class_noun}" for task in group]
        options = resolve_draw(
            DrawOptions(
                count=given.samples, batch=given.samples, seed=500, method="named", steps=given.draw_steps
            ),
            MINI,
            lab.base.pixels,
        )
        jobs = [generate.Job(scene.format(" and ".join(words)), options) for scene in SCENES]
        pictures = [p.image for p in generate.draw(registry, lab.base, jobs)]
        found = {
            judge: embedded(lab, judge, [w for p in pictures for w in windows(p)])
            for judge in lab.judges.names
        }
        return {
            name: {
                judge: float((rows @ refs[judge].T).mean(1).reshape(-1, len(WINDOWS)).max(1).mean())
                for judge, rows in found.items()
            }
            for name, refs in mine.items()
        }

    names = [task.name for task in group]
    everything, nothing = look(names), look([])
    out = []
    for name in names:
        own = look([name])
        out.append(
            {
                judge: {
                    "all": everything[name][judge],
                    "alone": own[name][judge],
                    "base": nothing[name][judge],
                }
                for judge in lab.judges.names
            }
        )
    return out


def windows(picture: Image.Image) -> list[Image.Image]:
    """The parts of a picture in which a concept is looked for, enlarged to the whole."""
    side = picture.width
    return [
        picture.crop(tuple(round(edge * side) for edge in part)).resize(  # type: ignore[arg-type]
            picture.size, Image.Resampling.LANCZOS
        )
        for part in WINDOWS
    ]


def reference(lab: Lab, task: Task) -> dict[str, np.ndarray]:
    """Embeddings of a concept's own pictures, by judge."""
    images = [e.image for e in load_examples(task.images, class_noun=task.class_noun).examples]
    return {judge: embedded(lab, judge, images) for judge in lab.judges.names}


def embedded(lab: Lab, judge: str, images: Sequence[Image.Image]) -> np.ndarray:
    return getattr(lab.judges, judge).embed(images)


if __name__ == "__main__":
    ending(main)
