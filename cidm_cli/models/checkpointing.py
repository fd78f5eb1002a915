"""Gradient checkpointing: what blocks compute inside is computed again for the gradients, instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from .base import Base


@contextmanager
def checkpointed(base: Base) -> Iterator[None]:
    """While open, UNet and text encoders keep only their blocks' inputs for the backward pass.

    The same gradients, for about a third more time. Which text each layer of the UNet attends to is seen to by
    ``attention.layer_contexts``.
    """
    layers = [
        module
        for encoder in base.encoders
        for module in encoder.modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]
    base.unet.enable_gradient_checkpointing()
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
        base.unet.disable_gradient_checkpointing()
