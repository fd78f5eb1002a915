"""What the benchmarks of whole registries share: learning many concepts into one, and judging it, all resumable."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cidm_cli.api import Workspace, made
from cidm_cli.bases import family
from cidm_cli.data import Dataset, load_examples
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge import concepts as evaluation
from cidm_cli.judge.encoders import Choice, Judges, choose, open_judges
from cidm_cli.judge.report import Cell
from cidm_cli.judge.subjects import match
from cidm_cli.judge.tasks import Task
from cidm_cli.machine.interrupts import graceful
from cidm_cli.machine.session import Listener, Session
from cidm_cli.models.base import Base, choose_device
from cidm_cli.models.identity import MINI, folder_of, identify
from cidm_cli.options.computing import Computing
from cidm_cli.options.declared import Only, declared, settled
from cidm_cli.options.judge import EvalOptions
from cidm_cli.options.learn import LearnOptions, WatchOptions, resolve_learn
from cidm_registry import BaseRef, Record, Registry, canonical_key


@dataclass
class Lab:
    """A folder of registries, pictures and results on one base; what is there is not made again."""

    folder: Path
    reference: BaseRef = field(default_factory=lambda: identify(MINI))
    """The base: the embedded one unless another is given."""
    device: str = "auto"
    precision: str = "auto"
    clip: str | None = None
    """CLIP that judges: a folder or hub name; None takes the base's own, or the paper's."""
    dino: str | None = None
    """Second judge, likewise; "none" for no second judge."""
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = field(
        default_factory=lambda: quiet
    )
    """Shows how far drawing and judging are."""
    _session: list[Session] = field(default_factory=list)
    _judges: list[Judges] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The base's family."""
        return self.reference.kind

    @property
    def session(self) -> Session:
        """Of a registry without concepts: another registry's shares its base, which is loaded once."""
        if not self._session:
            root = self.folder / "empty"
            registry, _ = made(root, self.reference, Listener())
            computing = settled(Computing, {"device": self.device, "precision": self.precision})
            self._session.append(Session(registry, computing, Listener(stopping=graceful)))
        return self._session[0]

    @property
    def base(self) -> Base:
        """The base, loaded once."""
        return self.session.base()

    @property
    def choice(self) -> Choice:
        """Which judges are meant; none is loaded for that."""
        return choose(folder_of(self.reference), self.clip, self.dino, family(self.kind).judges)

    @property
    def judges(self) -> Judges:
        """Loaded once."""
        if not self._judges:
            self._judges.append(open_judges(self.choice, choose_device(self.device)))
        return self._judges[0]

    def registry(
        self, name: str, tasks: Sequence[Task], options: Mapping[str, Any], *, count: int | None = None
    ) -> Registry:
        """The registry of that name with all tasks learned in order, or the first ``count`` of them.

        A training that was stopped goes on from its checkpoint.

        Raises:
            CidmError: INTERRUPTED when stopped, FAILED where a concept was learned from other data or otherwise.
        """
        root = self.folder / "registries" / name
        there, _ = made(root, self.reference, Listener())
        workspace = Workspace(self.session.on(there))
        known = {record.key: record for record in workspace.concepts}
        wanted = list(tasks)[:count]
        chosen = resolve_learn(options, self.kind)
        for number, task in enumerate(wanted, 1):
            dataset = load_examples(task.images, class_noun=task.class_noun)
            key = canonical_key(task.name)
            if key in known:
                _check_same(root, known[key], dataset, chosen)
                continue
            run = there.find_run(key)
            same = run is not None and (run.config["data"], run.config["options"]) == (
                dataset.digest, asdict(chosen),
            )  # fmt: skip
            record = workspace.learn(
                task.name, task.images, noun=task.class_noun, style=task.style, resume=same, restart=not same,
                cache=False, watch=WatchOptions(preview_image=False), **options,
            )  # fmt: skip
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
            states=states, rivals=rivals, single=single, listener=Listener(stage=self.progress),
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


def _check_same(root: Path, record: Record, dataset: Dataset, options: LearnOptions) -> None:
    """Refuses a concept from a former run that was learned from other data, or with other settings of its method."""
    had, wanted = record.config["options"], asdict(options)
    others = {
        name
        for name, option in declared(LearnOptions).items()
        if Only("method", options.method) not in option.marks
        and any(isinstance(mark, Only) and mark.other == "method" for mark in option.marks)
    }
    other = [name for name in wanted if name in had and name not in others and had[name] != wanted[name]]
    if record.data_hash != dataset.digest:
        other.append("the pictures or captions")
    if other:
        raise CidmError(
            f"{root}: {record.name} was learned with {', '.join(other)} unlike what is asked for now",
            hint="give another --work, or delete that registry to have it learned again",
        )


@contextmanager
def quiet(_label: str, _total: int):  # type: ignore[no-untyped-def]
    """No progress bar: a line for each finished part is enough for hours of work."""
    yield lambda done: None


def say(line: str) -> None:
    """On stderr: stdout is for the result."""
    print(line, file=sys.stderr, flush=True)


def ending(main: Callable[[], None]) -> None:
    """Runs a benchmark; what a user can mend, or has stopped, ends it with a line and not with a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        _end("stopped", "the same command goes on from here", ExitCode.INTERRUPTED)
    except CidmError as error:
        stopped = error.code == ExitCode.INTERRUPTED
        _end(error.message, "the same command goes on from here" if stopped else error.hint, error.code)


def _end(message: str, hint: str | None, code: int) -> None:
    say(f"error: {message}" + (f"\nhint: {hint}" if hint else ""))
    raise SystemExit(int(code))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every benchmark of whole registries takes."""
    parser.add_argument(
        "--work", type=Path, default=Path("continual-work"), help="what is there is not made again"
    )
    parser.add_argument("--steps", type=int, help="training steps, else the base's default")
    parser.add_argument("--prompts", type=int, default=5, help="prompts of each concept")
    parser.add_argument("--samples", type=int, default=4, help="pictures of each prompt")
    parser.add_argument("--draw-steps", type=int, default=12, help="denoising steps")


def told(given: argparse.Namespace, kind: str = MINI) -> dict[str, Any]:
    """The protocol, for the result: what was learned and judged how on a base of that family."""
    usual = resolve_learn({}, kind).steps
    paths = {str(value): name.upper() for name, value in vars(given).items() if isinstance(value, Path)}
    said = shlex.join(paths.get(word, word) for word in sys.argv[1:])
    return {
        "command": f"python -m benchmarks.{Path(sys.argv[0]).stem} {said}".rstrip(),
        "learning_steps": given.steps or usual, "prompts": given.prompts, "samples": given.samples,
        "drawing_steps": given.draw_steps,
    }  # fmt: skip


def protocol(given: argparse.Namespace, seed: int) -> EvalOptions:
    """How concepts are judged; nothing is kept in the registry."""
    return settled(EvalOptions, dict(
        samples=given.samples, limit_prompts=given.prompts, seed=seed, batch=given.samples,
        steps=given.draw_steps, save=False,
    ))  # fmt: skip


def cells(result: Mapping[str, Any], way: str) -> dict[str, Cell]:
    """Each concept's "single" or "base" figures of a result, by key."""
    return {c["key"]: Cell(**c[way]) for c in result["concepts"]}
