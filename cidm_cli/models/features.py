"""What a UNet's linear layers are fed: Gram matrices of their inputs, counted while it runs or from texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn


@dataclass
class Gram:
    """Σ x xᵀ over feature rows x, in float64."""

    total: torch.Tensor
    """[width, width]"""
    rows: int = 0
    """How many."""

    def add(self, features: torch.Tensor) -> None:
        """Counts the rows of ``features`` [..., width]."""
        rows = features.detach().reshape(-1, features.shape[-1])
        # Apple's GPUs know no float64.
        rows = (rows.cpu() if rows.device.type == "mps" else rows).double()
        self.total = self.total.to(rows.device) + rows.T @ rows
        self.rows += rows.shape[0]

    def mean(self) -> torch.Tensor:
        """[width, width] on the CPU: the same for twice the same rows."""
        return self.total.cpu() / max(self.rows, 1)


def feature_source(site: str) -> str:
    """The first of the sites that are fed what ``site`` is fed: an attention's keys and values see the same."""
    if ".to_" not in site:
        return site
    block, _, projection = site.rpartition(".to_")
    if projection == "v":
        projection = "k"
    if projection == "k" and block.endswith(".attn1"):
        projection = "q"
    return f"{block}.to_{projection}"


def sees_text(site: str) -> bool:
    """Whether a site is fed text features alone: the keys and values of cross-attention."""
    return site.endswith((".attn2.to_k", ".attn2.to_v"))


def text_gram(context: torch.Tensor) -> torch.Tensor:
    """Mean of x xᵀ over all positions of text embeddings [prompts, tokens, width]."""
    gram = Gram(torch.zeros(context.shape[-1], context.shape[-1], dtype=torch.float64))
    gram.add(context)
    return gram.mean()


@contextmanager
def recorded(unet: UNet2DConditionModel, sites: Sequence[str]) -> Iterator[dict[str, Gram]]:
    """While open, whatever each named layer, linear or 1x1, is fed is counted; yields the Gram matrices by site."""
    grams, handles = {}, []
    for site in sites:
        width = unet.get_submodule(site).weight.shape[1]
        gram = grams[site] = Gram(torch.zeros(width, width, dtype=torch.float64))

        def count(module: nn.Module, args: tuple[Any, ...], gram: Gram = gram) -> None:
            # A convolution's channels come first, a linear layer's last.
            gram.add(args[0].movedim(1, -1) if isinstance(module, nn.Conv2d) else args[0])

        handles.append(unet.get_submodule(site).register_forward_pre_hook(count))
    try:
        yield grams
    finally:
        for handle in handles:
            handle.remove()
