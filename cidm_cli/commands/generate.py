"""`cidm generate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.draw import DrawOptions, resolve_draw
from ..options.flags import chosen, flags
from ..options.prompts import parse_prompt, unmarked
from ..terminal.output import Result
from ..terminal.progress import counting
from .common import CompileOption, DeviceOption, OffloadOption, PicturesOption, PrecisionOption, VramOption
from .invocation import Invocation
from .layout_files import check_drawable, picture_of
from .machine import Machine, machine, open_on
from .pictures import check_out, command_for, is_file
from .sharing import say_once, stem, write_all
from .structures import (
    ControlOption,
    FromOption,
    ImageOption,
    KindOption,
    ScaleOption,
    UntilOption,
    Wish,
    followed,
    wish,
)

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..draw.images import Picture
    from ..layout import Layout


@flags(DrawOptions)
def generate(
    call: Invocation,
    layouts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LAYOUT.toml]...", help="Layout files; - reads one from stdin."),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", "-p", help='What to draw: "a <dog> on the beach". May be given again and again.'
        ),
    ] = None,
    again: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="IMAGE.png", help="Draw this picture again, from what it says."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the layouts: image.seed=7."),
    ] = None,
    static: Annotated[
        Path | None,
        typer.Option(
            "--merged",
            metavar="FILE",
            help="Draw with this file of cidm merge in place of the concepts' weights.",
        ),
    ] = None,
    structure: ImageOption = None,
    structure_kind: KindOption = None,
    structure_scale: ScaleOption = None,
    structure_from: FromOption = None,
    structure_until: UntilOption = None,
    control: ControlOption = None,
    out: PicturesOption = Path(),
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    offload: OffloadOption = None,
    vram: VramOption = None,
    compile_blocks: CompileOption = None,
    *,
    given: dict[str, Any],
) -> Result:
    """Draw prompts that name learned concepts. Prints the pictures' paths.

    Flags win over layout files, layout files over settings. Every picture carries what is needed to draw it
    again: cidm generate --from PICTURE.png
    """
    if not (layouts or prompts or again):
        raise CidmError(
            "nothing to draw", 'give --prompt "a <dog> on the beach", or a layout file', ExitCode.USAGE
        )
    if static and "method" in given:
        raise CidmError("--merged and --method exclude each other", "give one of them", ExitCode.USAGE)
    wanted = wish(structure, structure_kind, structure_scale, structure_from, structure_until, control)
    if again and (layouts or prompts or given or static or wanted):
        raise CidmError("--from takes no other settings: it draws the same picture", code=ExitCode.USAGE)
    if overrides and not layouts:
        raise CidmError("--set changes layout files, and there is none", code=ExitCode.USAGE)
    registry = call.open_registry()
    where = machine(
        call, registry.base.kind, "draw", device=device, precision=precision, offload=offload, vram=vram,
        compiled=compile_blocks,
    )  # fmt: skip
    if again:
        written = _again(call, registry, again, out, where)
    else:
        written = _draw(
            call,
            registry,
            layouts or [],
            prompts or [],
            overrides or [],
            given,
            static,
            wanted,
            out,
            where,
        )
    return Result(
        data={"images": [{"path": path, **facts} for path, facts in written]},
        human=[str(path) for path, _ in written],
        ids=[str(path) for path, _ in written],
    )


def _draw(
    call: Invocation,
    registry: Registry,
    layouts: list[str],
    prompts: list[str],
    overrides: list[str],
    given: dict[str, Any],
    static: Path | None,
    structure: Wish,
    out: Path,
    where: Machine,
) -> list[tuple[Path, dict[str, Any]]]:
    from ..draw.jobs import Job, check, check_size, check_static
    from ..layout import load_layout, unfit_size

    settings = where.completed(chosen(DrawOptions, "draw", {}, call.settings))
    flags_given = chosen(DrawOptions, "draw", given, call.settings)
    said = {key: flags_given[key] for key in given}
    loaded = [load_layout(path, overrides=overrides) for path in layouts]
    for layout in loaded if "size" not in said else ():
        if unfit := unfit_size(layout, picture_of(layout.image.size, registry).multiple):
            raise unfit
    wanted: list[tuple[str, dict[str, Any], Layout | None]] = [
        (layout.base.prompt, {**settings, **told(layout), **said}, layout) for layout in loaded
    ]
    wanted += [(prompt, {**settings, **said}, None) for prompt in prompts]

    first = [Job(p, DrawOptions(**options), layout) for p, options, layout in wanted]
    for job in first:
        resolve_draw(job.options, registry.base.kind, 64)
        check_drawable(job.options.size, registry)
    check(registry, first)
    if static:
        check_static(registry, static, [name for job in first for name in job.names])
    names = [record.name for record in registry.records()]
    for prompt in prompts:
        if name := unmarked(parse_prompt(prompt), names):
            call.output.note(f"prompt {prompt!r}: names no concept; <{name}> would be the learned one")
    lines = followed(call, structure, loaded, len(prompts))
    single = is_file(out, sum(job.options.count for job in first))
    check_out(out, single)

    # All that can be refused without a model is refused by now: this takes seconds to import.
    from ..draw import images as workflow

    base = open_on(call, registry, where)
    jobs = [
        replace(job, options=resolve_draw(job.options, registry.base.kind, base.pixels), structure=one)
        for job, one in zip(first, lines, strict=True)
    ]
    for job in jobs:
        check_size(job.options.size, base.multiple)
    merged = workflow.read_static(static, base) if static else None
    stems = [stem(job.prompt, job.options.seed + k) for job in jobs for k in range(job.options.count)]
    crew = call.crew
    notes: list[str] = []
    with call.output.progress("drawing", workflow.work(jobs)) as progress:
        pictures = workflow.draw(
            registry, base, jobs, static=merged, on_step=counting(progress.update), crew=crew,
            on_note=call.output.note if crew.count == 1 else notes.append,
        )  # fmt: skip
        written = write_all(call, pictures, stems, out, single)
    say_once(call, notes)
    return written


def _again(
    call: Invocation, registry: Registry, pictures: list[Path], out: Path, where: Machine
) -> list[tuple[Path, dict[str, Any]]]:
    from ..draw.png import read_facts

    given = [read_facts(path) for path in pictures]
    folders = [path.parent for path in pictures]
    for path, facts in zip(pictures, given, strict=True):
        if facts.get("command") == "learn":
            raise CidmError(
                f"{path}: shows a concept in training, with weights that are not kept",
                "give a picture that cidm generate wrote",
                ExitCode.USAGE,
            )
        if command := command_for(facts):
            raise CidmError(
                f"{path}: was drawn over a given picture, which is not in it",
                f"with that picture, run: {command}",
                ExitCode.USAGE,
            )
    bases: dict[tuple[str, int, bool], Any] = {}
    single = is_file(out, len(given))
    check_out(out, single)

    from ..draw.again import redraw
    from ..models.base import WHOLE
    from ..models.opening import open_base

    def redrawn() -> Iterator[Picture]:
        for number, (facts, beside) in enumerate(zip(given, folders, strict=True)):
            if not call.crew.mine(number):
                continue
            compute = {"bfloat16": "bf16", "float16": "fp16"}.get(str(facts.get("compute")), "fp32")
            whole = facts.get("whole")
            whole = whole if type(whole) is int and whole > 0 else WHOLE
            way = (compute, whole, facts.get("compiled") is True)
            if way not in bases:
                bases[way] = open_base(
                    registry, device=where.device, precision=compute, offload=where.offload, whole=whole,
                    compiled=way[2],
                )  # fmt: skip
            yield replace(redraw(registry, bases[way], facts, beside), number=number)

    stems = [stem(str(facts.get("prompt")), facts.get("seed", 0)) for facts in given]
    return write_all(call, redrawn(), stems, out, single)


def told(layout: Layout) -> dict[str, Any]:
    """What a layout says of drawing: only what stands in it, so that the base's own defaults stay."""
    image = {name: getattr(layout.image, name) for name in ("size", "seed", "steps", "guidance")}
    if "count" in layout.image.model_fields_set:
        image["count"] = layout.image.count
    said = {name: value for name, value in image.items() if value is not None}
    return {**said, "negative": layout.base.negative} if layout.base.negative else said
