"""`cidm stylize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options.flags import chosen, flags
from ..options.over import StylizeOptions, check
from ..terminal.output import Result
from . import pictures
from .common import CompileOption, DeviceOption, OffloadOption, PicturesOption, PrecisionOption, VramOption
from .invocation import Invocation
from .layout_files import check_drawable
from .machine import machine, open_on


@flags(StylizeOptions)
def stylize(
    call: Invocation,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG or WEBP pictures.")],
    style: Annotated[str, typer.Option("--style", metavar="NAME", help="A learned style.")],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p",
            help='What is to be seen: "a <painting> of a house". [default: "a <NAME>"]', show_default=False,
        ),
    ] = None,
    out: PicturesOption = Path(),
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    offload: OffloadOption = None,
    vram: VramOption = None,
    compile_blocks: CompileOption = None,
    *,
    given: dict[str, Any],
) -> Result:  # fmt: skip
    """Give pictures a learned style. Prints the new pictures' paths.

    The result has the picture's shape and as many pixels as the base is used to; --size says otherwise. A prompt
    that says what is to be seen keeps it better than the style alone.
    """
    registry = call.open_registry()
    where = machine(
        call, registry.base.kind, "draw", device=device, precision=precision, offload=offload, vram=vram,
        compiled=compile_blocks,
    )  # fmt: skip
    options = StylizeOptions(**where.completed(chosen(StylizeOptions, "stylize", given, call.settings)))
    check(options)
    single = pictures.is_file(out, len(images) * options.count)

    from ..draw.over_jobs import plan_style

    pictures.refuse_swapped("stylize", images, style, registry)
    check_drawable(options.size, registry)
    task = plan_style(
        registry, pictures.read_all(call, registry.base.kind, images, out), style, prompt, options
    )
    if not task.record.style:
        call.output.note(f"<{task.record.name}> was learned as an object, not as a style")
    pictures.check_out(out, single)

    from ..draw import stylize as workflow

    base = open_on(call, registry, where)
    return pictures.paint(call, base, workflow.prepare(registry, base, task, call.output.note), out, single)
