"""A base without its weights: the same layers, of tensors that have a shape and a type and hold no numbers.

Whatever is done with it is done by the real code, so what it takes can be counted before anything is loaded.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F

from .base import WHOLE, Base, outline
from .offload import ONE_MEMORY


def skeleton(
    place: Path,
    *,
    hardware: str,
    compute: torch.dtype,
    vae: Path | None = None,
    offload: bool = False,
    whole: int = WHOLE,
) -> Base:
    """A base as ``base.load`` would give it on a type of device, without weights.

    Its tensors say that they are in main memory, whatever the hardware: gradients through those of a GPU cannot be
    followed where there is none.

    Args:
        place: a base's folder or single file, of which the settings are read.
        hardware: "cpu", "cuda" …; it need not be here.

    Raises:
        CidmError: INVALID when the settings cannot be read.
    """
    base = replace(
        outline(place, vae=vae), compute=compute, stands_for=hardware,
        offload=offload and hardware not in ONE_MEMORY, whole=whole,
    )  # fmt: skip
    kept = compute if hardware != "cpu" else torch.float32
    # What meets it from elsewhere, as the pictures do, has numbers.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for part in base.parts.values():
        _fill(part, mode, torch.float32 if part is base.vae else kept)
        if hardware != "cpu":
            _normalise_as_a_gpu(part)
    return base


def _fill(part: nn.Module, mode: FakeTensorMode, dtype: torch.dtype) -> None:
    """Exchanges tensors of the meta device for ones that take part in computing on a CPU, frozen."""

    def made(tensor: torch.Tensor) -> torch.Tensor:
        shaped = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor
        return FakeTensor(mode, shaped, torch.device("cpu"))

    part.eval()
    for module in part.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(made(parameter), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = made(buffer)


def _normalise_as_a_gpu(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.forward = partial(_normalised, module)  # type: ignore[method-assign]


def _normalised(norm: nn.GroupNorm | nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """A norm as a GPU's autocast has it: in float32. That of a CPU computes it in half."""
    weight: torch.Tensor | None = norm.weight
    bias: torch.Tensor | None = norm.bias
    if torch.is_autocast_enabled("cpu"):
        # One that is not learned has neither.
        x, weight, bias = x.float(), *(None if each is None else each.float() for each in (weight, bias))
    if isinstance(norm, nn.GroupNorm):
        return F.group_norm(x, norm.num_groups, weight, bias, norm.eps)
    return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
