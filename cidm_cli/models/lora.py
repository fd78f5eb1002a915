"""Weights changed for a while: PEFT's LoRA layers while a concept trains, deltas while pictures are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

_ADAPTER = "cidm"


@contextmanager
def adapter(
    model: nn.Module, sites: Sequence[str], *, rank: int, scale: float, seed: int
) -> Iterator[dict[str, tuple[nn.Parameter, nn.Parameter]]]:
    """While open, the model carries a trainable LoRA; yields each site's (up [out, r], down [r, in]), float32.

    ``up`` starts at zero and ``down`` as PEFT initialises it, drawn from ``seed`` and the site's number. On
    leaving, the model is as it was.
    """
    originals = {name: model.get_submodule(name) for name in sites}
    config = LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=list(sites), init_lora_weights=True)
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    factors = {}
    try:
        for number, name in enumerate(sites):
            layer = model.get_submodule(name)
            assert isinstance(layer, LoraLayer)
            up, down = layer.lora_B[_ADAPTER].weight, layer.lora_A[_ADAPTER].weight
            generator = torch.Generator().manual_seed(seed * 100_003 + number)
            bound = down.shape[1] ** -0.5
            down.data = ((torch.rand(down.shape, generator=generator) * 2 - 1) * bound).to(down.device)
            # On a model in half precision PEFT makes its layers so, too.
            up.data = torch.zeros_like(up, dtype=torch.float32)
            factors[name] = (up, down)
        yield factors
    finally:
        for name, original in originals.items():
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, original)
        if hasattr(model, "peft_config"):
            del model.peft_config
        model.requires_grad_(False)


@contextmanager
def merged(model: nn.Module, deltas: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While open, each named layer's weight has its delta [out, in] added; then it is as before, to the bit.

    Layers that are not named are not touched. Deltas are asked for and let go of one after another.
    """
    weights: dict[str, Any] = {name: model.get_submodule(name).weight for name in deltas}
    originals = {name: weight.data for name, weight in weights.items()}
    try:
        for name, weight in weights.items():
            weight.data = _changed(originals[name], deltas[name])
        # What they are made of may be large, and is not needed any more.
        del deltas
        yield
    finally:
        for name, weight in weights.items():
            weight.data = originals[name]


def _changed(weight: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """A weight with its delta [out, in] added: rounded once, also where it is kept in half."""
    return (weight.float() + delta.to(weight.device, torch.float32).view_as(weight)).to(weight.dtype)
