"""Options that several commands share."""

import io
import os
from pathlib import Path
from typing import Annotated

import typer

from cidm_registry import RegistryError

from ..errors import CidmError
from ..options.declared import PRECISIONS
from ..options.settings import load_settings, user_folder
from ..terminal.output import Output
from .invocation import Invocation

COMPUTING = "Computing"
"""The head of options that say what is computed where and how, on a help page."""

PicturesOption = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="PATH", help="A folder, or a .png file for a single picture."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps. [default: auto]",
        rich_help_panel=COMPUTING,
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar=f"[{'|'.join(PRECISIONS)}]",
        autocompletion=lambda: [*PRECISIONS],
        help="What to compute in. [default: auto]",
        rich_help_panel=COMPUTING,
    ),
]
OffloadOption = Annotated[
    bool | None,
    typer.Option(
        "--offload/--no-offload",
        help="Keep parts of the base in main memory while a GPU does not need them. [default: off]",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]
VramOption = Annotated[
    int | None,
    typer.Option(
        "--vram",
        metavar="GB",
        help="Settings that fit a GPU of 8, 12, 16 or 24 GB, where none are given.",
        rich_help_panel=COMPUTING,
    ),
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the UNet's blocks first: pays for many pictures of one size. [default: off]",
        show_default=False,
        rich_help_panel=COMPUTING,
    ),
]


def concept_names(context: typer.Context) -> list[str]:
    """The learned concepts, to complete a command line with; none where no registry can be read."""
    said = context.params.get("registry") or context.find_root().params.get("registry")
    try:
        settings = load_settings(os.environ, Path.cwd(), user_folder(), tolerant=True)
        call = Invocation(Output(io.StringIO(), io.StringIO()), settings, said)
        return [record.name for record in call.open_registry().records()]
    except (CidmError, RegistryError, OSError):
        return []
