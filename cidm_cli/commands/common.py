"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
