"""`cidm generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.computing import DRAWING
from ..options.declared import declared
from ..options.draw import DrawOptions, PromptOptions, StructureOptions
from ..options.flags import flags
from ..terminal.output import Result
from .invocation import Invocation
from .pictures import PicturesOption, stem, with_grid, write_all

if TYPE_CHECKING:
    from ..draw.structure import Sketch


@flags(
    read=declared(PromptOptions),
    followed=declared(StructureOptions),
    how=DRAWING,
    given=declared(DrawOptions),
)
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
    files: Annotated[
        list[Path] | None,
        typer.Option("--prompts", metavar="FILE", help="A file with a prompt a line; # begins a comment."),
    ] = None,
    again: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="IMAGE.png", help="Draw this image again, from what it says."),
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
    grid: Annotated[
        bool, typer.Option("--grid", help="Also one sheet of all images: a row a prompt, a column a seed.")
    ] = False,
    out: PicturesOption = Path(),
    *,
    read: dict[str, Any],
    followed: dict[str, Any],
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:
    """Draw prompts that name learned concepts. Prints the images' paths.

    Flags win over layout files, layout files over settings. Every image carries what is needed to draw it
    again: cidm generate --from PICTURE.png
    """
    from ..draw.choices import lines

    prompts = [*(prompts or []), *(line for file in files or [] for line in lines(file))]
    if not (layouts or prompts or again):
        raise CidmError(
            "nothing to draw", 'give --prompt "a <dog> on the beach", or a layout file', ExitCode.USAGE
        )
    if static and "method" in given:
        raise CidmError("--merged and --method exclude each other", "give one of them", ExitCode.USAGE)
    wanted = _sketch(**followed)
    if again and (layouts or prompts or given or read or static or wanted):
        raise CidmError("--from takes no other settings: it draws the same image", code=ExitCode.USAGE)
    if overrides and not layouts:
        raise CidmError("--set changes layout files, and there is none", code=ExitCode.USAGE)
    workspace = call.workspace(how)
    if again:
        told = workspace.redrawing(again)
        stems = [stem(str(facts.get("prompt")), facts.get("seed", 0)) for facts, _ in told]
        drawn = write_all(call, workspace.redraw(told), stems, out)
    else:
        from ..layout import load_layout

        drawing = workspace.drawing(
            prompts, [load_layout(path, overrides=overrides or []) for path in layouts or []],
            merged=static, sketch=wanted, control=call.control, **read, **given,
        )  # fmt: skip
        stems = [stem(prompt, seed) for prompt, seed in drawing.images]
        drawn = write_all(call, workspace.draw(drawing), stems, out)
    return with_grid(call, drawn, out) if grid else drawn


def _sketch(structure: Path | None = None, control: str | None = None, **said: Any) -> Sketch:
    """The flags of ``StructureOptions`` together. Raises CidmError USAGE for those that mean nothing by themselves."""
    how = {name.removeprefix("structure_"): value for name, value in said.items()}
    if how and structure is None:
        raise CidmError(
            f"--structure-{next(iter(how))}: there is no --structure",
            f"layouts say it themselves: --set structure.{next(iter(how))}=…",
            ExitCode.USAGE,
        )
    from ..draw.structure import Sketch

    return Sketch(structure, how, control)
