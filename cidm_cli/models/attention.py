"""The UNet's cross-attention: its layers, its LoRA sites, one text embedding for each layer, weights swapped in.

Layers are counted in the order in which a forward pass meets them: down blocks, middle, up blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

#: Projections of an attention module that a LoRA may sit on.
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
#: What ``--targets`` may name, and the attention modules it stands for.
TARGETS = {"attn2": ("attn2",), "attn1+attn2": ("attn1", "attn2")}


def cross_attention_layers(unet: UNet2DConditionModel) -> tuple[str, ...]:
    """Names of the modules that attend to text, in forward order (16 in SD-1.5)."""
    return tuple(sorted((n for n, _ in unet.named_modules() if n.endswith(".attn2")), key=_forward_order))


def lora_sites(unet: UNet2DConditionModel, targets: str = "attn2") -> tuple[str, ...]:
    """Names of the linear layers a LoRA sits on, in forward order (64 for "attn2" in SD-1.5)."""
    attention = sorted(
        (n for n, _ in unet.named_modules() if n.rsplit(".", 1)[-1] in TARGETS[targets]), key=_forward_order
    )
    return tuple(f"{name}.{projection}" for name in attention for projection in PROJECTIONS)


def site_layers(unet: UNet2DConditionModel) -> dict[str, int]:
    """The cross-attention layer each LoRA site belongs to: that of its own transformer block."""
    number = {name.rpartition(".")[0]: layer for layer, name in enumerate(cross_attention_layers(unet))}
    sites = {site for targets in TARGETS for site in lora_sites(unet, targets)}
    return {site: number[site.split(".attn")[0]] for site in sorted(sites)}


def linear_shapes(unet: UNet2DConditionModel) -> dict[str, tuple[int, int]]:
    """(out, in) of every linear layer that any choice of targets may put a LoRA on."""
    sites = {site for targets in TARGETS for site in lora_sites(unet, targets)}
    return {site: tuple(unet.get_submodule(site).weight.shape) for site in sorted(sites)}


def _forward_order(name: str) -> tuple[int, tuple[int, ...], str]:
    stage = ("down_blocks", "mid_block", "up_blocks").index(name.split(".", 1)[0])
    return stage, tuple(int(part) for part in name.split(".") if part.isdigit()), name


@contextmanager
def layer_contexts(unet: UNet2DConditionModel, contexts: Sequence[torch.Tensor]) -> Iterator[None]:
    """While open, cross-attention layer l attends to ``contexts[l]`` [batch, tokens, width].

    Whatever ``encoder_hidden_states`` the UNet is called with is not looked at. A hook and not a processor, so
    that any attention processor works underneath.
    """
    layers = cross_attention_layers(unet)
    if len(contexts) != len(layers):
        raise ValueError(f"{len(contexts)} contexts for {len(layers)} cross-attention layers")
    handles = []
    for name, context in zip(layers, contexts, strict=True):

        def give(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], context: torch.Tensor = context
        ) -> tuple[Any, Any]:
            return args, {**kwargs, "encoder_hidden_states": context}

        handles.append(unet.get_submodule(name).register_forward_pre_hook(give, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def merged(unet: UNet2DConditionModel, deltas: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While open, each named linear layer's weight has its delta [out, in] added; then it is as before, to the bit."""
    kept = {name: unet.get_submodule(name).weight for name in deltas}
    originals = {name: weight.data for name, weight in kept.items()}
    try:
        for name, delta in deltas.items():
            kept[name].data = originals[name] + delta.to(originals[name])
        yield
    finally:
        for name, weight in kept.items():
            weight.data = originals[name]
