"""Options that several commands share."""

from typing import Annotated

import typer

DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps. [default: auto]"),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", metavar="KIND", help="auto, fp32, bf16 or fp16. [default: auto]"),
]
