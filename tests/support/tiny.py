"""Stable Diffusion 1.5 and SDXL made very small: the same parts, layers and files, random weights, quick to make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging

from cidm_cli.models.attention import site_layers

WORDS = ("a", "photo", "of", "dog", "cat", "duck", "toy", "on", "the", "beach", "in", "snow", "red")
"""What the tokenizer knows as one token each; any other word is a token a letter."""
TOKENS = 24
"""What the text encoder holds, with its two special tokens."""
TEXT_WIDTH = 32
SECOND_WIDTH, POOLED_WIDTH = 48, 40
"""Of SDXL's second text encoder: a token, and a prompt as a whole."""
PIXELS = 64


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """A real CLIP byte-pair tokenizer that joins the letters of WORDS and of nothing else."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: n for n, piece in enumerate([*alphabet, *(c + "</w>" for c in alphabet)])}
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            # Its last two first: another word's rule then finds no place in it.
            left, right = pieces[-2:]
            merges[left, right] = None
            vocabulary.setdefault(left + right, len(vocabulary))
            pieces[-2:] = [left + right]
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=TOKENS, pad_token=pad)


def unet() -> UNet2DConditionModel:
    """Two levels that attend to text and one that does not: 7 cross-attention layers."""
    return UNet2DConditionModel(
        sample_size=PIXELS // 8, block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8,
        attention_head_dim=2, cross_attention_dim=TEXT_WIDTH,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def sd15_unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.5's own UNet, full size; build it under ``torch.device("meta")``."""
    return UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
        attention_head_dim=8, cross_attention_dim=768,
    )  # fmt: skip


def sdxl_unet(**full: Any) -> UNet2DConditionModel:
    """SDXL's three levels, the first without attention: 18 cross-attention layers in 7 groups."""
    small = dict(
        sample_size=PIXELS // 8, block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8,
        attention_head_dim=(2, 2, 4), cross_attention_dim=TEXT_WIDTH + SECOND_WIDTH,
        transformer_layers_per_block=(1, 2, 3), addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + POOLED_WIDTH,
    )  # fmt: skip
    return UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", use_linear_projection=True, **(full or small),
    )  # fmt: skip


def shapes(model: UNet2DConditionModel) -> dict[str, tuple[int, int]]:
    """(out, in) of every layer of a UNet that a LoRA may sit on."""
    return {site: tuple(model.get_submodule(site).weight.shape[:2]) for site in site_layers(model)}


def convolutions(model: UNet2DConditionModel) -> frozenset[str]:
    """Those of them that are 1x1 convolutions."""
    return frozenset(site for site in site_layers(model) if model.get_submodule(site).weight.ndim == 4)


def _text_config(words: CLIPTokenizer, width: int, projected: int, act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=TOKENS, projection_dim=projected,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, hidden_act=act,
    )  # fmt: skip


def autoencoder(**settings: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=8, latent_channels=4, **settings,
    )  # fmt: skip


def save_sdxl(folder: Path) -> Path:
    """Writes a small SDXL's folder; the same bytes each time."""
    words, second_words = tokenizer(), tokenizer("!")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(16)
        text_encoder = CLIPTextModel(_text_config(words, TEXT_WIDTH, TEXT_WIDTH, "quick_gelu"))
        second = CLIPTextModelWithProjection(_text_config(second_words, SECOND_WIDTH, POOLED_WIDTH, "gelu"))
        for encoder in (text_encoder, second):
            encoder.get_input_embeddings().weight.data.mul_(20)
        second.text_projection.weight.data.mul_(20)
        vae = autoencoder(scaling_factor=0.13025)
        model = sdxl_unet()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        timestep_spacing="leading",
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=vae, text_encoder=text_encoder, text_encoder_2=second, tokenizer=words, tokenizer_2=second_words,
        unet=model, scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip
    logging.disable_progress_bar()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save(folder: Path) -> Path:
    """Writes the pipeline's folder; the same bytes each time."""
    words = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(15)
        text_encoder = CLIPTextModel(_text_config(words, TEXT_WIDTH, TEXT_WIDTH, "quick_gelu"))
        # As freshly made, all words nearly mean the same to the layers above.
        text_encoder.get_input_embeddings().weight.data.mul_(20)
        vae = autoencoder()
        model = unet()
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        skip_prk_steps=True, set_alpha_to_one=False,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=words, unet=model, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    logging.disable_progress_bar()
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save_pictures(folder: Path, captions: Sequence[str] = ("a photo of a dog",) * 3, seed: int = 0) -> Path:
    """A folder of small pictures that look like nothing, each with its caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, caption in enumerate(captions):
        colours = np.random.default_rng((seed, number)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize((80, 72), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption + "\n", encoding="utf-8")
    return folder


def controlnet(model: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet for a small UNet that changes what is drawn: as freshly made, its outputs are zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        made = ControlNetModel.from_unet(model, conditioning_embedding_out_channels=(8, 8, 8, 16))
        outputs = [
            made.controlnet_cond_embedding.conv_out,
            *made.controlnet_down_blocks,
            made.controlnet_mid_block,
        ]
        for layer in outputs:
            torch.nn.init.normal_(layer.weight, std=0.3)
    return made.requires_grad_(False).eval()


def adapter(family: str) -> T2IAdapter:
    """A T2I-Adapter for the small base of a family."""
    kinds = {"sd15": ("full_adapter", 8), "sdxl": ("full_adapter_xl", 16)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(18)
        kind, factor = kinds[family]
        made = T2IAdapter(channels=[16, 32, 32], num_res_blocks=1, downscale_factor=factor, adapter_type=kind)
    return made.requires_grad_(False).eval()
