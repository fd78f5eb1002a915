"""`cidm estimate generate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..flags import chosen, flags
from ..invocation import Invocation
from ..options import DrawOptions, resolve_draw
from ..output import Result
from .common import DeviceOption, OffloadOption, PrecisionOption, VramOption
from .estimates import BaseOption, SpeedOption, described, shown
from .generate import told
from .machine import machine


@flags(DrawOptions)
def estimate_generate(
    call: Invocation,
    layout: Annotated[
        str | None, typer.Argument(metavar="[LAYOUT.toml]", help="A layout file; - reads standard input.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", metavar="PROMPT", help="A prompt.")] = None,
    base: BaseOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    offload: OffloadOption = None,
    vram: VramOption = None,
    speed: SpeedOption = None,
    *,
    given: dict[str, Any],
) -> Result:
    """Say what memory and time drawing would take, without loading the base.

    Of a prompt, or of a layout with its regions. With --base, the concepts that are named need not be learned yet. Time
    is the least it can take: that of the products alone.
    """
    if (layout is None) == (prompt is None):
        raise CidmError("one thing at a time", "give a layout file or --prompt", ExitCode.USAGE)
    about = described(call, base, speed)

    from ..layout import load_layout
    from ..workflow.jobs import Job, check, check_size

    loaded = load_layout(layout) if layout is not None else None
    where = machine(call, about.kind, "draw", device=device, precision=precision, offload=offload, vram=vram)
    settings = where.completed(chosen(DrawOptions, "draw", {}, call.settings))
    flags_given = chosen(DrawOptions, "draw", given, call.settings)
    said = {**settings, **(told(loaded) if loaded else {}), **{key: flags_given[key] for key in given}}
    job = Job(loaded.base.prompt if loaded else prompt or "", DrawOptions(**said), loaded)
    resolve_draw(job.options, about.kind, 64)  # refuses before a base is made
    if about.registry is not None:
        check(about.registry, [job])

    from ..workflow import estimate_draw as estimate
    from ..workflow.estimate_bases import without_weights
    from ..workflow.hardware import hardware

    wanted = hardware(where.device, where.precision)
    skeleton = without_weights(about, wanted, offload=where.offload, whole=where.whole)
    options = resolve_draw(job.options, about.kind, skeleton.pixels)
    check_size(options.size, skeleton.multiple)
    job = Job(job.prompt, options, loaded)
    records = list(about.records) if about.registry else estimate.made_up(estimate.named_in(job))
    phases = estimate.drawing(about.registry, records, skeleton, job)
    assert options.size
    width, height = options.size
    regions = f", {len(loaded.regions)} regions" if loaded and loaded.regions else ""
    return shown(
        f"drawing {options.count} of {width}x{height} pixels in {options.steps} steps{regions}",
        about, wanted, phases, speed, estimate.advice(skeleton, options),
    )  # fmt: skip
