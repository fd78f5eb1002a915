"""What a UNet's linear layers are fed: Gram matrices of their inputs, counted while it runs or from texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass
class Gram:
    """Σ x xᵀ over feature rows x, in float64, of their coordinates Q x where axes are given."""

    width: int
    """Of a row x."""
    axes: torch.Tensor | None = None
    """Q [k, width], float64; None for x as it is."""
    rows: int = 0
    """How many."""
    total: torch.Tensor = field(init=False)
    """[k, k], or [width, width]"""

    def __post_init__(self) -> None:
        side = self.width if self.axes is None else len(self.axes)
        self.total = torch.zeros(side, side, dtype=torch.float64)

    def add(self, features: torch.Tensor) -> None:
        """Counts the rows of ``features`` [..., width]."""
        rows = features.detach().reshape(-1, features.shape[-1])
        # Apple's GPUs know no float64.
        rows = (rows.cpu() if rows.device.type == "mps" else rows).double()
        if self.axes is not None:
            rows = rows @ self.axes.to(rows.device).T
        self.total = self.total.to(rows.device) + rows.T @ rows
        self.rows += rows.shape[0]

    def mean(self) -> torch.Tensor:
        """``total`` by row, on the CPU: the same for twice the same rows."""
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


def text_gram(context: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of x xᵀ over all positions of text embeddings [prompts, tokens, width]; ``axes`` as in ``Gram``."""
    gram = Gram(context.shape[-1], axes)
    gram.add(context)
    return gram.mean()


@contextmanager
def recorded(
    denoiser: Any,
    sites: Mapping[str, torch.Tensor | None],
    counting: Callable[[], bool] = lambda: True,
) -> Iterator[dict[str, Gram]]:
    """While open, whatever each named layer, linear or 1x1, is fed is counted; yields the Gram matrices by site.

    Args:
        sites: axes by site, as in ``Gram``.
        counting: asked each time whether that counts.
    """
    grams, handles = {}, []
    for site, axes in sites.items():
        gram = grams[site] = Gram(denoiser.get_submodule(site).weight.shape[1], axes)

        def count(module: nn.Module, args: tuple[Any, ...], gram: Gram = gram) -> None:
            # A convolution's channels come first, a linear layer's last.
            if counting():
                gram.add(args[0].movedim(1, -1) if isinstance(module, nn.Conv2d) else args[0])

        handles.append(denoiser.get_submodule(site).register_forward_pre_hook(count))
    try:
        yield grams
    finally:
        for handle in handles:
            handle.remove()
