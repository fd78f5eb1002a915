"""What the benchmarks of whole registries share: learning many concepts into one, and judging it, all resumable."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cidm_cli.data import Task, load_examples
from cidm_cli.eval_options import EvalOptions
from cidm_cli.models.base import Base
from cidm_cli.models.identity import MINI, identify, mini_folder
from cidm_cli.models.judges import Judges, choose, open_judges
from cidm_cli.options import LearnOptions, resolve_learn
from cidm_cli.workflow import evaluate as evaluation
from cidm_cli.workflow import learn
from cidm_cli.workflow.bases import open_base
from cidm_cli.workflow.evaluation import Cell
from cidm_cli.workflow.subjects import match
from cidm_registry import Registry, canonical_key


@dataclass
class Lab:
    """A folder of registries, pictures and results on the embedded base; what is there is not made again."""

    folder: Path
    _base: list[Base] = field(default_factory=list)
    _judges: list[Judges] = field(default_factory=list)

    @property
    def base(self) -> Base:
        """The embedded base, loaded once."""
        if not self._base:
            root = self.folder / "empty"
            registry = Registry.open(root) if root.exists() else Registry.create(root, identify(MINI))
            self._base.append(open_base(registry, device="auto", precision="auto"))
        return self._base[0]

    @property
    def judges(self) -> Judges:
        """The embedded base's own, loaded once."""
        if not self._judges:
            self._judges.append(open_judges(choose(mini_folder(), None, None, own=True)))
        return self._judges[0]

    def registry(
        self, name: str, tasks: Sequence[Task], options: Mapping[str, Any], *, count: int | None = None
    ) -> Registry:
        """The registry of that name with all tasks learned in order, or the first ``count`` of them."""
        root = self.folder / "registries" / name
        there = Registry.open(root) if root.exists() else Registry.create(root, identify(MINI))
        known = {record.key for record in there.records()}
        wanted = list(tasks)[:count]
        for number, task in enumerate(wanted, 1):
            if canonical_key(task.name) in known:
                continue
            dataset = load_examples(task.images, class_noun=task.class_noun)
            chosen = resolve_learn(LearnOptions(**options), MINI)
            work = learn.Task(
                task.name, task.class_noun, task.style, dataset, chosen,
                update=False, resume=False, restart=True,
            )  # fmt: skip
            record = learn.learn(there, self.base, work, learn.Events())
            say(
                f"{name}: learned {number} of {len(wanted)}, {task.name}, loss {record.losses['last_tenth']:.4f}"
            )
        return there

    def judged(
        self,
        name: str,
        registry: Registry,
        tasks: Sequence[Task],
        options: EvalOptions,
        *,
        only: Sequence[str] | None = None,
        states: Sequence[evaluation.State] | None = None,
        single: Mapping[str, Cell] | None = None,
    ) -> dict[str, Any]:
        """What ``Evaluation.to_json`` says of a registry; read from its file where it was judged before.

        Args:
            only: names of the concepts to judge, else all; samples are compared with all tasks' pictures.
        """
        path = self.folder / "results" / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text())
        rivals, _ = match(registry.records(), tasks, limit=options.limit_prompts)
        subjects = [s for s in rivals if only is None or s.record.name in only]
        found = evaluation.evaluate(
            registry, self.base, subjects, options, folder=self.folder / "samples", judges=self.judges,
            states=states, rivals=rivals, single=single, events=evaluation.Events(progress=quiet),
        )  # fmt: skip
        self.keep(name, found.to_json())
        return json.loads(path.read_text())

    def keep(self, name: str, result: Mapping[str, Any]) -> None:
        """Writes a result, whole or not at all."""
        path = self.folder / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result))
        part.replace(path)
        say(f"{name}: judged")


@contextmanager
def quiet(_label: str, _total: int):  # type: ignore[no-untyped-def]
    """No progress bar: a line for each finished part is enough for hours of work."""
    yield lambda done: None


def say(line: str) -> None:
    """On stderr: stdout is for the result."""
    print(line, file=sys.stderr, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every benchmark of whole registries takes."""
    parser.add_argument(
        "--work", type=Path, default=Path("continual-work"), help="what is there is not made again"
    )
    parser.add_argument("--steps", type=int, help="training steps, else the base's default")
    parser.add_argument("--prompts", type=int, default=5, help="prompts of each concept")
    parser.add_argument("--samples", type=int, default=4, help="pictures of each prompt")
    parser.add_argument("--draw-steps", type=int, default=12, help="denoising steps")


def told(given: argparse.Namespace) -> dict[str, Any]:
    """The protocol, for the result: what was learned and judged how."""
    usual = resolve_learn(LearnOptions(), MINI).steps
    return {
        "learning_steps": given.steps or usual, "prompts": given.prompts, "samples": given.samples,
        "drawing_steps": given.draw_steps,
    }  # fmt: skip


def protocol(given: argparse.Namespace, seed: int) -> EvalOptions:
    """How concepts are judged; nothing is kept in the registry."""
    return EvalOptions(
        samples=given.samples, limit_prompts=given.prompts, seed=seed, batch=given.samples,
        steps=given.draw_steps, save=False,
    )  # fmt: skip


def cells(result: Mapping[str, Any], way: str) -> dict[str, Cell]:
    """Each concept's "single" or "base" figures of a result, by key."""
    return {c["key"]: Cell(**c[way]) for c in result["concepts"]}
