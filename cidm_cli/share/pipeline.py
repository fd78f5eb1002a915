"""A stock diffusers pipeline that knows concepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load

from cidm_registry import Record, Registry

from ..models.base import Base
from ..models.sampling import make_scheduler
from . import export
from .selection import has_tokens


def pipeline(
    registry: Registry, base: Base, records: Sequence[Record], on_note: Callable[[str], None]
) -> DiffusionPipeline:
    """A pipeline of the base, with each concept's LoRA as an adapter and its tokens as a word, <name>.

    The base becomes the pipeline's: whoever has it must let it go. Where each layer of a concept has tokens of its
    own, the word has their mean, and what that costs is told.
    """
    common = dict(
        vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=base.unet,
        scheduler=make_scheduler(base, "dpm++"),
    )  # fmt: skip
    pipe: DiffusionPipeline
    if base.text_encoder_2 is None:
        pipe = StableDiffusionPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    else:
        pipe = StableDiffusionXLPipeline(
            **common, text_encoder_2=base.text_encoder_2, tokenizer_2=base.tokenizer_2,
            force_zeros_for_empty_prompt=base.zero_empty, add_watermarker=False,
        )  # fmt: skip
    for record in records:
        item = export.concept_item(registry, base, record)
        (weights,) = export.lora(base, "diffusers", registry.base.kind, item).files.values()
        pipe.load_lora_weights(load(weights), adapter_name=record.key, use_safetensors=True)
        if not has_tokens(registry, record):
            continue
        tokens = export.tokens(registry, base, record)
        vectors = load(tokens.content)
        word = f"<{record.name}>"
        if base.text_encoder_2 is None:
            pipe.load_textual_inversion(vectors["emb_params"], token=word, use_safetensors=True)
        else:
            parts = (("clip_l", "text_encoder", "tokenizer"), ("clip_g", "text_encoder_2", "tokenizer_2"))
            for key, encoder, tokenizer in parts:
                pipe.load_textual_inversion(
                    vectors[key], token=word, text_encoder=getattr(pipe, encoder),
                    tokenizer=getattr(pipe, tokenizer), use_safetensors=True,
                )  # fmt: skip
        if tokens.sets > 1:
            on_note(
                f"{word}: one set of tokens in place of {tokens.sets} moves the text embeddings by {tokens.lost:.2%}; "
                "learn(portable=True) loses nothing"
            )
    if records:
        pipe.set_adapters([record.key for record in records])
    return pipe
