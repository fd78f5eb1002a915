"""What the command line and the settings say of a structure that pictures follow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CidmError, ExitCode
from .invocation import Invocation, path_from

if TYPE_CHECKING:
    from ..draw.structure import Sketch

ImageOption = Annotated[
    Path | None,
    typer.Option("--structure", metavar="IMAGE", help="A picture whose lines those of --prompt follow."),
]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--structure-kind", metavar="KIND", help="edge, scribble or as-is: what IMAGE is. [default: edge]"
    ),
]
ScaleOption = Annotated[
    float | None,
    typer.Option("--structure-scale", help="How strongly it is followed, from 0 to 2. [default: 1.0]"),
]
FromOption = Annotated[
    float | None,
    typer.Option("--structure-from", help="The share of the steps before it is followed. [default: 0.0]"),
]
UntilOption = Annotated[
    float | None,
    typer.Option(
        "--structure-until", help="The share of the steps after which it no longer is. [default: 1.0]"
    ),
]
ControlOption = Annotated[
    str | None,
    typer.Option(
        "--control", metavar="MODEL", help="The ControlNet or T2I-Adapter: a folder, or a name on the hub."
    ),
]


def sketch(
    image: Path | None,
    kind: str | None,
    scale: float | None,
    start: float | None,
    until: float | None,
    control: str | None,
) -> Sketch:
    """The flags together. Raises CidmError USAGE for some that say nothing without --structure."""
    said = {"kind": kind, "scale": scale, "from": start, "until": until}
    how = {key: value for key, value in said.items() if value is not None}
    if how and image is None:
        raise CidmError(
            f"--structure-{next(iter(how))}: there is no --structure",
            f"layouts say it themselves: --set structure.{next(iter(how))}=…",
            ExitCode.USAGE,
        )
    from ..draw.structure import Sketch

    return Sketch(image, how, control)


def usual_control(call: Invocation) -> str | None:
    """The model that environment or settings files name: a folder counts from where it was written down."""
    found = call.settings.find("control")
    if found is None:
        return None
    place = path_from(found)
    return str(place) if place.is_dir() else str(found.value)
