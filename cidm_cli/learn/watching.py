"""Watching a training: previews as files, and TensorBoard. No torch until a training is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CidmError, ExitCode
from ..files.places import words
from ..options.declared import Asked, flag, settled
from ..options.learn import WatchOptions
from ..options.prompts import find_unknown, parse_prompt

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..models.base import Base
    from .assignment import Task
    from .step import Trainee


def watch(registry: Registry, name: str, said: Asked) -> WatchOptions:
    """What was asked for, of the training of a concept.

    Raises:
        CidmError: USAGE or NOT_FOUND for what cannot be done, before any model is loaded.
    """
    wanted = settled(WatchOptions, said)
    if not wanted.preview and (
        stray := [flag(one) for one in ("preview_every", "preview_to") if one in said]
    ):
        raise CidmError(
            f"{stray[0]}: there is no preview", f'give --preview "a photo of a <{name}>"', ExitCode.USAGE
        )
    _check_previews(registry, name, wanted.preview)
    if wanted.tensorboard and find_spec("tensorboard") is None:
        raise CidmError(
            "--tensorboard: tensorboard is not installed",
            hint="pip install 'cidm[tensorboard]', or leave it out",
            code=ExitCode.USAGE,
        )
    return wanted


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
                f"--preview {said!r}: does not name <{name}>, and no other image changes while it is learned",
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
    wanted: WatchOptions,
    asked: Asked,
) -> Iterator[Callable[[Trainee], None]]:
    """While open, what it gives is to be called after each step.

    Args:
        asked: how previews are drawn.
    """
    from ..draw import png
    from ..files.writing import write_whole
    from . import previews
    from . import tensorboard as board

    folder = wanted.preview_to or Path(f"{task.name}-preview")
    paint = None
    if wanted.preview:
        paint = previews.painter(registry, base, task, wanted.preview, asked)
    with ExitStack() as stack:
        write = None
        if wanted.tensorboard:
            write = stack.enter_context(board.writing(wanted.tensorboard / task.name))

        def after_step(trainee: Trainee) -> None:
            due = trainee.step % wanted.preview_every == 0 or trainee.step == task.options.steps
            drawn = paint(trainee) if paint and due else []
            for one in drawn:
                file = f"{one.number}-{words(one.prompt)}-{one.step:06d}.png"
                write_whole(folder / file, png.encode(one.image, dict(one.facts)))
            if write:
                write(trainee, drawn)

        yield after_step
