"""FLUX.2 klein made very small: the true classes of all its parts, every kind of block twice, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from transformers.utils import logging

from tiny_qwen import WIDTH, text_encoder, tokenizer

PIXELS = 32
"""Side of its pictures."""
NUMBERS = 3 * WIDTH
"""In a row of a text: three of the encoder's states."""


def transformer(**settings: Any) -> Flux2Transformer2DModel:
    """Two double and two single blocks."""
    small = dict(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=NUMBERS, timestep_guidance_channels=32, mlp_ratio=2.0, axes_dims_rope=(4, 4, 4, 4),
    )  # fmt: skip
    return Flux2Transformer2DModel(**{**small, **settings}, guidance_embeds=False)


def klein(size: str) -> Flux2Transformer2DModel:
    """FLUX.2 klein's own transformer, full size; build it under ``torch.device("meta")``."""
    double, single, heads, text = {"4B": (5, 20, 24, 7680), "9B": (8, 24, 32, 12288)}[size]
    return transformer(
        in_channels=128, num_layers=double, num_single_layers=single, attention_head_dim=128, mlp_ratio=3.0,
        num_attention_heads=heads, joint_attention_dim=text, timestep_guidance_channels=256,
        axes_dims_rope=(32, 32, 32, 32),
    )  # fmt: skip


def autoencoder() -> AutoencoderKLFlux2:
    made = AutoencoderKLFlux2(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=4, sample_size=PIXELS,
    )  # fmt: skip
    torch.nn.init.normal_(made.bn.running_mean)
    torch.nn.init.uniform_(made.bn.running_var, 0.5, 2.0)
    return made


def save(folder: Path, *, distilled: bool = False) -> Path:
    """Writes the pipeline's folder; the same bytes each time, those of a distilled one others."""
    words = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(22 if distilled else 21)
        pipeline = Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), vae=autoencoder(),
            text_encoder=text_encoder(words, 30), tokenizer=words, transformer=transformer(), is_distilled=distilled,
        )  # fmt: skip
    # What adds to the picture would be next to nothing, as freshly made.
    for name, weight in pipeline.transformer.named_parameters():
        if name.endswith(("proj_out.weight", "modulation_img.linear.weight", "modulation_txt.linear.weight")):
            weight.data.mul_(3)
    logging.disable_progress_bar()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
