"""diffusers' own pipelines of Stable Diffusion 1.x and SDXL, of a base's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from .base import Base
from .sampling import make_scheduler


def pipeline(base: Base) -> Any:
    """A stock pipeline of the base's parts."""
    common = dict(
        vae=base.vae, text_encoder=base.encoders[0], tokenizer=base.tokenizers[0], unet=base.denoiser,
        scheduler=make_scheduler(base, "dpm++"),
    )  # fmt: skip
    if len(base.encoders) == 1:
        return StableDiffusionPipeline(
            **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    return StableDiffusionXLPipeline(
        **common, text_encoder_2=base.encoders[1], tokenizer_2=base.tokenizers[1],
        force_zeros_for_empty_prompt=base.zero_empty, add_watermarker=False,
    )  # fmt: skip


def add_word(pipe: Any, word: str, vectors: Mapping[str, torch.Tensor]) -> None:
    """Makes the vectors of an embedding file a word of the pipeline."""
    if "emb_params" in vectors:
        pipe.load_textual_inversion(vectors["emb_params"], token=word, use_safetensors=True)
        return
    for key, encoder, words in (
        ("clip_l", pipe.text_encoder, pipe.tokenizer),
        ("clip_g", pipe.text_encoder_2, pipe.tokenizer_2),
    ):
        pipe.load_textual_inversion(
            vectors[key], token=word, text_encoder=encoder, tokenizer=words, use_safetensors=True
        )
