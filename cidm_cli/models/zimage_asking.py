"""Asking Z-Image's transformer, by texts of lengths of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .base import Base


def said(base: Base, contexts: torch.Tensor) -> list[torch.Tensor]:
    """Of each text of [texts, tokens, width], its own rows: those behind them are zeros, and are none.

    Without numbers (``skeleton``) all are taken to be there.
    """
    if base.stands_for:
        return list(contexts)
    counts = contexts.any(-1).sum(-1).tolist()
    return [text[:count] for text, count in zip(contexts, counts, strict=True)]


def told(t: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """What the transformer is told of a timestep, or of one of each row, [rows]: how much of the picture is left."""
    return (1000 - t.to(latents).expand(len(latents))) / 1000


def ask(base: Base, latents: torch.Tensor, t: torch.Tensor, texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The velocity of latents [rows, channels, h, w], in float32; it predicts the way back.

    Args:
        t: a timestep, or one of each row [rows].
        texts: of each row [tokens, width].
    """
    pictures = list(latents[:, :, None].unbind())
    with base.autocast():
        found = base.denoiser(pictures, told(t, latents), list(texts), return_dict=False)[0]
    return -torch.stack(found)[:, :, 0].float()
