"""`cidm learn`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.flags import chosen, flags
from ..options.learn import LearnOptions, check_said, resolve_learn
from ..terminal.output import Result
from .common import DeviceOption, OffloadOption, PrecisionOption, VramOption
from .invocation import Invocation
from .learning import concept_name, noun_to_learn, unseen
from .machine import Machine, machine, open_on
from .pictures import beyond_mini
from .watching import (
    BoardOption,
    PreviewEveryOption,
    PreviewOption,
    PreviewToOption,
    unwatched,
    watcher,
    wish,
)


@flags(LearnOptions)
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
    previews: PreviewOption = None,
    preview_every: PreviewEveryOption = None,
    preview_to: PreviewToOption = None,
    board: BoardOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    offload: OffloadOption = None,
    vram: VramOption = None,
    *,
    given: dict[str, Any],
) -> Result:
    """Learn one new concept from a few pictures, and keep every older one as it is.

    Captions are read from .txt files beside the pictures; <NAME> in them is the concept, or else the class noun is.
    Ctrl-C saves a checkpoint, and the same command with --resume goes on from it.
    """
    if resume and restart:
        raise CidmError("--resume and --restart exclude each other", "give one of them", ExitCode.USAGE)
    registry = call.open_registry()
    name = concept_name(name, images)
    where = machine(
        call, registry.base.kind, "learn", device=device, precision=precision, offload=offload, vram=vram
    )
    said = chosen(LearnOptions, "learn", given, call.settings)
    options = resolve_learn(LearnOptions(**where.completed(said)), registry.base.kind)
    check_said(given, options)

    from ..learn import admission

    crew = call.crew
    existing = admission.check(registry, name, options, update=update, crew=crew)
    wanted = wish(registry, name, previews, preview_every, preview_to, board)

    from ..data import list_pictures, load_examples, remarks

    listing = list_pictures(images)
    noun = noun_to_learn(call.output, name, noun, listing, existing, style=style)
    call.output.note(f"reading {len(listing.pictures)} pictures of {images} …")
    dataset = load_examples(images, class_noun=noun, caption_template=options.caption)
    captions = [(example.path.name, example.caption) for example in dataset.examples]
    for warning in (*dataset.warnings, *remarks(captions, name, noun), *unseen(dataset, options)):
        call.output.warn(warning)
    if beyond := beyond_mini(registry.base.kind, [example.image.size for example in dataset.examples]):
        call.output.warn(beyond)

    from ..files.places import cache_folder
    from ..learn import run as workflow
    from ..machine.interrupts import graceful

    task = workflow.Task(name, noun, style, dataset, options, update=update, resume=resume, restart=restart)
    if dry_run:
        events = workflow.Events(on_note=call.output.note)
        return _plan(task, workflow.plan(registry, open_on(call, registry, where), task, events, crew), where)
    with call.output.waiting_for_others(registry.training_lock) if crew.main else nullcontext():
        crew.meet()
        admission.check(registry, name, options, update=update, crew=crew)
        base = open_on(call, registry, where)
        watching = watcher(call, registry, base, task, wanted) if crew.main else nullcontext(unwatched)
        with (
            watching as after_step,
            graceful() as stop,
            call.output.progress(f"learning <{name}>", options.steps or 0) as progress,
        ):
            events = workflow.Events(
                on_step=lambda step, loss: progress.update(step, loss=loss),
                on_note=call.output.note,
                stop=stop,
                after_step=after_step,
            )
            record = workflow.learn(
                registry, base, task, events, cache_folder() / "latents" if cache else None, crew
            )
    return Result(
        data={"concept": record.to_json(), "path": registry.blob_path(record.blob)},
        human=[
            f"learned <{record.name}>, a {record.class_noun}, from {len(dataset.examples)} pictures "
            f"(number {record.sequence}, version {record.version})",
            f'draw it with: cidm generate --prompt "{_example(record.name, style)}"',
        ],
        ids=[record.name],
    )


def _example(name: str, style: bool) -> str:
    return f"a <{name}> of a house" if style else f"a photo of a <{name}> on the beach"


def _plan(task: Any, plan: Any, where: Machine) -> Result:
    from dataclasses import asdict

    from ..terminal.output import readable_bytes
    from ..terminal.progress import duration

    thrift = where.told(task.options) if where.preset else {}
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
            *([f"for {where.vram} GB: {words}"] if thrift else []),
            *(f"caption: {caption}" for caption in plan.captions),
        ],
        ids=[task.name],
    )
