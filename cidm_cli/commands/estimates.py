"""What `cidm estimate learn` and `cidm estimate generate` share: which base and device, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.computing import MEMORY
from ..options.declared import check_said, declared
from ..options.draw import DrawOptions, resolve_draw
from ..options.flags import chosen, flags
from ..options.learn import LearnOptions, resolve_learn
from ..terminal.output import Result, Table, readable_bytes
from ..terminal.progress import duration
from .invocation import Invocation, base_names

if TYPE_CHECKING:
    from ..machine.computing import Machine
    from ..machine.hardware import Hardware
    from ..models.base import Base
    from ..plan.estimate_bases import Described
    from ..plan.estimate_learn import Phase

BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="BASE",
        help="Estimate for this base. [default: the registry's]",
        autocompletion=base_names,
    ),
]
SpeedOption = Annotated[
    float | None,
    typer.Option(
        "--tflops",
        metavar="NUMBER",
        help="The device's speed, in 10^12 operations a second. [default: measured]",
    ),
]


def _begun(
    call: Invocation, work: str, base: str | None, how: dict[str, Any], speed: float | None
) -> tuple[Described, Machine]:
    """The base that is meant, named or the registry's, and how the work is computed on it.

    Raises:
        CidmError: for a base that there is not, and a speed or a way of computing that cannot be.
    """
    from cidm_registry import NotFound

    from ..machine.computing import machine
    from ..plan import estimate_bases

    if speed is not None and not 0 < speed < float("inf"):
        raise CidmError(f"--tflops {speed:g}: must be above 0", code=ExitCode.USAGE)
    try:
        named = None if base is None else estimate_bases.described(base)
        about = named or estimate_bases.described_in(call.open_registry())
    except NotFound as error:
        raise CidmError(
            error.message, "say which base with --base, for instance --base sd15", ExitCode.NOT_FOUND
        ) from error
    return about, machine(call.computing(how), about.kind, work, call.output.note)


def _unloaded(about: Described, where: Machine) -> tuple[Hardware, Base]:
    """What is computed on, and the base as it would be there, of tensors without numbers."""
    from ..machine.hardware import hardware
    from ..models.base import WHOLE
    from ..plan.estimate_bases import without_weights

    wanted = hardware(where.device, where.precision)
    return wanted, without_weights(about, wanted, offload=where.offload, whole=where.whole or WHOLE)


def _shown(
    heading: str,
    about: Described,
    wanted: Hardware,
    phases: Sequence[Phase],
    speed: float | None,
    advice: str,
) -> Result:
    """An estimate in all its forms.

    Args:
        heading: what would be done.
        speed: in TFLOP/s, as it was said; else it is measured, where the device is here.
        advice: what to do against too much memory.
    """
    from ..machine.hardware import free_memory, throughput
    from ..plan.estimate_learn import holds, smallest_card

    here = wanted.device
    rate, source = None, ""
    if speed is not None:
        rate, source = speed * 1e12, "as given"
    elif here is not None:
        rate, source = throughput(here, wanted.compute), "measured with plain products"
    flops = sum(phase.flops * phase.times for phase in phases)
    seconds = flops / rate if rate else None
    free = free_memory(here) if here is not None else None
    top = max(phases, key=lambda phase: phase.total)
    fits = None if free is None else holds(free, top.total)
    compute = str(wanted.compute).removeprefix("torch.")
    card = smallest_card(top.total)
    room = f"fits in {card} GB" if card else "fits in no graphics card"
    lines: list[str | Table] = [
        heading,
        f"base {about.name}, device {wanted.kind}, in {compute}",
        _table(phases),
        f"most at once: {readable_bytes(top.total)}, {top.name}: {room}",
    ]
    if free is not None:
        lines.append(f"free here: {readable_bytes(free)}, {'enough' if fits else 'not enough'}")
    lines.append(f"to lower it: {advice}")
    if rate is None or seconds is None:
        lines.append(f"{flops / 1e12:,.1f} TFLOP in all; --tflops NUMBER makes it a time")
    else:
        lines.append(
            f"{flops / 1e12:,.1f} TFLOP in all, at {rate / 1e12:.3g} a second ({source}): {duration(seconds)} at least"
        )
    data = {
        "base": about.name, "device": wanted.kind, "here": here is not None, "compute": compute,
        "phases": [
            {"name": p.name, "memory": p.memory, "total": p.total, "flops": p.flops, "times": p.times} for p in phases
        ],
        "peak": top.total, "card": card, "free": free, "fits": fits, "flops": flops, "flops_per_second": rate,
        "seconds": seconds, "advice": advice,
    }  # fmt: skip
    return Result(data, lines, [str(top.total)])


def _table(phases: Sequence[Phase]) -> Table:
    from ..plan.estimate_learn import told_apart

    names = [name for name in told_apart() if any(name in phase.memory for phase in phases)]
    rows = [
        [name, *(readable_bytes(p.memory[name]) if name in p.memory else "" for p in phases)]
        for name in names
    ]
    rows.append(["together", *(readable_bytes(phase.total) for phase in phases)])
    heads = [phase.name if phase.times == 1 else f"{phase.name} (of {phase.times:,})" for phase in phases]
    return Table(("memory", *heads), rows)


@flags(how=MEMORY, given=declared(LearnOptions))
def estimate_learn(
    call: Invocation,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="As for learn.", show_default=False)
    ] = "concept",
    images: Annotated[
        Path | None, typer.Argument(metavar="[IMAGES]", help="As for learn. [default: one square image]")
    ] = None,
    noun: Annotated[
        str | None, typer.Option("--class", metavar="NOUN", help="What kind of thing it is.")
    ] = None,
    base: BaseOption = None,
    speed: SpeedOption = None,
    *,
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:
    """Say what memory and time a training would take, without loading the base.

    It needs neither the base's weights nor the device: `--base sdxl --device cuda` works anywhere. The training's
    own steps are gone through with tensors that hold no numbers, and counted. Time is the least it can take: that of
    the products alone. `cidm learn --dry-run` loads the base and does three steps instead: slower, needs all of it,
    and tells the real time.
    """
    about, where = _begun(call, "learn", base, how, speed)
    said = chosen(LearnOptions, "learn", given, call.settings)
    options = resolve_learn(where.completed(said), about.kind)
    check_said(given, options)

    from ..data import load_examples
    from ..data.nouns import class_noun
    from ..learn.admission import check_method
    from ..learn.assignment import Task
    from ..plan import estimate_learn as estimate

    noun = class_noun(noun, name)
    dataset = load_examples(images, class_noun=noun, caption_template=options.caption) if images else None
    check_method(about.records, options)
    wanted, skeleton = _unloaded(about, where)
    dataset = dataset or estimate.example_dataset(skeleton.pixels, noun, options.caption)
    task = Task(name, noun, False, dataset, options, update=False, resume=False, restart=False)
    phases = estimate.learning(about.registry, about.records, skeleton, task)
    sizes = ", ".join(f"{width}x{height}" for width, height in estimate.sizes_of(skeleton, task))
    each = f"{options.batch}" if options.accumulate == 1 else f"{options.accumulate} times {options.batch}"
    return _shown(
        f"learning a {noun}: {options.steps} steps of {each}, images at {sizes} pixels",
        about, wanted, phases, speed, estimate.advice(skeleton, options, phases),
    )  # fmt: skip


@flags(how=MEMORY, given=declared(DrawOptions))
def estimate_generate(
    call: Invocation,
    layout: Annotated[
        str | None, typer.Argument(metavar="[LAYOUT.toml]", help="A layout file; - reads standard input.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", metavar="PROMPT", help="A prompt.")] = None,
    base: BaseOption = None,
    speed: SpeedOption = None,
    *,
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:
    """Say what memory and time drawing would take, without loading the base.

    Of a prompt, or of a layout with its regions. With --base, the concepts that are named need not be learned yet. Time
    is the least it can take: that of the products alone.
    """
    if (layout is None) == (prompt is None):
        raise CidmError("one thing at a time", "give a layout file or --prompt", ExitCode.USAGE)
    about, where = _begun(call, "draw", base, how, speed)

    from ..draw.drawing import told_by
    from ..draw.jobs import Job, check, check_size
    from ..layout import load_layout

    loaded = load_layout(layout) if layout is not None else None
    settings = where.completed(chosen(DrawOptions, "draw", {}, call.settings))
    flags_given = chosen(DrawOptions, "draw", given, call.settings)
    said = {**settings, **(told_by(loaded) if loaded else {}), **{key: flags_given[key] for key in given}}
    # Refused before a base is made.
    job = Job(loaded.base.prompt if loaded else prompt or "", resolve_draw(said, about.kind, 64), loaded)
    if about.registry is not None:
        check(about.registry, [job])

    from ..plan import estimate_draw as estimate

    wanted, skeleton = _unloaded(about, where)
    options = resolve_draw(said, about.kind, skeleton.pixels)
    check_size(options.size, skeleton.multiple)
    job = Job(job.prompt, options, loaded)
    records = list(about.records) if about.registry else estimate.made_up(estimate.named_in(job))
    phases = estimate.drawing(about.registry, records, skeleton, job)
    width, height = options.size
    regions = f", {len(loaded.regions)} regions" if loaded and loaded.regions else ""
    return _shown(
        f"drawing {options.count} of {width}x{height} pixels in {options.steps} steps{regions}",
        about, wanted, phases, speed, estimate.advice(skeleton, options),
    )  # fmt: skip
