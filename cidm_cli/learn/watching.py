"""Watching a training: previews as files, and TensorBoard. No torch until a training is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CidmError, ExitCode
from ..files.places import words
from ..options.declared import Asked
from ..options.prompts import find_unknown, parse_prompt

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..models.base import Base
    from .assignment import Task
    from .step import Trainee

EVERY = 100
"""Steps between previews where nothing is said."""


@dataclass(frozen=True)
class Watch:
    """How a training is to be watched."""

    prompts: tuple[str, ...]
    every: int
    """Steps between two previews; the last step has one, too."""
    folder: Path
    """For previews."""
    board: Path | None
    """For TensorBoard."""


def watch(
    registry: Registry,
    name: str,
    prompts: list[str] | None,
    every: int | None,
    folder: Path | None,
    board: Path | None,
) -> Watch:
    """What was asked for.

    Raises:
        CidmError: USAGE or NOT_FOUND for what cannot be done, before any model is loaded.
    """
    if not prompts and (every is not None or folder is not None):
        flag = "--preview-every" if every is not None else "--preview-to"
        raise CidmError(
            f"{flag}: there is no preview", f'give --preview "a photo of a <{name}>"', ExitCode.USAGE
        )
    if prompts:
        _check_previews(registry, name, prompts)
    if board and find_spec("tensorboard") is None:
        raise CidmError(
            "--tensorboard: tensorboard is not installed",
            hint="pip install 'cidm[tensorboard]', or leave it out",
            code=ExitCode.USAGE,
        )
    return Watch(
        tuple(prompts or ()), every or EVERY, folder or Path(f"{name}-preview"), board and board / name
    )


def _check_previews(registry: Registry, name: str, prompts: Sequence[str]) -> None:
    """Refuses prompts that do not show the concept or name one that there is not.

    Raises:
        CidmError: USAGE or NOT_FOUND.
    """
    from cidm_registry import canonical_key

    known = [name, *(record.name for record in registry.records())]
    for said in prompts:
        prompt = parse_prompt(said)
        if canonical_key(name) not in map(canonical_key, prompt.names):
            raise CidmError(
                f"--preview {said!r}: does not name <{name}>, and no other picture changes while it is learned",
                hint=f'write for instance --preview "a photo of a <{name}>"',
                code=ExitCode.USAGE,
            )
        if unknown := find_unknown(prompt, known):
            raise unknown


def unwatched(trainee: Trainee) -> None:
    """After each step of a process that is not the main one of several: the training is the same in all."""


@contextmanager
def watcher(
    registry: Registry,
    base: Base,
    task: Task,
    wanted: Watch,
    asked: Asked,
    on_note: Callable[[str], None],
) -> Iterator[Callable[[Trainee], None]]:
    """While open, what it gives is to be called after each step.

    Args:
        asked: how previews are drawn.
    """
    from ..draw import png
    from ..files.writing import write_whole
    from . import previews
    from . import tensorboard as board

    paint = None
    if wanted.prompts:
        paint = previews.painter(registry, base, task, wanted.prompts, asked, on_note)
    with ExitStack() as stack:
        write = stack.enter_context(board.writing(wanted.board)) if wanted.board else None

        def after_step(trainee: Trainee) -> None:
            due = trainee.step % wanted.every == 0 or trainee.step == task.options.steps
            drawn = paint(trainee) if paint and due else []
            for one in drawn:
                file = f"{one.number}-{words(one.prompt)}-{one.step:06d}.png"
                write_whole(wanted.folder / file, png.encode(one.image, dict(one.facts)))
            if write:
                write(trainee, drawn)

        yield after_step
