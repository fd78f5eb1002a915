"""`cidm layout show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal.output import Result, Table
from .invocation import Invocation
from .layout_files import registry_if_any
from .pictures import check_png

if TYPE_CHECKING:
    from ..layout import Layout


def show(
    call: Invocation,
    layout: Annotated[
        str, typer.Argument(metavar="LAYOUT.toml", help="A layout file; - reads one from stdin.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="PICTURE.png", help="Where to. [default: the layout's name, -layout.png]"
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key of the layout, as for cidm generate."
        ),
    ] = None,
) -> Result:
    """Draw a layout's boxes and masks as an image: which region is where, what it shows, where regions meet.

    Nothing is generated. A region has the number that --set counts it by: 0 is region.0.
    """
    if out is not None:
        check_png(out)
    from ..layout import load_layout
    from ..layout.advice import advice
    from ..layout.masks import mask_folder, read_masks

    loaded = load_layout(layout, overrides=overrides or [])
    masks = read_masks(loaded, mask_folder(loaded))
    from ..draw.canvas import picture_of

    about = picture_of(loaded.image.size, registry_if_any(call))
    for warning in advice(loaded, about):
        call.output.warn(warning)
    path = out or Path(f"{'layout' if layout == '-' else Path(layout).stem}-layout.png")

    import io

    from ..files.writing import write_whole
    from ..layout.picture import draw_layout

    stream = io.BytesIO()
    draw_layout(loaded, about.size or (512, 512), masks).save(stream, "PNG")
    write_whole(path, stream.getvalue())
    human: list[str | Table] = [str(path)]
    if loaded.regions:
        human.append(_table(loaded))
    regions = [
        {"number": number, "prompt": region.prompt, "box": loaded.relative_box(region), "mask": region.mask}
        for number, region in enumerate(loaded.regions)
    ]
    return Result(data={"path": path, "size": about.size, "regions": regions}, human=human, ids=[str(path)])


def _table(layout: Layout) -> Table:
    from ..layout.picture import where

    rows = [(str(number), region.prompt, where(region)) for number, region in enumerate(layout.regions)]
    return Table(("#", "PROMPT", "WHERE"), rows)
