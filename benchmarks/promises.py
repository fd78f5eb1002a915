"""The three promises of remembering (routed, composed, static), at 10, 30 and 100 concepts, many of them alike.

The concepts come from ``python -m benchmarks.concepts``. Everything is kept in ``--work`` and not made again. Prints
one JSON object:

- ``retention.routed.K``: named concepts drawn with K learned, by method of drawing; ``identical``: whether concepts
  drawn right after they were learned and at the end are the same, byte for byte, named.
- ``retention.composed.N``: N concepts named in one prompt, each compared with itself alone in the same prompt; see
  ``together.py``.
- ``retention.static.K``: all K in one file, by merge method.

Retention is the share of a concept's gain that survives: (IA - IA of the base) / (IA alone - IA of the base).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cidm_cli.draw import images as generate
from cidm_cli.draw.jobs import Job
from cidm_cli.formats.diffusers_lora import pack_diffusers
from cidm_cli.judge.concepts import State
from cidm_cli.judge.tasks import Task, load_tasks
from cidm_cli.models.identity import MINI
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.merge import MergeOptions
from cidm_cli.share import merge
from cidm_cli.share.selection import Selection
from cidm_registry import Record, Registry

from . import together
from .continual import TRAININGS
from .lab import Lab, add_arguments, cells, ending, protocol, say, told

COUNTS = (10, 30, 100)
MERGES = ("fuse", "mean", "sum", "svd", "ties", "dare")
SEED = 1000
"""Of each prompt's first picture."""
ROUTED = ("named", "sharp", "official", "paper")
WEAKER = "plain, weaker"
"""The plain training's concepts named together, each of N at the N-th part of its weight."""


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
    parser.add_argument(
        "--groups", type=int, nargs=2, default=(45, 12), help="pairs and triples of objects named together"
    )
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
        for way, found in composed(lab, tasks, given).items():
            out.setdefault(way, {})["composed"] = found
    print(json.dumps({"protocol": {**told(given), "judged": given.judged}, "promises": out}))


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
        options = resolve_draw(dict(count=1, seed=7, method="named"), MINI, lab.base.pixels)
        same = 0
        for record in [r for r in records if r.name in only]:
            job = [Job(f"a photo of a <{record.name}> on the beach", options)]
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
            selection = Selection(tuple(records), (1.0,) * len(records), None, options)
            made = merge.merge(registry, lab.base, selection)
            path.write_bytes(pack_diffusers(made.factors, 1.0, frozenset(), "unet.", made.facts))
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


def composed(lab: Lab, tasks: Sequence[Task], given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Each training's figures of concepts named together, by how many; the plain ones also at less weight."""
    some = tasks[: min(given.counts)]
    trainings = dict.fromkeys(["cidm", "plain", *given.trainings])
    registries = {training: learned(lab, tasks, training, len(some), given) for training in trainings}
    out: dict[str, dict[str, Any]] = {}
    for size, number in zip((2, 3), given.groups, strict=True):
        by_way = {}
        for training, registry in registries.items():
            by_way[training] = together.rows(lab, registry, some, f"together-{training}", size, number, given)
            if training == "plain":
                by_way[WEAKER] = together.rows(
                    lab, registry, some, "together-weaker", size, number, given, named=by_way["plain"]
                )
        for way, rows in by_way.items():
            out.setdefault(way, {})[str(size)] = {
                "groups": len({row["group"] for row in rows}),
                **{
                    judge: together.figures(rows, by_way["plain"], by_way["cidm"], judge)
                    for judge in lab.judges.names
                },
            }
    return out


if __name__ == "__main__":
    ending(main)
