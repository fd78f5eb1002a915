"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import CidmError, ExitCode
from ..prompts import noun_in

PicturesOption = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="PATH", help="A folder, or a .png file for a single picture."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps. [default: auto]"),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", metavar="KIND", help="auto, half, fp32, bf16 or fp16. [default: auto]"),
]
OffloadOption = Annotated[
    bool | None,
    typer.Option(
        "--offload/--no-offload",
        help="Keep parts of the base in main memory while a GPU does not need them. [default: off]",
        show_default=False,
    ),
]
VramOption = Annotated[
    int | None,
    typer.Option(
        "--vram", metavar="GB", help="Settings that fit a GPU of 8, 12, 16 or 24 GB, where none are given."
    ),
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the UNet's blocks first: pays for many pictures of one size. [default: off]",
        show_default=False,
    ),
]


def class_noun(noun: str | None, name: str) -> str:
    """What kind of thing a concept is: as said, else from its name, "dog2" being a dog.

    Raises:
        CidmError: USAGE for what is no noun of a line.
    """
    found = " ".join((noun_in(name) if noun is None else noun).split())
    if not found or len(found) > 60 or not found.isprintable() or "<" in found:
        raise CidmError(
            f"concept {name}: its name holds no class noun"
            if noun is None and not found
            else f"concept {name}: {found!r} is no class noun",
            "say what kind of thing it is with --class, for instance --class dog",
            ExitCode.USAGE,
        )
    return found
