"""The paper's comparison on mini-CIFC: ways of learning concepts one after another, over several trainings.

Each training learns the tasks in an order of its own. Everything is kept in ``--work`` and not made again, so that the
hours this takes can be had in parts. Prints one JSON object: ``rows``, each row's figures with their intervals;
``parts``, what each part of the paper brings. ``--set tune`` learns and draws what settings are chosen on, ``--sweep``
the weights of every method there, and says which is best. ``--rows cidm --seeds 0 --tasks 1`` is a cell in minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cidm_cli.draw.images import Static
from cidm_cli.judge.concepts import State, states_of
from cidm_cli.judge.tasks import Task
from cidm_cli.models.identity import MINI
from cidm_cli.options.judge import EvalOptions
from cidm_cli.options.learn import resolve_learn
from cidm_registry import Registry

from . import figures
from .lab import Lab, add_arguments, cells, ending, protocol, told
from .sets import FROZEN, SETS, Set

NAMED, TOKENS, DEFAULT = "plain, routed by name", "tokens only", "cidm"
"""Rows of every table beside ``base``: learned without consolidation and drawn by name; its tokens with no LoRA at all.
And the program's default."""
SHARED = "cidm, tokens shared by all layers"
NO_LORA = Static(Path("no LoRA"), "no LoRA", {})


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    training: str
    """Which of TRAININGS its concepts come from."""
    drawing: str = "auto"
    """Method of drawing, or "tokens": no LoRA at all."""
    history: bool = False
    """Judge every concept after every task."""


#: Ways of learning, by name: settings of ``cidm learn``.
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain"},
    "cidm": {"method": "cidm"},
    "shared-tokens": {"method": "cidm", "portable": True},
    "with-r2": {"method": "cidm", "gamma2": 1.0},
    "r2-alone": {"method": "cidm", "gamma1": 0.0, "gamma2": 1.0},
    "literal": {"method": "cidm", "consolidation": "paper"},
    "finetune": {"method": "finetune"},
    "ewc": {"method": "ewc"},
    "lwf": {"method": "lwf"},
    "c-lora": {"method": "c-lora"},
}
ROWS: tuple[Row, ...] = (
    Row(NAMED, "plain", "named"),
    Row(TOKENS, "plain", "tokens"),
    Row(DEFAULT, "cidm", history=True),
    Row("cidm, tokens only", "cidm", "tokens"),
    Row(SHARED, "shared-tokens"),
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
PARTS: tuple[tuple[str, bool, str, str], ...] = (
    ("layer-wise tokens", True, DEFAULT, SHARED),
    ("R1", True, DEFAULT, NAMED),
    ("R2", False, "cidm, with R2", DEFAULT),
    ("R1 and R2 as printed", False, "cidm, literal R1 and R2", DEFAULT),
    ("Eq. 3, sharpened", False, "cidm, sharp", DEFAULT),
    ("Eq. 3 as in the published code", False, "cidm, official", DEFAULT),
    ("Eq. 3 as printed", False, "cidm, paper", DEFAULT),
)
"""Parts of the paper: whether it is on by default, a row with it and one without. Layouts' are in layouts.py."""
SWEPT = {"cidm": "gamma1", "ewc": "ewc_weight", "lwf": "lwf_weight", "c-lora": "clora_weight"}
"""Each method's weight."""
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Of a weight's default, in a sweep."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--set", choices=list(SETS), default="judge")
    parser.add_argument("--data", type=Path, help="folder of the set's tasks, where it is not shipped")
    parser.add_argument("--seeds", type=int, nargs="*", help="trainings of the set, else all")
    parser.add_argument("--tasks", type=int, help="only the first so many of each order")
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS], help="else all")
    parser.add_argument(
        "--sweep", action="store_true", help="in place of the rows: each method's weights, on tune"
    )
    given = parser.parse_args()
    lab, chosen = Lab(given.work), SETS[given.set]
    if given.sweep and chosen.name != "tune":
        parser.error("--sweep chooses settings: it takes --set tune")
    given.seeds = given.seeds or list(chosen.trainings)
    wanted = sweep() if given.sweep else [row for row in ROWS if not given.rows or row.name in given.rows]
    rows = dict.fromkeys([*(row for row in ROWS if row.name in (NAMED, TOKENS)), *wanted])
    runs = [whole(chosen, seed, given) for seed in given.seeds]
    found = {row.name: [made(lab, row, run) for run in runs] for row in rows}
    out = {
        "protocol": {**told(given), "set": chosen.name, "seeds": given.seeds},
        "rows": figures.table(found, named=NAMED, tokens=TOKENS, default=DEFAULT),
    }
    if given.sweep:
        out["chosen"] = {method: best(out["rows"], method) for method in SWEPT}
    else:
        out["parts"] = parts(found)
    print(json.dumps(out))


def sweep() -> list[Row]:
    """Each method with its weight at several strengths."""
    rows = []
    for method, option in SWEPT.items():
        usual = getattr(resolve_learn({"method": method}, MINI), option)
        for value in (float(f"{factor * usual:.3g}") for factor in FACTORS):
            TRAININGS[f"{method}-{value:g}"] = {"method": method, option: value}
            rows.append(Row(f"{method}, {option} {value:g}", f"{method}-{value:g}"))
    return rows


def best(rows: Mapping[str, Any], method: str) -> str:
    """The row of a method's sweep with the highest IA, mean of both judges."""
    own = [name for name in rows if name.startswith(f"{method}, ")]
    return max(own, key=lambda name: sum(told["value"] for told in rows[name]["ia"].values()))


def parts(found: figures.Results) -> dict[str, Any]:
    """Of each part of the paper whose two rows are there: whether it is the default, and what it brings in IA."""
    ia = {name: figures.seen(results, figures.final, "ia") for name, results in found.items()}
    return {
        part: {
            "default": default, "with": one, "without": other,
            "brings": {judge: figures.difference(own, ia[other][judge]) for judge, own in ia[one].items()},
        }
        for part, default, one, other in PARTS if one in ia and other in ia
    }  # fmt: skip


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
    frozen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of a way of learning that were chosen beforehand."""
    at_end: bool = False
    """Judge each concept at the end alone, not also right after its own task."""


def whole(chosen: Set, seed: int, given: argparse.Namespace) -> Pass:
    """The pass over a set's tasks that a seed stands for."""
    steps = {"steps": given.steps} if given.steps else {}
    count = getattr(given, "tasks", None)
    name = f"{chosen.name}-{seed}"
    return Pass(
        order(chosen.tasks(getattr(given, "data", None)), seed)[:count], {**steps, "seed": seed},
        protocol(given, chosen.pictures(seed)), learned=name, judged=f"{name}-{count}" if count else name,
        frozen=FROZEN,
    )  # fmt: skip


def made(lab: Lab, row: Row, run: Pass) -> dict[str, Any]:
    """One row's result in one pass; what is there is not made again."""
    # What a concept's own LoRA alone reaches is the plain one's, for every row that carries something else.
    plain = learned(lab, "plain", run)
    first = lab.judged(
        f"named-{run.judged}", plain, run.tasks, replace(run.judging, draw={**run.judging.draw, "method": "named"}),
        states=_states(plain, run, at_end=run.at_end),
    )  # fmt: skip
    if row.name == NAMED:
        return first
    registry = learned(lab, row.training, run)
    # LoRA Composite asks the UNet once a concept, and what has no LoRA forgets nothing: judged at the end only.
    at_end = run.at_end or row.drawing in ("lora-c", "lora-switch", "tokens")
    states, drawing = _states(registry, run, at_end=at_end), row.drawing
    if drawing == "tokens":
        states, drawing = [replace(states[-1], static=NO_LORA)], "named"
    return lab.judged(
        f"{row.name.replace(' ', '-').replace(',', '')}-{run.judged}", registry, run.tasks,
        replace(
            run.judging, every_task=row.history and not at_end, draw={**run.judging.draw, "method": drawing}
        ),
        states=states, single=cells(first, "single"),
    )  # fmt: skip


def _states(registry: Registry, run: Pass, *, at_end: bool) -> Sequence[State]:
    """Those of the pass's tasks: the registry may know more."""
    states = states_of(registry)[: len(run.tasks)]
    return states[-1:] if at_end else states


def learned(lab: Lab, training: str, run: Pass) -> Registry:
    """A registry with all tasks learned."""
    return lab.registry(
        f"{training}-{run.learned}",
        run.tasks,
        {**TRAININGS[training], **run.frozen.get(training, {}), **run.learning},
    )


def order(tasks: Sequence[Task], seed: int) -> list[Task]:
    """The benchmark's own order for seed 0, another one for every other seed."""
    if seed == 0:
        return list(tasks)
    return [tasks[k] for k in np.random.default_rng(seed).permutation(len(tasks))]


if __name__ == "__main__":
    ending(main)
