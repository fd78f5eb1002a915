"""The three promises of remembering (routed, composed, static), at 10, 30 and 100 concepts, many of them alike.

The concepts come from ``python -m benchmarks.concepts``; those whose drawings settings were chosen on are learned and
not judged. Everything is kept in ``--work`` and not made again. Prints one JSON object:

- ``routed.K``: named concepts drawn with K learned, by method of drawing; ``identical``: whether concepts drawn right
  after they were learned and at the end are the same, byte for byte, named. They are, by construction.
- ``composed.N``: N concepts named in one prompt, each compared with itself alone in the same prompt; see
  ``together.py``.
- ``static.K``: all K in one file, by merge method; ``drift``: what the file does to prompts that name no concept.

Each table has the rows ``base``, ``tokens only``, ``named`` and the plain LoRA by name; what they mean:
``figures.table``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cidm_cli.draw import images as generate
from cidm_cli.draw.jobs import Job
from cidm_cli.formats.diffusers_lora import pack_diffusers
from cidm_cli.judge.concepts import State
from cidm_cli.judge.subjects import match
from cidm_cli.judge.tasks import Task, load_tasks
from cidm_cli.models.identity import MINI
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.merge import MergeOptions
from cidm_cli.share import merge
from cidm_cli.share.selection import Selection
from cidm_registry import Record, Registry

from . import figures, together
from .continual import NAMED, NO_LORA, TOKENS, TRAININGS
from .lab import Lab, add_arguments, cells, ending, protocol, say, told
from .pictures import apart
from .sets import FROZEN, JUDGE, unseen

COUNTS = (10, 30, 100)
MERGES = ("fuse", "rank-space", "mean", "sum", "svd", "ties", "dare")
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
    parser.add_argument("--seeds", type=int, nargs="*", default=list(JUDGE.trainings))
    given = parser.parse_args()
    lab = Lab(given.work)
    tasks = load_tasks(given.concepts)
    out: dict[str, Any] = {}
    for training in given.trainings:
        out[training] = {}
        for part, measured in (("routed", routed), ("static", static)):
            for count in given.counts if part in given.parts else ():
                runs = [Many(lab, tasks[:count], training, seed, given) for seed in given.seeds]
                out[training].setdefault(part, {})[str(count)] = measured(runs)
    if "composed" in given.parts:
        for way, found in composed(lab, tasks, given).items():
            out.setdefault(way, {})["composed"] = found
    print(
        json.dumps(
            {"protocol": {**told(given), "judged": given.judged, "seeds": given.seeds}, "promises": out}
        )
    )


def learned(
    lab: Lab, tasks: Sequence[Task], training: str, count: int, given: argparse.Namespace, seed: int = 0
) -> Registry:
    """A registry with the first ``count`` tasks learned, at least."""
    steps = {"steps": given.steps} if given.steps else {}
    said = {**TRAININGS[training], **FROZEN.get(training, {}), **steps, "seed": seed}
    return lab.registry(f"many-{training}-{seed}", tasks, said, count=count)


@dataclass(frozen=True)
class Many:
    """One training of many concepts, and how it is judged."""

    lab: Lab
    tasks: Sequence[Task]
    """All of them."""
    training: str
    seed: int
    given: argparse.Namespace

    @cached_property
    def registry(self) -> Registry:
        return learned(self.lab, self.tasks, self.training, len(self.tasks), self.given, self.seed)

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(self.registry.records()[: len(self.tasks)])

    @property
    def only(self) -> list[str]:
        """Names of those that are judged."""
        return spread(unseen([task.name for task in self.tasks]), self.given.judged)

    @property
    def name(self) -> str:
        return f"{self.training}-{self.seed}-{len(self.tasks)}"

    def judged(
        self, way: str, method: str = "named", static: generate.Static | None = None
    ) -> dict[str, Any]:
        """An evaluation of the concepts that are judged, in one state."""
        state = State(self.records[-1].sequence, self.records, static)
        options = protocol(self.given, JUDGE.pictures(self.seed))
        options = replace(options, draw={**options.draw, "method": method})
        single = None if way == "named" else cells(self.judged("named"), "single")
        return self.lab.judged(
            f"{way}-{self.name}",
            self.registry,
            self.tasks,
            options,
            only=self.only,
            states=[state],
            single=single,
        )


def spread(names: Sequence[str], number: int) -> list[str]:
    """Concepts evenly spread over the order of learning, the first and the last among them."""
    picked = np.linspace(0, len(names) - 1, min(number, len(names))).round().astype(int)
    return [names[k] for k in picked]


def beside(runs: Sequence[Many]) -> dict[str, list[dict[str, Any]]]:
    """Rows of every table: by name, the plain LoRAs by name, the tokens with no LoRA at all."""
    plain = [replace(run, training="plain") for run in runs]
    return {
        "named": [run.judged("named") for run in runs], NAMED: [run.judged("named") for run in plain],
        TOKENS: [run.judged("tokens", static=NO_LORA) for run in runs],
    }  # fmt: skip


def routed(runs: Sequence[Many]) -> dict[str, Any]:
    """Figures by method of drawing, with all concepts learned."""
    found = beside(runs) | {method: [run.judged(method, method) for run in runs] for method in ROUTED[1:]}
    return {**figures.table(found, named="named", tokens=TOKENS), "identical": identical(runs[0])}


def identical(run: Many) -> dict[str, int]:
    """How many concepts' pictures are the same bytes with only the concepts up to theirs, and with all."""
    lab, records, name = run.lab, run.records, f"identical-{run.name}"
    path = lab.folder / "results" / f"{name}.json"
    if not path.exists():
        options = resolve_draw(dict(count=1, seed=7, method="named"), MINI, lab.base.pixels)
        same = 0
        for record in [r for r in records if r.name in run.only]:
            job = [Job(f"a photo of a <{record.name}> on the beach", options)]
            then = records[: records.index(record) + 1]
            old, new = (
                next(iter(generate.draw(run.registry, lab.base, job, records=some)))
                for some in (then, records)
            )
            same += old.image.tobytes() == new.image.tobytes()
        lab.keep(name, {"same": same, "of": len(run.only)})
    found: dict[str, int] = json.loads(path.read_text())
    return found


def static(runs: Sequence[Many]) -> dict[str, Any]:
    """Figures of all concepts in one file, by merge method, with what it does to prompts that name none."""
    merges = runs[0].given.merges
    files = {method: [merged(run, method) for run in runs] for method in merges}
    found = beside(runs)
    for method, each in files.items():
        found[method] = [
            run.judged(f"static-{method}", static=one) for run, one in zip(runs, each, strict=True)
        ]
    out = figures.table(found, named="named", tokens=TOKENS)
    for method, each in files.items():
        drifts = [drift(run, method, one) for run, one in zip(runs, each, strict=True)]
        by_concept = figures.seen([{"concepts": one} for one in drifts], dict, "apart")
        out[method]["drift"] = {measure: figures.mean(own) for measure, own in by_concept.items()}
    return out


def merged(run: Many, method: str) -> generate.Static:
    """The file of a merge method, made once."""
    path = run.lab.folder / "merged" / f"{method}-{run.name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        records = run.records
        selection = Selection(records, (1.0,) * len(records), None, MergeOptions(method=method))  # type: ignore[arg-type]
        made = merge.merge(run.registry, run.lab.base, selection)
        path.write_bytes(pack_diffusers(made.factors, 1.0, frozenset(), "unet.", made.facts))
        say(f"{path.stem}: merged")
    return generate.read_static(path, run.lab.base)


def drift(run: Many, method: str, file: generate.Static) -> list[dict[str, Any]]:
    """How far the file moves what the base draws of each judged concept's prompts with the class noun; equal seeds."""
    name, lab = f"drift-{method}-{run.name}", run.lab
    path = lab.folder / "results" / f"{name}.json"
    if not path.exists():
        how = dict(
            count=run.given.samples, seed=JUDGE.pictures(run.seed), steps=run.given.draw_steps, method="named"
        )
        options = resolve_draw(how, MINI, lab.base.pixels)
        concepts = []
        for subject in match(run.records, run.tasks, limit=run.given.prompts)[0]:
            if subject.record.name in run.only:
                jobs = [Job(prompt, options) for prompt in subject.plain]
                both = [
                    [
                        one.image
                        for one in generate.draw(run.registry, lab.base, jobs, records=(), static=some)
                    ]
                    for some in (None, file)
                ]
                concepts.append({"key": subject.record.key, "apart": apart(lab.judges, *both)})
        lab.keep(name, {"concepts": concepts})
    found: list[dict[str, Any]] = json.loads(path.read_text())["concepts"]
    return found


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
