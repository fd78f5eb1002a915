"""The UNet's blocks as compiled code.

What is compiled is what every picture is computed by in the same way: convolutions, attention within the picture, feed-
forward layers. Attention to text stays as it is: which text a layer attends to, and with whose weights, changes from
prompt to prompt, and nothing should be compiled again for it. Weights are inputs of the compiled code; those that are
exchanged for a drawing are seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from ..errors import CidmError, ExitCode
from .base import Base

VARIANTS = 64
"""Shapes of one kind of block that are compiled, before those to come are computed as they are: SDXL has 12 for one
size and number of pictures."""


def compiled(base: Base, backend: str = "inductor") -> Base:
    """The base, with blocks that are compiled when they are first used; its denoiser is changed.

    Raises:
        CidmError: USAGE where torch cannot compile: it needs a C++ compiler on a CPU, Triton on a GPU.
    """
    _check(base.device, backend)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    for name, module in base.denoiser.named_modules():
        if base.architecture.is_block(name, module):
            # Whole numbers in shapes make faster code; a picture of another size is compiled for anew.
            module.forward = torch.compile(module.forward, dynamic=False, backend=backend)
    return replace(base, compiled=True)


@contextmanager
def uncompiled(base: Base) -> Iterator[None]:
    """While open, blocks are computed as they are: for whoever listens to layers within them."""
    if not base.compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def is_block(name: str, module: nn.Module) -> bool:
    """Whether a module of a UNet is compiled."""
    return isinstance(module, (ResnetBlock2D, FeedForward)) or name.endswith(".attn1")


def _check(device: torch.device, backend: str) -> None:
    try:
        torch.compile(_small, dynamic=False, backend=backend)(torch.ones(8, device=device))
    except Exception as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CidmError(
            f"--compile: torch cannot compile here ({why})",
            hint="leave it out, or install a C++ compiler (CPU) or Triton (GPU)",
            code=ExitCode.USAGE,
        ) from error


def _small(values: torch.Tensor) -> torch.Tensor:
    return values * 2 + 1
