"""`cidm estimate learn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..flags import chosen, flags
from ..invocation import Invocation
from ..options import LearnOptions, check_said, resolve_learn
from ..output import Result
from .common import DeviceOption, OffloadOption, PrecisionOption, VramOption, class_noun
from .estimates import BaseOption, SpeedOption, described, shown
from .machine import machine


@flags(LearnOptions)
def estimate_learn(
    call: Invocation,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="As for learn.", show_default=False)
    ] = "concept",
    images: Annotated[
        Path | None, typer.Argument(metavar="[IMAGES]", help="As for learn. [default: one square picture]")
    ] = None,
    noun: Annotated[
        str | None, typer.Option("--class", metavar="NOUN", help="What kind of thing it is.")
    ] = None,
    base: BaseOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    offload: OffloadOption = None,
    vram: VramOption = None,
    speed: SpeedOption = None,
    *,
    given: dict[str, Any],
) -> Result:
    """Say what memory and time a training would take, without loading the base.

    It needs neither the base's weights nor the device: `--base sdxl --device cuda` works anywhere. The training's
    own steps are gone through with tensors that hold no numbers, and counted. Time is the least it can take: that of
    the products alone. `cidm learn --dry-run` loads the base and does three steps instead: slower, needs all of it,
    and tells the real time.
    """
    about = described(call, base, speed)
    where = machine(call, about.kind, "learn", device=device, precision=precision, offload=offload, vram=vram)
    said = chosen(LearnOptions, "learn", given, call.settings)
    options = resolve_learn(LearnOptions(**where.completed(said)), about.kind)
    check_said(given, options)
    noun = class_noun(noun, name)

    from ..data import load_examples
    from ..workflow import estimate
    from ..workflow.admission import check_method
    from ..workflow.estimate_bases import without_weights
    from ..workflow.hardware import hardware
    from ..workflow.learn import Task

    dataset = load_examples(images, class_noun=noun, caption_template=options.caption) if images else None
    check_method(about.records, options)
    wanted = hardware(where.device, where.precision)
    skeleton = without_weights(about, wanted, offload=where.offload, whole=where.whole)
    dataset = dataset or estimate.example_dataset(skeleton.pixels, noun, options.caption)
    task = Task(name, noun, False, dataset, options, update=False, resume=False, restart=False)
    phases = estimate.learning(about.registry, about.records, skeleton, task)
    sizes = ", ".join(f"{width}x{height}" for width, height in estimate.sizes_of(skeleton, task))
    each = f"{options.batch}" if options.accumulate == 1 else f"{options.accumulate} times {options.batch}"
    return shown(
        f"learning a {noun}: {options.steps} steps of {each}, pictures at {sizes} pixels",
        about, wanted, phases, speed, estimate.advice(skeleton, options, phases),
    )  # fmt: skip
