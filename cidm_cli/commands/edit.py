"""`cidm edit`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.computing import DRAWING
from ..options.declared import declared
from ..options.flags import flags
from ..options.over import EditOptions
from ..terminal.output import Result
from .invocation import Invocation, concept_names
from .pictures import PicturesOption, paint, refuse_overwriting

_NUMBER = re.compile(r"\d*\.?\d+")


@flags(how=DRAWING, given=declared(EditOptions))
def edit(
    call: Invocation,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG or WEBP images.")],
    concept: Annotated[
        str, typer.Option("--concept", metavar="NAME", help="A learned object.", autocompletion=concept_names)
    ],
    box: Annotated[
        str | None,
        typer.Option(
            "--box", metavar="X0,Y0,X1,Y1",
            help="Where: left, upper, right and lower edge, as shares of the image (0 to 1) or in pixels.",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", metavar="MASK.png", help="Where: an image of the same size, white there."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p",
            help='Prompt: "a red <dog>". [default: "a photo of a <NAME>"]', show_default=False,
        ),
    ] = None,
    out: PicturesOption = Path(),
    *,
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:  # fmt: skip
    """Draw a learned object into a part of images. Prints the new images' paths.

    The result has the image's own size. Outside the box or mask every pixel stays as it was.
    """
    if box is not None:
        _check_box(box, images)
    workspace = call.workspace(how)
    refuse_overwriting([*images, *([mask] if mask else [])], out)
    task = workspace.editing(images, concept, prompt, box=box, mask=mask, **given)
    return paint(workspace, task, len(images), out)


def _check_box(box: str, images: list[Path]) -> None:
    """Raises CidmError USAGE for a box that is none, with what was meant where its edges stand apart."""
    from ..draw.patches import parse_box

    stray = [str(image) for image in images if not os.path.exists(image)]
    apart = [text for text in stray if _NUMBER.fullmatch(text.strip(","))]
    said = " ".join([box, *apart])
    edges = re.split(r"[\s,;]+", said)
    if len(edges) == 4 and box.count(",") < 3 and all(map(_NUMBER.fullmatch, edges)):
        raise CidmError(
            f"--box {said}: is not in one word", f"with commas: --box {','.join(edges)}", ExitCode.USAGE
        )
    parse_box(box)
