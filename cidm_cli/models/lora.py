"""PEFT's LoRA layers on a UNet, for as long as a concept trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

_ADAPTER = "cidm"


@contextmanager
def adapter(
    unet: UNet2DConditionModel, sites: Sequence[str], *, rank: int, scale: float, seed: int
) -> Iterator[dict[str, tuple[nn.Parameter, nn.Parameter]]]:
    """While open, the UNet carries a trainable LoRA; yields each site's (up [out, r], down [r, in]), float32.

    ``up`` starts at zero and ``down`` as PEFT initialises it, drawn from ``seed`` and the site's number. On
    leaving, the UNet is as it was.
    """
    originals = {name: unet.get_submodule(name) for name in sites}
    config = LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=list(sites), init_lora_weights=True)
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, unet, adapter_name=_ADAPTER)
    factors = {}
    try:
        for number, name in enumerate(sites):
            layer = unet.get_submodule(name)
            assert isinstance(layer, LoraLayer)
            up, down = layer.lora_B[_ADAPTER].weight, layer.lora_A[_ADAPTER].weight
            generator = torch.Generator().manual_seed(seed * 100_003 + number)
            bound = down.shape[1] ** -0.5
            down.data = ((torch.rand(down.shape, generator=generator) * 2 - 1) * bound).to(down.device)
            # On a UNet in half precision PEFT makes its layers so, too.
            up.data = torch.zeros_like(up, dtype=torch.float32)
            factors[name] = (up, down)
        yield factors
    finally:
        for name, original in originals.items():
            parent, _, leaf = name.rpartition(".")
            setattr(unet.get_submodule(parent), leaf, original)
        if hasattr(unet, "peft_config"):
            del unet.peft_config
        unet.requires_grad_(False)
