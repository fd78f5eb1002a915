"""Asking FLUX.2's transformer, and which positions its layers see."""

from __future__ import annotations

import torch

from .base import Base

_WORDS = (".add_q_proj", ".add_k_proj", ".add_v_proj", ".to_add_out", ".ff_context.")


def sees_words(site: str) -> bool:
    """Whether a layer is fed the text's positions: those of single blocks are fed all, the text's first."""
    return site.startswith("single_") or any(part in site for part in _WORDS)


def sees_cells(site: str) -> bool:
    """Whether a layer is fed the picture's positions."""
    return site.startswith("single_") or not sees_words(site)


def ask(
    base: Base,
    latents: torch.Tensor,
    t: torch.Tensor,
    words: torch.Tensor,
    texts: int = 1,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The velocity of latents [rows, channels, h, w], in float32.

    Args:
        t: a timestep, or one of each row [rows].
        words: [rows, texts · tokens, width]; of each of so many texts, positions are counted anew.
        mask: what is added to the attention's logits [rows, 1, positions, positions].
    """
    height, width = latents.shape[-2:]
    counted = torch.arange(words.shape[1] // texts, device=latents.device).repeat(texts)
    nothing = torch.zeros(1, dtype=torch.long, device=latents.device)
    down, across = (torch.arange(side, device=latents.device) for side in (height, width))
    places = torch.cartesian_prod(nothing, down, across, nothing)
    spoken = torch.stack([torch.zeros_like(counted)] * 3 + [counted], -1)
    with base.autocast():
        out = base.denoiser(
            latents.flatten(2).mT, words, t.to(latents).expand(len(latents)) / 1000, places, spoken,
            joint_attention_kwargs=None if mask is None else {"attention_mask": mask}, return_dict=False,
        )[0]  # fmt: skip
    return out.float().mT.unflatten(2, (height, width))
