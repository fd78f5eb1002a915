"""How a base computes while something in it trains: the same numbers, in less time and memory for their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import nn
from transformers.activations import QuickGELUActivation

from .base import Base

STEPWISE = (torch.bfloat16, torch.float16)
"""Precisions in which a CPU trains attention to few keys faster step by step. In float32 it is a tenth slower."""
MANY_KEYS = 1024
"""From as many on, attention on a CPU is trained faster in one piece than step by step."""


@contextmanager
def trainable(base: Base, *, spare: bool = False) -> Iterator[None]:
    """While open, gradients through the base cost less; what it predicts is the same but for rounding.

    Whatever changes its weights comes before.

    Args:
        spare: what would be held for all steps to save time is not.
    """
    with ExitStack() as stack:
        stack.enter_context(_thrifty_activations(base))
        if not spare:
            stack.enter_context(_converted_once(base))
        if base.hardware == "cpu" and base.compute in STEPWISE:
            stack.enter_context(_attention_of_a_cpu(base))
        yield


@contextmanager
def _attention_of_a_cpu(base: Base) -> Iterator[None]:
    """While open, attention is computed as is faster there and back; the text encoders' has few keys."""
    processors = base.denoiser.attn_processors
    implementations = [encoder.config._attn_implementation for encoder in base.encoders]
    base.denoiser.set_attn_processor(_StepwiseIfFew())
    for encoder in base.encoders:
        encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.denoiser.set_attn_processor(dict(processors))
        for encoder, implementation in zip(base.encoders, implementations, strict=True):
            encoder.set_attn_implementation(implementation)


class _StepwiseIfFew:
    """Attention to few keys step by step: the fused kind's backward pass in bfloat16 takes up to twice as long.

    To as many as a picture of 512 pixels has, the fused kind is faster, and a map of all weights would be gigabytes.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        way = AttnProcessor() if keys.shape[1] < MANY_KEYS else AttnProcessor2_0()
        out: torch.Tensor = way(attn, hidden_states, encoder_hidden_states, attention_mask)
        return out


@contextmanager
def _converted_once(base: Base) -> Iterator[None]:
    """While open, the weights of matrix products are in the precision that these are computed in.

    Autocast would convert them in every step, and keep what it made for the backward pass: no more memory than that.
    """
    weights = dict.fromkeys(
        parameter
        for model in (base.denoiser, *base.encoders)
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
        for parameter in module.parameters(recurse=False)
        if parameter.dtype != base.compute
    )
    kept = {parameter: parameter.data for parameter in weights}
    try:
        for parameter in kept:
            parameter.data = parameter.data.to(base.compute)
        yield
    finally:
        for parameter, original in kept.items():
            parameter.data = original


@contextmanager
def _thrifty_activations(base: Base) -> Iterator[None]:
    """While open, CLIP's activations keep their input alone for the backward pass.

    A caption is encoded once for each set of a concept's tokens: what an encoder keeps, it keeps many times over.
    """
    wide = [
        module
        for encoder in base.encoders
        for module in encoder.modules()
        if isinstance(getattr(module, "activation_fn", None), QuickGELUActivation)
    ]
    kept: list[Any] = [module.activation_fn for module in wide]
    for module in wide:
        module.activation_fn = _QuickGelu()
    try:
        yield
    finally:
        for module, activation in zip(wide, kept, strict=True):
            module.activation_fn = activation


class _QuickGelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _quick_gelu(x)
        return out


class _QuickGeluOnce(torch.autograd.Function):
    """x σ(1.702 x), the gradient of which is that of silu at 1.702 x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(1.702 * x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        out: torch.Tensor = torch.ops.aten.silu_backward(gradients[0], 1.702 * x)
        return out


_quick_gelu: Any = _QuickGeluOnce.apply
