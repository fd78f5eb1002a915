"""`cidm layout import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..options.draw import read_size
from ..terminal.output import Result
from .invocation import Invocation
from .layout_files import write_layout


def import_layout(
    call: Invocation,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A ComfyUI workflow (JSON), or a prompt as text; - reads stdin."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="LAYOUT.toml", help="Where to; - prints it. [default: FILE's name]"
        ),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option("--ratio", metavar="1,2;1,1", help="Regional Prompter's divide ratio, for a prompt."),
    ] = None,
    split: Annotated[
        Literal["columns", "rows"] | None,
        typer.Option("--split", help="Regional Prompter's main splitting, for a prompt. [default: columns]"),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WIDTHxHEIGHT", help="Of the image, where the file does not say it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> Result:
    """Make a layout of another program's regions: ComfyUI's areas, or Regional Prompter's BREAK, ADDCOL and ADDROW.

    What a layout cannot say is named as a warning, and in the file's first lines.
    """
    from ..layout.importing import Wishes, import_file

    given = None if size is None else read_size(size)
    found = import_file(file, Wishes(size=given, ratio=ratio, split=split))
    for note in found.notes:
        call.output.warn(note)
    text = found.to_toml()
    name = "layout" if file == "-" else Path(file).stem
    path = write_layout(call, text, out or Path(f"{name}.toml"), force=force)
    shown = [str(path)] if path else text.splitlines()
    return Result(
        data={"path": path, "kind": found.kind, "text": text, "warnings": found.notes}, human=shown, ids=shown
    )
