"""`cidm import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal.output import Result
from .invocation import Invocation


def import_concepts(
    call: Invocation,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A LoRA or bundle, or a folder of PEFT or diffusers.")
    ],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What to call it. [default: from the file]")
    ] = None,
    noun: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="NOUN", help="What kind of thing a LoRA shows. [default: from its name]"
        ),
    ] = None,
    style: Annotated[bool, typer.Option("--style", help="It is an image style, not an object.")] = False,
    only: Annotated[
        str | None, typer.Option("--concept", metavar="NAME", help="The one concept of a bundle to take.")
    ] = None,
) -> Result:
    """Take a LoRA file of another program, or a bundle of whole concepts, into the registry.

    A LoRA of kohya, diffusers or PEFT becomes a concept without tokens: <NAME> in a prompt adds its weights, and
    its class noun's words stand there. A bundle's concepts arrive byte for byte, on the same base only.
    """
    found = call.workspace().import_(file, name=name, noun=noun, style=style, only=only)
    told = [record.to_json() for record in found.records]
    ids = [record.name for record in found.records]
    if found.lora is None:
        lines = [
            f"imported <{record.name}>, a {record.class_noun} (number {record.sequence})"
            for record in found.records
        ]
        return Result(data={"kind": found.kind, "concepts": told}, human=lines, ids=ids)
    (record,) = found.records
    layers = len(found.lora.modules)
    example = f"a <{record.name}> of a house" if record.style else f"a photo of a <{record.name}>"
    ranks = record.config["ranks"]
    spread = f"rank {ranks[-1]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return Result(
        data={
            "kind": found.kind,
            "concepts": told,
            "layers": layers,
            "left_out": list(found.lora.left_out),
        },
        human=[
            f"imported <{record.name}>, a {record.class_noun}, from {file} ({found.kind}): {spread} at "
            f"{layers} layers, scale {record.scale:g}",
            f'draw it with: cidm generate --prompt "{example}"',
        ],
        ids=ids,
    )
