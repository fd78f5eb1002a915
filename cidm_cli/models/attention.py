"""The UNet's cross-attention: its layers, its LoRA sites, one text embedding for each layer.

Layers are counted in the order in which a forward pass meets them: down blocks, middle, up blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint

#: Projections of an attention module that a LoRA may sit on.
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
#: What ``--targets`` may name, and the attention modules it stands for.
TARGETS = {"attn2": ("attn2",), "attn1+attn2": ("attn1", "attn2")}
#: Other linear layers, of a transformer block and around its blocks, that LoRA files of other programs change.
BLOCK_LAYERS, OUTER_LAYERS = ("ff.net.0.proj", "ff.net.2"), ("proj_in", "proj_out")


def cross_attention_layers(unet: UNet2DConditionModel) -> tuple[str, ...]:
    """Names of the modules that attend to text, in forward order (16 in SD-1.5, 70 in SDXL)."""
    return tuple(sorted((n for n, _ in unet.named_modules() if n.endswith(".attn2")), key=_forward_order))


def layer_groups(unet: UNet2DConditionModel) -> tuple[int, ...]:
    """For each cross-attention layer, the number of the transformer it belongs to.

    In SD-1.5 each of the 16 layers is alone in one; SDXL's 70 layers are in 11.
    """
    transformers = [name.rpartition(".transformer_blocks.")[0] for name in cross_attention_layers(unet)]
    number = {name: group for group, name in enumerate(dict.fromkeys(transformers))}
    return tuple(number[name] for name in transformers)


def lora_sites(unet: UNet2DConditionModel, targets: str = "attn2") -> tuple[str, ...]:
    """Names of the linear layers a LoRA sits on, in forward order (64 for "attn2" in SD-1.5, 280 in SDXL)."""
    attention = sorted(
        (n for n, _ in unet.named_modules() if n.rsplit(".", 1)[-1] in TARGETS[targets]), key=_forward_order
    )
    return tuple(f"{name}.{projection}" for name in attention for projection in PROJECTIONS)


def site_layers(unet: UNet2DConditionModel) -> dict[str, int]:
    """The cross-attention layer each LoRA site belongs to: that of its own transformer block.

    Sites around several blocks belong to the block next to them.
    """
    out: dict[str, int] = {}
    for layer, name in enumerate(cross_attention_layers(unet)):
        block = name.rpartition(".")[0]
        transformer = block.rpartition(".transformer_blocks.")[0]
        own = [f"{attention}.{projection}" for attention in ("attn1", "attn2") for projection in PROJECTIONS]
        out |= {f"{block}.{leaf}": layer for leaf in (*own, *BLOCK_LAYERS)}
        out.setdefault(f"{transformer}.proj_in", layer)
        out[f"{transformer}.proj_out"] = layer
    return dict(sorted(out.items()))


def _forward_order(name: str) -> tuple[int, tuple[int, ...], str]:
    stage = ("down_blocks", "mid_block", "up_blocks").index(name.split(".", 1)[0])
    return stage, tuple(int(part) for part in name.split(".") if part.isdigit()), name


@contextmanager
def layer_contexts(unet: UNet2DConditionModel, contexts: Sequence[torch.Tensor]) -> Iterator[None]:
    """While open, cross-attention layer l attends to ``contexts[l]`` [batch, tokens, width].

    Whatever ``encoder_hidden_states`` the UNet is called with is not looked at. A hook and not a processor, so
    that any attention processor works underneath. Where the UNet computes blocks again in the backward pass, they
    attend to the same again.
    """
    layers = cross_attention_layers(unet)
    if len(contexts) != len(layers):
        raise ValueError(f"{len(contexts)} contexts for {len(layers)} cross-attention layers")
    given = {unet.get_submodule(name): context for name, context in zip(layers, contexts, strict=True)}
    again = unet.is_gradient_checkpointing
    if again:
        unet.enable_gradient_checkpointing(partial(_computed_twice, given))
    try:
        with _attending(given):
            yield
    finally:
        if again:
            # Without the contexts, whose memory would otherwise be held.
            unet.enable_gradient_checkpointing()


def _computed_twice(given: Mapping[nn.Module, torch.Tensor], block: nn.Module, *inputs: Any) -> Any:
    """A block's output, of which only its inputs are kept for the backward pass."""
    own = {module: given[module] for module in block.modules() if module in given}
    return checkpoint(
        block, *inputs, use_reentrant=False, preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _attending(own)),
    )  # fmt: skip


@contextmanager
def _attending(given: Mapping[nn.Module, torch.Tensor]) -> Iterator[None]:
    """While open, each module attends to its text."""
    handles = []
    for module, context in given.items():

        def give(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], context: torch.Tensor = context
        ) -> tuple[Any, Any]:
            return args, {**kwargs, "encoder_hidden_states": context}

        handles.append(module.register_forward_pre_hook(give, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
