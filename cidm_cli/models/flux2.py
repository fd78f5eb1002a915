"""FLUX.2 klein: a transformer with joint attention to what Qwen3 says (``family.Architecture``).

Text enters once, so that a concept has one set of tokens. The layers at which concepts are weighted are the blocks:
double ones, with weights of their own for picture and text, then single ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2SingleTransformerBlock, Flux2TransformerBlock
from torch import nn

from ..bases.joint import CELL
from ..formats.lora import Names
from . import flux2_regions, joint, kl, qwen
from .base import Base
from .family import Regions
from .flux2_asking import ask
from .flux2_names import native_name
from .joint import add_word, checkpointed, follows, pixels, routed, sees_text, texts_are_large, trainable
from .native_names import named
from .qwen import chunks, embedded, noun_vectors, pieces, pooled, room, token_table, token_widths, tokenize
from .sampling import make_scheduler

__all__ = [
    "add_word", "channels", "checkpointed", "chunks", "embedded", "factor", "feature_source", "follows", "grids",
    "groups", "is_block", "layers", "multiple", "names", "noun_vectors", "outline", "parts", "pieces", "pipeline",
    "pixels", "pooled", "predict", "read", "regions", "room", "routed", "sees_text", "site_layers", "sites",
    "texts_are_large", "to_latents", "to_pixels", "token_table", "token_widths", "tokenize", "trainable",
]  # fmt: skip

STATES = (9, 18, 27)
"""The layers of the text encoder that are read."""
MADE = joint.Made(
    Flux2Transformer2DModel,
    AutoencoderKLFlux2,
    partial(qwen.Reader, states=STATES, close=qwen.CLOSE + qwen.SILENT, filled=True),
    lambda config: (config.joint_attention_dim, config.in_channels // CELL**2),
)
read, outline = partial(joint.read, MADE), partial(joint.outline, MADE)
DOUBLE, SINGLE = "transformer_blocks", "single_transformer_blocks"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
FORWARD = ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out")
_FED_ALIKE = {"to_k": "to_q", "to_v": "to_q", "add_k_proj": "add_q_proj", "add_v_proj": "add_q_proj"}
layers, groups = partial(joint.layers, (DOUBLE, SINGLE)), partial(joint.groups, (DOUBLE, SINGLE))
feature_source = partial(joint.feature_source, _FED_ALIKE)


def factor(base: Base) -> int:
    """Pixels a cell of the transformer spans."""
    return CELL * kl.factor(base)


def channels(base: Base) -> int:
    """Of its latents: those of four cells of the VAE."""
    return base.denoiser.config.in_channels


def multiple(base: Base) -> int:
    """What a picture's sides must be multiples of, in pixels."""
    return base.factor


def grids(base: Base, size: tuple[int, int]) -> list[tuple[int, int]]:
    """There is one."""
    return [size]


def to_latents(base: Base, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the latents, four cells of the VAE in one, by its own statistics near 0 and 1."""
    posterior = base.vae.encode(pixels).latent_dist
    middle, width = _statistics(base)
    mean, std = (_packed(each.float()) for each in (posterior.mean, posterior.std))
    return (mean - middle) / width, std / width


def to_pixels(base: Base, latents: torch.Tensor) -> torch.Tensor:
    """The way back."""
    middle, width = _statistics(base)
    found: torch.Tensor = base.vae.decode(nn.functional.pixel_shuffle(latents * width + middle, CELL)).sample
    return found.float()


def sites(denoiser: Any, targets: str) -> tuple[str, ...]:
    """The linear layers that a LoRA sits on, in forward order."""
    return tuple(site for site in site_layers(denoiser) if ".attn." in site or targets == "attn+ff")


def site_layers(denoiser: Any) -> dict[str, int]:
    """The block that each belongs to."""
    own = {DOUBLE: (*(f"attn.{name}" for name in ATTENTION), *FORWARD)}
    own[SINGLE] = ("attn.to_qkv_mlp_proj", "attn.to_out")
    return {
        f"{layer}.{leaf}": number
        for number, layer in enumerate(layers(denoiser))
        for leaf in own[layer.partition(".")[0]]
    }


def parts(denoiser: Any) -> Mapping[str, Sequence[int]]:
    """A single block's queries, keys, values and feed-forward layer are one matrix."""
    made = {}
    for number, block in enumerate(denoiser.single_transformer_blocks):
        inner, forward = block.attn.inner_dim, block.attn.mlp_hidden_dim * block.attn.mlp_mult_factor
        made[f"{SINGLE}.{number}.attn.to_qkv_mlp_proj"] = (inner, inner, inner, forward)
    return made


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
    return ask(base, latents, t, contexts[0])


def regions() -> Regions:
    """By a mask on the joint attention."""
    return flux2_regions


def is_block(name: str, module: nn.Module) -> bool:
    """Whether a module of the transformer is compiled."""
    return isinstance(module, Flux2TransformerBlock | Flux2SingleTransformerBlock)


def pipeline(base: Base) -> Flux2KleinPipeline:
    """A stock pipeline of the base's parts."""
    return Flux2KleinPipeline(
        scheduler=make_scheduler(base, "euler"), vae=base.vae, text_encoder=base.encoders[0].model,
        tokenizer=base.tokenizers[0], transformer=base.denoiser, is_distilled=not base.family.guided,
    )  # fmt: skip


def names(denoiser: Any) -> Names:
    """What LoRA files of other programs call the sites."""
    return named({site: native_name(site) for site in site_layers(denoiser)})


def _packed(latents: torch.Tensor) -> torch.Tensor:
    return nn.functional.pixel_unshuffle(latents, CELL)


def _statistics(base: Base) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel."""
    norm = base.vae.bn
    middle, spread = norm.running_mean, norm.running_var + base.vae.config.batch_norm_eps
    return middle.view(1, -1, 1, 1), spread.sqrt().view(1, -1, 1, 1)
