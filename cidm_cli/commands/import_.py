"""`cidm import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..terminal.output import Result
from .common import class_noun
from .invocation import Invocation

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..models.base import Base
    from ..share.importing import Source


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
    style: Annotated[bool, typer.Option("--style", help="It is a picture style, not an object.")] = False,
    only: Annotated[
        str | None, typer.Option("--concept", metavar="NAME", help="The one concept of a bundle to take.")
    ] = None,
) -> Result:
    """Take a LoRA file of another program, or a bundle of whole concepts, into the registry.

    A LoRA of kohya, diffusers or PEFT becomes a concept without tokens: <NAME> in a prompt adds its weights, and
    its class noun's words stand there. A bundle's concepts arrive byte for byte, on the same base only.
    """
    from ..models.opening import outlined
    from ..share import importing

    registry = call.open_registry()
    source = importing.read(file)
    if source.kind == "bundle" and (noun is not None or style):
        raise CidmError(
            "--class and --style are for LoRA files; a bundle knows what it holds", code=ExitCode.USAGE
        )
    wanted = importing.names(registry, source, name, only)
    importing.check(registry, source, wanted)
    # A training under way counts on no concept being added meanwhile.
    with call.output.waiting_for_others(registry.training_lock):
        importing.names(registry, source, name, only)
        base = outlined(registry)
        if source.kind == "bundle":
            return _bundle(call, registry, base, source, wanted)
        (title,) = wanted.values()
        told = source.told
        said = told.get("class_noun")
        kind_of = class_noun(noun or (said if isinstance(said, str) else None), title)
        record, found = importing.bring_lora(
            registry, base, source, title, kind_of, style=style or told.get("style") is True
        )
    if found.left_out:
        call.output.warn(
            f"{file}: left out {len(found.left_out)} parts that a concept has no place for (of text encoders, "
            f"embeddings, or the UNet outside its transformers), {found.left_out[0]} for one; what they did is missing"
        )
    if idle := found.idle:
        call.output.warn(
            f"{file}: changes nothing at {len(idle)} of its {len(found.modules)} layers, where its alpha is 0 or a "
            f"factor all zeros, {idle[0]} for one"
        )
    example = f"a <{record.name}> of a house" if record.style else f"a photo of a <{record.name}>"
    ranks = record.config["ranks"]
    spread = f"rank {ranks[-1]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return Result(
        data={
            "kind": source.kind,
            "concepts": [record.to_json()],
            "layers": len(found.modules),
            "left_out": list(found.left_out),
        },
        human=[
            f"imported <{record.name}>, a {record.class_noun}, from {file} ({source.kind}): {spread} at "
            f"{len(found.modules)} layers, scale {record.scale:g}",
            f'draw it with: cidm generate --prompt "{example}"',
        ],
        ids=[record.name],
    )


def _bundle(
    call: Invocation, registry: Registry, base: Base, source: Source, wanted: dict[str, str]
) -> Result:
    from ..share import importing

    records = importing.bring_bundle(registry, base, source, wanted)
    if lonely := importing.without_older(source, wanted):
        call.output.note(
            f"note: {lonely} of these were learned against older concepts that did not all come with them"
        )
    data: dict[str, Any] = {"kind": "bundle", "concepts": [record.to_json() for record in records]}
    return Result(
        data=data,
        human=[
            f"imported <{record.name}>, a {record.class_noun} (number {record.sequence})"
            for record in records
        ],
        ids=[record.name for record in records],
    )
