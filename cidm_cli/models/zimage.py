"""Z-Image: a transformer over one stream of picture and text, as Qwen3 says it (``family.Architecture``).

Text enters once, so that a concept has one set of tokens. The layers at which concepts are weighted are the blocks:
those that see the picture alone or the text alone first, then those that see both. A text is as long as it is: rows of
zeros behind it are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from torch import nn
from transformers import Qwen3Model

from ..bases.joint import CELL
from ..formats.lora import Names
from . import joint, qwen, zimage_regions
from .base import Base
from .family import Regions
from .joint import add_word, checkpointed, follows, pixels, routed, sees_text, texts_are_large, trainable
from .kl import factor, to_latents, to_pixels
from .native_names import named
from .qwen import chunks, embedded, noun_vectors, pieces, pooled, room, token_table, token_widths, tokenize
from .sampling import make_scheduler
from .zimage_asking import ask, said

__all__ = [
    "add_word", "channels", "checkpointed", "chunks", "embedded", "factor", "feature_source", "follows", "grids",
    "groups", "is_block", "layers", "multiple", "names", "noun_vectors", "outline", "parts", "pieces", "pipeline",
    "pixels", "pooled", "predict", "read", "regions", "room", "routed", "sees_text", "site_layers", "sites",
    "texts_are_large", "to_latents", "to_pixels", "token_table", "token_widths", "tokenize", "trainable",
]  # fmt: skip

KINDS = ("noise_refiner", "context_refiner", "layers")
ATTENTION, FORWARD = ("to_q", "to_k", "to_v", "to_out.0"), ("w1", "w3", "w2")
TIMED = "adaLN_modulation.0"
_FED_ALIKE = {"to_k": "to_q", "to_v": "to_q", "w3": "w1"}
layers, groups = partial(joint.layers, KINDS), partial(joint.groups, KINDS)
feature_source = partial(joint.feature_source, _FED_ALIKE)
_NATIVE = {"to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "out"}


def _reader(model: Qwen3Model) -> qwen.Reader:
    """The last but one of its states."""
    return qwen.Reader(model, (model.config.num_hidden_layers - 1,), qwen.CLOSE, filled=False)


MADE = joint.Made(
    ZImageTransformer2DModel, AutoencoderKL, _reader, lambda config: (config.cap_feat_dim, config.in_channels)
)
read, outline = partial(joint.read, MADE), partial(joint.outline, MADE)


def channels(base: Base) -> int:
    """Of the VAE's latents."""
    return base.denoiser.config.in_channels


def multiple(base: Base) -> int:
    """What a picture's sides must be multiples of, in pixels."""
    return CELL * base.factor


def grids(base: Base, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The one of the transformer's cells."""
    return [(size[0] // CELL, size[1] // CELL)]


def sites(denoiser: Any, targets: str) -> tuple[str, ...]:
    """The linear layers that a LoRA sits on, in forward order: of the blocks that see picture and text."""
    leaves = tuple(f".{name}" for name in (*ATTENTION, *(FORWARD if targets == "attn+ff" else ())))
    return tuple(
        site for site in site_layers(denoiser) if site.startswith("layers.") and site.endswith(leaves)
    )


def site_layers(denoiser: Any) -> dict[str, int]:
    """The block that each belongs to; what a block makes of the timestep is changed by files of other programs only."""
    leaves = (*(f"attention.{name}" for name in ATTENTION), *(f"feed_forward.{name}" for name in FORWARD))
    found: dict[str, int] = {}
    for number, layer in enumerate(layers(denoiser)):
        timed = (TIMED,) if denoiser.get_submodule(layer).modulation else ()
        found |= {f"{layer}.{leaf}": number for leaf in (*timed, *leaves)}
    return found


def parts(denoiser: Any) -> Mapping[str, Sequence[int]]:
    """Each layer is one matrix."""
    return {}


def predict(
    base: Base,
    latents: torch.Tensor,
    t: torch.Tensor,
    contexts: Sequence[torch.Tensor],
    pooled: torch.Tensor | None,
    sizes: torch.Tensor | None,
    followed: Any,
) -> torch.Tensor:
    """The transformer's velocity."""
    return ask(base, latents, t, said(base, contexts[0]))


def regions() -> Regions:
    """By a mask on the attention of the blocks that see picture and text."""
    return zimage_regions


def is_block(name: str, module: nn.Module) -> bool:
    """Whether a module of the transformer is compiled."""
    return isinstance(module, ZImageTransformerBlock)


def pipeline(base: Base) -> ZImagePipeline:
    """A stock pipeline of the base's parts."""
    return ZImagePipeline(
        scheduler=make_scheduler(base, "euler"), vae=base.vae, text_encoder=base.encoders[0].model,
        tokenizer=base.tokenizers[0], transformer=base.denoiser,
    )  # fmt: skip


def names(denoiser: Any) -> Names:
    """What LoRA files of other programs call the sites; the original code's queries, keys and values are one layer."""
    return named({site: _native(site) for site in site_layers(denoiser)})


def _native(site: str) -> str:
    block, attention, leaf = site.partition(".attention.")
    return f"{block}{attention}{_NATIVE[leaf]}" if attention else site
