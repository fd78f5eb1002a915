"""Stable Diffusion 1.x and SDXL: a UNet that attends to what CLIP's text encoders say (``family.Architecture``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import regional, routing
from .attention import cross_attention_layers as layers
from .attention import layer_groups as groups
from .attention import lora_sites as sites
from .attention import site_layers
from .base import Base
from .checkpointing import checkpointed, texts_are_large
from .clip_text import (
    chunks,
    embedded,
    noun_vectors,
    pieces,
    pooled,
    room,
    token_table,
    token_widths,
    tokenize,
)
from .compiling import is_block
from .family import Regions
from .features import feature_source, sees_text
from .kl import factor, to_latents, to_pixels
from .prediction import predict
from .sd_files import names
from .sd_parts import outline, read
from .sd_pipeline import add_word, pipeline
from .trainable import trainable

__all__ = [
    "add_word", "channels", "checkpointed", "chunks", "embedded", "factor", "feature_source", "follows", "grids",
    "groups", "is_block", "layers", "multiple", "names", "noun_vectors", "outline", "parts", "pieces", "pipeline",
    "pixels", "pooled", "predict", "read", "regions", "room", "routed", "sees_text", "site_layers", "sites",
    "texts_are_large",
    "to_latents", "to_pixels", "token_table", "token_widths", "tokenize", "trainable",
]  # fmt: skip


def pixels(base: Base) -> int:
    """Side of the square picture the base was trained on."""
    return base.denoiser.config.sample_size * base.factor


def channels(base: Base) -> int:
    """Of latents."""
    return base.denoiser.config.in_channels


def multiple(base: Base) -> int:
    """What a picture's sides must be multiples of, in pixels, for the UNet to halve its latents."""
    return base.factor * 2 ** (len(base.denoiser.config.block_out_channels) - 1)


def grids(base: Base, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Width and height at each level of the UNet, of latents of a size."""
    return regional.grids(base.denoiser, size)


def parts(denoiser: Any) -> Mapping[str, Sequence[int]]:
    """Each of a UNet's matrices stands by itself."""
    return {}


def regions() -> Regions:
    """Regions are drawn by the attention to text (``regional``)."""
    return regional


def routed() -> Regions:
    """Concepts are kept apart by the attention to text (``routing``)."""
    return routing


def follows() -> bool:
    """ControlNets and T2I-Adapters are made for UNets."""
    return True
