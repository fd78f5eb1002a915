"""The paper's comparison on mini-CIFC: ways of learning ten concepts one after another, over several seeds.

Each seed learns the tasks in an order of its own. Everything is kept in ``--work`` and not made again, so that the
hours this takes can be had in parts. Prints one JSON object: for each row of the table its figures by seed, their
mean and standard deviation. ``--rows`` picks rows; ``benchmarks/results.py`` makes tables of what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cidm_cli.demo import tasks_folder
from cidm_cli.judge.concepts import State, states_of
from cidm_cli.judge.tasks import Task, load_tasks
from cidm_cli.options.judge import EvalOptions
from cidm_registry import Registry

from .lab import Lab, add_arguments, cells, ending, protocol, told

FIGURES = ("ia", "ta", "forgetting", "retention", "confusion")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    training: str
    """Which of TRAININGS its concepts come from."""
    drawing: str = "auto"
    """Method of drawing."""
    history: bool = False
    """Judge every concept after every task."""


#: Ways of learning, by name: settings of ``cidm learn``.
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "cidm": {"method": "cidm"},
    "with-r2": {"method": "cidm", "gamma2": 1.0},
    "r2-alone": {"method": "cidm", "gamma1": 0.0, "gamma2": 1.0},
    "literal": {"method": "cidm", "consolidation": "paper"},
    "finetune": {"method": "finetune"},
    "ewc": {"method": "ewc"},
    "lwf": {"method": "lwf"},
    "c-lora": {"method": "c-lora"},
}
ROWS: tuple[Row, ...] = (
    Row("single", "plain", "named"),
    Row("cidm", "cidm", history=True),
    Row("cidm, with R2", "with-r2"),
    Row("cidm, R2 alone", "r2-alone"),
    Row("cidm, literal R1 and R2", "literal"),
    Row("cidm, sharp", "cidm", "sharp"),
    Row("cidm, official", "cidm", "official"),
    Row("cidm, paper", "cidm", "paper"),
    Row("literal R1 and R2, paper", "literal", "paper"),
    Row("aggregation alone, official", "plain", "official"),
    Row("finetune", "finetune", history=True),
    Row("ewc", "ewc"),
    Row("lwf", "lwf"),
    Row("c-lora", "c-lora"),
    Row("lora-m mean", "plain", "mean"),
    Row("lora-m sum", "plain", "sum"),
    Row("lora-c", "plain", "lora-c"),
    Row("lora-switch", "plain", "lora-switch"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS], help="else all")
    given = parser.parse_args()
    lab = Lab(given.work)
    rows = [row for row in ROWS if not given.rows or row.name in given.rows]
    results = {row.name: {seed: one(lab, row, seed, given) for seed in given.seeds} for row in rows}
    table = {name: summary(list(by_seed.values())) for name, by_seed in results.items()}
    print(json.dumps({"protocol": {**told(given), "seeds": given.seeds}, "rows": table}))


@dataclass(frozen=True)
class Pass:
    """One pass over the tasks, from which rows are made."""

    tasks: Sequence[Task]
    """In the order of learning."""
    learning: Mapping[str, Any]
    """Settings of learning beside the training's own."""
    judging: EvalOptions
    learned: str
    """End of the registries' names."""
    judged: str
    """End of the results' names."""
    at_end: bool = False
    """Judge each concept at the end alone, not also right after its own task."""


def one(lab: Lab, row: Row, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One row's result for one seed."""
    return made(lab, row, whole(seed, given))


def whole(seed: int, given: argparse.Namespace) -> Pass:
    """The pass over mini-CIFC that a seed stands for."""
    steps = {"steps": given.steps} if given.steps else {}
    return Pass(
        order(load_tasks(tasks_folder()), seed), {**steps, "seed": seed}, protocol(given, 1000 + 100 * seed),
        learned=str(seed), judged=str(seed),
    )  # fmt: skip


def made(lab: Lab, row: Row, run: Pass) -> dict[str, Any]:
    """One row's result in one pass; what is there is not made again."""
    # What a concept's own LoRA alone reaches is the plain one's, for every row that carries something else.
    plain = learned(lab, "plain", run)
    first = lab.judged(
        f"single-{run.judged}", plain, run.tasks, replace(run.judging, draw={**run.judging.draw, "method": "named"}),
        states=_states(plain, run, at_end=run.at_end),
    )  # fmt: skip
    if row.name == "single":
        return first
    registry = learned(lab, row.training, run)
    # LoRA Composite asks the UNet once a concept: it is judged at the end only.
    at_end = run.at_end or row.drawing in ("lora-c", "lora-switch")
    return lab.judged(
        f"{row.name.replace(' ', '-').replace(',', '')}-{run.judged}", registry, run.tasks,
        replace(
            run.judging, every_task=row.history and not at_end, draw={**run.judging.draw, "method": row.drawing}
        ),
        states=_states(registry, run, at_end=at_end), single=cells(first, "single"),
    )  # fmt: skip


def _states(registry: Registry, run: Pass, *, at_end: bool) -> Sequence[State]:
    """Those of the pass's tasks: the registry may know more."""
    states = states_of(registry)[: len(run.tasks)]
    return states[-1:] if at_end else states


def learned(lab: Lab, training: str, run: Pass) -> Registry:
    """A registry with all tasks learned."""
    return lab.registry(f"{training}-{run.learned}", run.tasks, {**TRAININGS[training], **run.learning})


def order(tasks: Sequence[Task], seed: int) -> list[Task]:
    """The benchmark's own order for seed 0, another one for every other seed."""
    if seed == 0:
        return list(tasks)
    return [tasks[k] for k in np.random.default_rng(seed).permutation(len(tasks))]


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of each figure's mean over concepts, and the standard deviation over seeds."""
    out: dict[str, Any] = {}
    for figure in FIGURES:
        values = [result["means"][figure] for result in results]
        names = values[0] if isinstance(values[0], dict) else None
        for name in names or (None,):
            these = [v for value in values if (v := value[name] if name else value) is not None]
            out[f"{figure} {name}" if name else figure] = {
                "mean": statistics.fmean(these) if these else None,
                "sd": statistics.stdev(these) if len(these) > 1 else None,
                "by_seed": these,
            }
    return out


if __name__ == "__main__":
    ending(main)
