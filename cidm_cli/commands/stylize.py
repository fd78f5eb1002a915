"""`cidm stylize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options.computing import DRAWING
from ..options.declared import declared
from ..options.flags import flags
from ..options.over import StylizeOptions
from ..terminal.output import Result
from .invocation import Invocation, concept_names
from .pictures import PicturesOption, paint, refuse_overwriting


@flags(how=DRAWING, given=declared(StylizeOptions))
def stylize(
    call: Invocation,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG or WEBP images.")],
    style: Annotated[
        str, typer.Option("--style", metavar="NAME", help="A learned style.", autocompletion=concept_names)
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p",
            help='Prompt: "a <painting> of a house". [default: "a <NAME>"]', show_default=False,
        ),
    ] = None,
    out: PicturesOption = Path(),
    *,
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:  # fmt: skip
    """Give images a learned style. Prints the new images' paths.

    The result has the image's shape and as many pixels as the base is used to; --size says otherwise. A prompt
    that says what is to be seen keeps it better than the style alone.
    """
    workspace = call.workspace(how)
    refuse_overwriting(images, out)
    task = workspace.styling(images, style, prompt, **given)
    return paint(workspace, task, len(images), out)
