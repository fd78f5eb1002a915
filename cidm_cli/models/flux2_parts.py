"""The parts of FLUX.2 klein: from a diffusers folder, or on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from ..bases import families
from ..bases.flux2 import CELL
from .family import Parts
from .identity import settings_folder
from .loading import read_alone, read_encoder, read_part
from .pretrained import has_words
from .qwen import STATES, Reader, letters
from .schedules import FLOW


def read(place: Path, *, dtype: torch.dtype, vae: Path | None, full: bool) -> Parts:
    """The parts with their weights (``family.Architecture``)."""
    if vae is None:
        own = read_part(AutoencoderKLFlux2, place, "vae", dtype=torch.float32, full=full)
    else:
        own = read_alone(AutoencoderKLFlux2, vae, full=full)
    return _checked(Parts(
        denoiser=read_part(Flux2Transformer2DModel, place, "transformer", dtype=dtype, full=full),
        vae=own,
        encoders=(Reader(read_encoder(Qwen3Model, place, "text_encoder", dtype=dtype, full=full)),),
        tokenizers=(_tokenizer(place),), scheduler_config=_schedule(place),
    ))  # fmt: skip


def outline(place: Path, *, vae: Path | None) -> Parts:
    """The same on the meta device, without weights."""
    kinds = (Flux2Transformer2DModel, place / "transformer"), (AutoencoderKLFlux2, vae or place / "vae")
    # Settings that come with this program have their vocabulary elsewhere.
    words = (
        letters() if place in map(settings_folder, (one.name for one in families())) else _tokenizer(place)
    )
    with torch.device("meta"):
        denoiser, own = (
            cls.from_config(cls.load_config(where, local_files_only=True)) for cls, where in kinds
        )
        reader = Reader(Qwen3Model(Qwen3Config.from_json_file(place / "text_encoder" / "config.json")))
        return _checked(Parts(denoiser, own, (reader,), (words,), _schedule(place)))


def _tokenizer(folder: Path) -> Qwen2Tokenizer:
    return Qwen2Tokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)


def _schedule(folder: Path) -> dict[str, Any]:
    told = FlowMatchEulerDiscreteScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
    return {**told, "prediction_type": FLOW}


def _checked(parts: Parts) -> Parts:
    """Refuses, with ValueError, parts that do not go together or a tokenizer that knows no words."""
    config, (reader,), (words,) = parts.denoiser.config, parts.encoders, parts.tokenizers
    if len(reader.model.layers) < STATES[-1]:
        raise ValueError(f"its text encoder has {len(reader.model.layers)} layers, and {STATES[-1]} are read")
    channels = CELL**2 * parts.vae.config.latent_channels
    for what, given, taken in (
        ("text encoder", reader.width, config.joint_attention_dim),
        ("VAE", channels, config.in_channels),
    ):
        if given != taken:
            raise ValueError(
                f"its {what} gives {given} numbers a position, and its transformer takes {taken}"
            )
    if not has_words(words):
        raise ValueError("its tokenizer has no vocabulary")
    # Pictures of 1024 pixels are decoded one after another: a batch of them would not fit.
    parts.vae.enable_slicing()
    return parts
