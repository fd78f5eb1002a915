"""What `cidm estimate learn` and `cidm estimate generate` share: which base and device, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..invocation import Invocation
from ..output import Result, Table, readable_bytes
from ..progress import duration

if TYPE_CHECKING:
    from ..workflow.estimate import Phase
    from ..workflow.estimate_bases import Described
    from ..workflow.hardware import Hardware

BaseOption = Annotated[
    str | None,
    typer.Option("--base", metavar="BASE", help="Estimate for this base. [default: the registry's]"),
]
SpeedOption = Annotated[
    float | None,
    typer.Option(
        "--tflops",
        metavar="NUMBER",
        help="The device's speed, in 10^12 operations a second. [default: measured]",
    ),
]


def described(call: Invocation, base: str | None, speed: float | None) -> Described:
    """The base that is meant: named, or the registry's. Raises CidmError for one that there is not."""
    from cidm_registry import NotFound

    from ..workflow import estimate_bases

    if speed is not None and not 0 < speed < float("inf"):
        raise CidmError(f"--tflops {speed:g}: must be above 0", code=ExitCode.USAGE)
    if base is not None:
        return estimate_bases.described(base)
    try:
        return estimate_bases.described_in(call.open_registry())
    except NotFound as error:
        raise CidmError(
            error.message, "say which base with --base, for instance --base sd15", ExitCode.NOT_FOUND
        ) from error


def shown(
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
    from ..workflow.estimate import holds, smallest_card
    from ..workflow.hardware import free_memory, throughput

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
        enough = "enough" if holds(free, top.total) else "not enough"
        lines.append(f"free here: {readable_bytes(free)}, {enough}")
    lines.append(f"to lower it: {advice}")
    if rate is None or seconds is None:
        lines.append(f"{flops / 1e12:,.1f} TFLOP in all; --tflops NUMBER makes it a time")
    else:
        lines.append(
            f"{flops / 1e12:,.1f} TFLOP in all, at {rate / 1e12:.3g} a second ({source}): {duration(seconds)} at least"
        )
    return Result(data=_data(about, wanted, phases, flops, rate, seconds, free, card, advice), human=lines,
        ids=[str(top.total)],
    )  # fmt: skip


def _table(phases: Sequence[Phase]) -> Table:
    from ..workflow.estimate import ROWS

    names = [name for name in ROWS if any(name in phase.memory for phase in phases)]
    rows = [
        [name, *(readable_bytes(p.memory[name]) if name in p.memory else "" for p in phases)]
        for name in names
    ]
    rows.append(["together", *(readable_bytes(phase.total) for phase in phases)])
    heads = [phase.name if phase.times == 1 else f"{phase.name} (of {phase.times:,})" for phase in phases]
    return Table(("memory", *heads), rows)


def _data(
    about: Described,
    wanted: Hardware,
    phases: Sequence[Phase],
    flops: int,
    rate: float | None,
    seconds: float | None,
    free: int | None,
    card: int | None,
    advice: str,
) -> dict[str, Any]:
    from ..workflow.estimate import holds

    peak = max(phase.total for phase in phases)
    return {
        "base": about.name,
        "device": wanted.kind,
        "here": wanted.device is not None,
        "compute": str(wanted.compute).removeprefix("torch."),
        "phases": [
            {"name": p.name, "memory": p.memory, "total": p.total, "flops": p.flops, "times": p.times}
            for p in phases
        ],
        "peak": peak,
        "card": card,
        "free": free,
        "fits": None if free is None else holds(free, peak),
        "flops": flops,
        "flops_per_second": rate,
        "seconds": seconds,
        "advice": advice,
    }
