"""`cidm generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..api import Workspace
from ..errors import CidmError, ExitCode
from ..options.draw import DrawOptions
from ..options.flags import flags
from ..terminal.output import Result
from .common import CompileOption, DeviceOption, OffloadOption, PicturesOption, PrecisionOption, VramOption
from .invocation import Invocation
from .pictures import as_result, check_out, is_file
from .sharing import stem, write_all
from .structures import (
    ControlOption,
    FromOption,
    ImageOption,
    KindOption,
    ScaleOption,
    UntilOption,
    sketch,
    usual_control,
)


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
    wanted = sketch(structure, structure_kind, structure_scale, structure_from, structure_until, control)
    if again and (layouts or prompts or given or static or wanted):
        raise CidmError("--from takes no other settings: it draws the same picture", code=ExitCode.USAGE)
    if overrides and not layouts:
        raise CidmError("--set changes layout files, and there is none", code=ExitCode.USAGE)
    workspace = call.workspace(
        device=device, precision=precision, offload=offload, vram=vram, compiled=compile_blocks
    )
    if again:
        written = _again(call, workspace, again, out)
    else:
        from ..layout import load_layout

        drawing = workspace.drawing(
            prompts or [], [load_layout(path, overrides=overrides or []) for path in layouts or []],
            merged=static, sketch=wanted, control=usual_control(call), **given,
        )  # fmt: skip
        single = is_file(out, len(drawing.images))
        check_out(out, single)
        stems = [stem(prompt, seed) for prompt, seed in drawing.images]
        written = write_all(call, workspace.draw(drawing), stems, out, single)
    return as_result(written)


def _again(
    call: Invocation, workspace: Workspace, images: list[Path], out: Path
) -> list[tuple[Path, dict[str, Any]]]:
    from ..draw.drawing import to_redraw

    told = to_redraw(images)
    single = is_file(out, len(told))
    check_out(out, single)
    stems = [stem(str(facts.get("prompt")), facts.get("seed", 0)) for facts, _ in told]
    return write_all(call, workspace.redraw(told), stems, out, single)
