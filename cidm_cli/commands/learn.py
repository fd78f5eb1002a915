"""`cidm learn`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options.computing import MEMORY
from ..options.declared import declared
from ..options.flags import flags
from ..options.learn import LearnOptions, WatchOptions
from ..terminal.output import Result, readable_bytes
from ..terminal.progress import duration
from .invocation import Invocation

if TYPE_CHECKING:
    from ..api import Workspace
    from ..learn.assignment import Task


@flags(watched=declared(WatchOptions), how=MEMORY, given=declared(LearnOptions))
def learn(
    call: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it: <NAME> in prompts.")],
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder of 3 to 7 pictures, or one picture.")
    ],
    noun: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NOUN",
            help="What kind of thing it is. [default: what all captions name, else from NAME: dog2 is a dog]",
        ),
    ] = None,
    style: Annotated[bool, typer.Option("--style", help="It is a picture style, not an object.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Learn a new version of a concept there already is.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop an unfinished run and begin again.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be done, how long and in what memory: does three steps. See cidm estimate, too.",
        ),
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep and use encoded pictures on disk. [default: on]")
    ] = True,
    *,
    watched: dict[str, Any],
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:
    """Learn one new concept from a few pictures, and keep every older one as it is.

    Captions are read from .txt files beside the pictures; <NAME> in them is the concept, or else the class noun is.
    Ctrl-C saves a checkpoint, and the same command with --resume goes on from it.
    """
    workspace = call.workspace(how)
    task = workspace.task(
        name, images, noun=noun, style=style, update=update, resume=resume, restart=restart, **given
    )
    wanted = workspace.watching(task.name, **watched)
    if dry_run:
        return _plan(workspace, task)
    record = workspace.train(task, cache=cache, watch=wanted)
    return Result(
        data={"concept": record.to_json(), "path": workspace.registry.blob_path(record.blob)},
        human=[
            f"learned <{record.name}>, a {record.class_noun}, from {len(task.dataset.examples)} pictures "
            f"(number {record.sequence}, version {record.version})",
            f'draw it with: cidm generate --prompt "{_example(record.name, style)}"',
        ],
        ids=[record.name],
    )


def _example(name: str, style: bool) -> str:
    return f"a <{name}> of a house" if style else f"a photo of a <{name}> on the beach"


def _plan(workspace: Workspace, task: Task) -> Result:
    plan = workspace.plan(task)
    thrift = workspace.session.machine("learn").told(task.options)
    words = ", ".join(f"{name.replace('_', '-')} {str(value).lower()}" for name, value in thrift.items())
    return Result(
        data={"dry_run": True, "plan": asdict(plan)} | ({"vram": thrift} if thrift else {}),
        human=[
            f"would learn <{task.name}>, a {task.noun}, from {plan.images} pictures, beside {plan.older} older",
            f"by the method {plan.method}, consolidated against {plan.against or 'none'} of them",
            f"{plan.steps} steps of {plan.batch}, {plan.parameters:,} trained numbers in {plan.sites} layers "
            f"and {plan.layers} sets of tokens",
            f"about {duration(plan.seconds)} on {plan.device} in {plan.compute}, "
            f"{readable_bytes(plan.memory)} of memory",
            *([f"the base would draw {plan.prior} pictures first, to learn beside"] if plan.prior else []),
            f"pictures at {', '.join(f'{width}x{height}' for width, height in plan.sizes)} pixels",
            *([f"for {workspace.session.computing.vram} GB: {words}"] if thrift else []),
            *(f"caption: {caption}" for caption in plan.captions),
        ],
        ids=[task.name],
    )
