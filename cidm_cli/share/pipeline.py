"""A stock diffusers pipeline that knows concepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffusers import DiffusionPipeline
from safetensors.torch import load

from cidm_registry import Record, Registry

from ..errors import CidmError
from ..models.base import Base
from . import export
from .selection import has_tokens


def pipeline(
    registry: Registry, base: Base, records: Sequence[Record], on_note: Callable[[str], None]
) -> DiffusionPipeline:
    """A pipeline of the base, with each concept's LoRA as an adapter and its tokens as a word, <name>.

    The base becomes the pipeline's: whoever has it must let it go. Where each layer of a concept has tokens of its
    own, the word has their mean, and what that costs is told.

    Raises:
        CidmError: FAILED for a family that diffusers has no pipeline for.
    """
    pipe: DiffusionPipeline | None = base.architecture.pipeline(base)
    if pipe is None:
        raise CidmError(
            f"bases of the family {base.family.name} have no pipeline in diffusers",
            hint="draw with generate()",
        )
    for record in records:
        item = export.concept_item(registry, base, record)
        (weights,) = export.lora(base, "diffusers", registry.base.kind, item).files.values()
        pipe.load_lora_weights(load(weights), adapter_name=record.key, use_safetensors=True)
        if not has_tokens(registry, record):
            continue
        tokens = export.tokens(registry, base, record)
        word = f"<{record.name}>"
        base.architecture.add_word(pipe, word, load(tokens.content))
        if tokens.sets > 1:
            on_note(
                f"{word}: one set of tokens in place of {tokens.sets} moves the text embeddings by {tokens.lost:.2%}; "
                "learn(portable=True) loses nothing"
            )
    if records:
        pipe.set_adapters([record.key for record in records])
    return pipe
