"""`cidm learn`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cidm_registry import canonical_key

from ..errors import CidmError, ExitCode
from ..files.places import expanded
from ..options.computing import MEMORY, Computing
from ..options.declared import declared
from ..options.flags import as_flags, flags
from ..options.learn import LearnOptions, WatchOptions
from ..terminal.output import Result, readable_bytes
from ..terminal.progress import duration
from .invocation import Invocation, concept_names

if TYPE_CHECKING:
    from cidm_registry import Record

    from ..api import Workspace
    from ..learn.assignment import Task


def _to_update(context: typer.Context) -> list[str]:
    """With --update, the concepts there are; files otherwise."""
    named = context.params.get("what") or not context.params.get("update")
    return [] if named else concept_names(context)


@flags(watched=declared(WatchOptions), how=MEMORY, given=declared(LearnOptions))
def learn(
    call: Invocation,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME IMAGES | NAME=IMAGES",
            help="What to call it, <NAME> in prompts, and a folder of 3 to 7 pictures, or one picture. "
            "Several concepts, one after another: dog=./dogs cat=./cats",
            autocompletion=_to_update,
        ),
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
    """Learn one new concept from a few pictures, or several after another, and keep every older one as it is.

    Captions are read from .txt files beside the pictures; <NAME> in them is the concept, or else the class noun is.
    Ctrl-C saves a checkpoint, and the same command with --resume goes on from it. Of several concepts each is committed
    before the next begins, with the same options; where one fails, the command that goes on is printed.
    """
    workspace = call.workspace(how)
    pairs = _pairs(what)
    tasks = [
        workspace.task(
            name, images, noun=noun, style=style, update=update, resume=resume, restart=restart, **given
        )
        for name, images in pairs
    ]
    watches = [workspace.watching(task.name, **watched) for task in tasks]
    if dry_run:
        return _together([_plan(workspace, task) for task in tasks])
    plain = {"--class": noun, "--style": style, "--update": update, "--no-cache": not cache}
    again = [word for flag, value in plain.items() if value for word in (flag, value) if word is not True]
    for cls, said in ((WatchOptions, watched), (Computing, how), (LearnOptions, given)):
        again += as_flags(declared(cls), said)
    with _telling_rest(call, workspace, pairs, again):
        records = [
            workspace.train(task, cache=cache, watch=watch)
            for task, watch in zip(tasks, watches, strict=True)
        ]
    return _together([_learned(workspace, task, record) for task, record in zip(tasks, records, strict=True)])


def _pairs(what: Sequence[str]) -> list[tuple[str, Path]]:
    """Names and images: NAME IMAGES, or NAME=IMAGES as often as wanted.

    Raises:
        CidmError: USAGE for anything else, and for a concept that is given twice.
    """
    if "=" not in what[0]:
        if len(what) != 2:
            wrong = f"{what[0]}: no images are given" if len(what) == 1 else f"{what[2]}: one too many"
            hint = "cidm learn NAME IMAGES, or for several concepts: cidm learn dog=./dogs cat=./cats"
            raise CidmError(wrong, hint, ExitCode.USAGE)
        return [(what[0], Path(what[1]))]
    pairs: dict[str, tuple[str, Path]] = {}
    for word in what:
        name, _, images = word.partition("=")
        if not images:
            raise CidmError(f"{word}: is not NAME=IMAGES", "write for instance dog=./dogs", ExitCode.USAGE)
        if canonical_key(name) in pairs:
            raise CidmError(f"{word}: {name} is given twice", "put its images in one folder", ExitCode.USAGE)
        pairs[canonical_key(name)] = (name, expanded(images))
    return [*pairs.values()]


@contextmanager
def _telling_rest(
    call: Invocation, workspace: Workspace, pairs: Sequence[tuple[str, Path]], options: Sequence[str]
) -> Iterator[None]:
    """Where one of several concepts cannot be learned, says which are, and the command that goes on.

    Args:
        options: as they were given, as words of a command line.
    """
    began = workspace.registry.head()
    try:
        yield
    except BaseException as error:
        new = {record.key for record in workspace.concepts if record.sequence > began}
        rest = [(name, images) for name, images in pairs if canonical_key(name) not in new]
        if len(pairs) > 1 and rest:
            done = [name for name, _ in pairs if canonical_key(name) in new]
            words = [*(f"{name}={images}" for name, images in rest), *options, "--resume"]
            if call.registry_flag:
                words += ["--registry", str(call.registry_flag)]
            go_on = f"cidm learn {shlex.join(words)}"
            call.output.warn(f"learned: {', '.join(done) or 'none'}; to go on: {go_on}")
            if isinstance(error, CidmError):
                error.details |= {"learned": done, "left": [name for name, _ in rest], "go_on": go_on}
        raise


def _together(results: Sequence[Result]) -> Result:
    """One result of several, a single one as it is."""
    if len(results) == 1:
        return results[0]
    return Result(
        data={"concepts": [one.data for one in results]},
        human=[line for one in results for line in one.human],
        ids=[name for one in results for name in one.ids],
    )


def _learned(workspace: Workspace, task: Task, record: Record) -> Result:
    return Result(
        data={"concept": record.to_json(), "path": workspace.registry.blob_path(record.blob)},
        human=[
            f"learned <{record.name}>, a {record.class_noun}, from {len(task.dataset.examples)} pictures "
            f"(number {record.sequence}, version {record.version})",
            f'draw it with: cidm generate --prompt "{_example(record.name, record.style)}"',
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
        data={"dry_run": True, "name": task.name, "plan": asdict(plan)}
        | ({"vram": thrift} if thrift else {}),
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
