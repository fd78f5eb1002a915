"""Z-Image made very small: the true classes of all its parts, every kind of block twice, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers.utils import logging

from tiny_qwen import WIDTH, text_encoder, tokenizer

PIXELS = 32
"""Side of its pictures."""
NUMBERS = WIDTH
"""In a row of a text."""


def transformer(**settings: Any) -> ZImageTransformer2DModel:
    """Two blocks of each kind."""
    small = dict(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=2, n_heads=2, n_kv_heads=2, cap_feat_dim=NUMBERS,
        axes_dims=[4, 6, 6], axes_lens=[256, 64, 64],
    )  # fmt: skip
    return ZImageTransformer2DModel(**{**small, **settings})


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=PIXELS, scaling_factor=0.4,
        shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def save(folder: Path, *, distilled: bool = False) -> Path:
    """Writes the pipeline's folder, or Turbo's; the same bytes each time."""
    words = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(32 if distilled else 31)
        pipeline = ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if distilled else 6.0), vae=autoencoder(),
            text_encoder=text_encoder(words, 3).model, tokenizer=words, transformer=transformer(),
        )  # fmt: skip
        # Those of rows and cells that only fill up are learned, and would be zeros.
        for filler in (pipeline.transformer.x_pad_token, pipeline.transformer.cap_pad_token):
            torch.nn.init.normal_(filler, std=0.5)
    # What adds to the picture would be next to nothing, as freshly made.
    for name, weight in pipeline.transformer.named_parameters():
        if "adaLN_modulation" in name and name.endswith("weight"):
            weight.data.mul_(3)
    logging.disable_progress_bar()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
