"""Options that several commands share."""

import io
import os
from pathlib import Path
from typing import Annotated

import typer

from cidm_registry import RegistryError

from ..errors import CidmError
from ..options.settings import load_settings, user_folder
from ..terminal.output import Output
from .invocation import Invocation

PicturesOption = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="PATH", help="A folder, or a .png file for a single picture."),
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
