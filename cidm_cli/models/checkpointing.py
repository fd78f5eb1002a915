"""Gradient checkpointing: what blocks compute inside is computed again for the gradients, instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from .base import Base

LARGE = 4_000_000
"""Numbers between a text encoder's layers from which on what is within them is not kept: dozens of times as many."""


def texts_are_large(base: Base, copies: int) -> bool:
    """Whether a prompt for so many sets of a concept's tokens takes the text encoders more memory than time."""
    rows = copies * base.tokenizers[0].model_max_length
    return rows * sum(e.config.hidden_size * e.config.num_hidden_layers for e in base.encoders) >= LARGE


@contextmanager
def checkpointed(base: Base, *, denoiser: bool = True) -> Iterator[None]:
    """While open, UNet and text encoders, or these alone, keep only their blocks' inputs for the backward pass.

    The same gradients, for about a third more time of what is computed twice. Which text each layer of the UNet attends
    to is seen to by ``attention.layer_contexts``.
    """
    layers = [
        module
        for encoder in base.encoders
        for module in encoder.modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]
    if denoiser:
        base.denoiser.enable_gradient_checkpointing()
    for layer in layers:
        layer._gradient_checkpointing_func = partial(
            checkpoint, use_reentrant=False, preserve_rng_state=False
        )
        # The layer alone is told that it trains, which it asks: what is in it must not begin to drop values out.
        layer.gradient_checkpointing = layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False
        if denoiser:
            base.denoiser.disable_gradient_checkpointing()
