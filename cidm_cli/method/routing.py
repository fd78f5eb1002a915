"""Concepts named in one prompt without boxes: each one's weights act on its own words and in its own cells.

Kinds of routing that others published for LoRAs in general: by token (TARA, 2025), by early attention maps (FreeFuse,
2025).

| symbol | here | shape |
|---|---|---|
| w_i | ``words``: whether a row of the text's embedding is a token of concept i | [..., N, tokens] |
| m_i | ``maps``: a cell's attention to concept i's tokens, on average over these | [..., N, h, w] |
| r_i, g_i | concept i's part in each row of the text, in each cell of the picture, 0 to 1 | as w_i, as m_i |
| β | ``apart``: how much less a cell looks at words of concepts that are not its own | number |

Routed, a linear layer answers W x + Σ_i part_i ⊙ ΔW_i x: `routed`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def routed(
    x: torch.Tensor, weight: torch.Tensor, deltas: Sequence[torch.Tensor], parts: torch.Tensor
) -> torch.Tensor:
    """Routed weights — W x + Σ_i part_i ⊙ ΔW_i x.

    x [..., n, in], weight and each of N deltas [out, in], parts [..., N, n] -> [..., n, out]. Keys and values take
    ``token_parts``, queries, outputs and self-attention ``cell_parts``; parts of 1 are the plain sum.
    """
    changes = [part[..., None] * (x @ delta.T) for part, delta in zip(parts.unbind(-2), deltas, strict=True)]
    return x @ weight.T + sum(changes, torch.zeros(()))


def token_parts(words: torch.Tensor) -> torch.Tensor:
    """Routed rows — r_i = 1 − Σ_{j≠i} w_j: a concept's ΔK and ΔV act on all rows but the other concepts' tokens."""
    return 1 - (words.sum(-2, keepdim=True) - words)


def cell_parts(maps: torch.Tensor, power: float) -> torch.Tensor:
    """Routed cells — g_i = a_i^p / Σ_j a_j^p, with a_i = m_i / mean of m_i over all cells.

    Each map is taken relative to its own mean: words that are looked at more everywhere do not get every cell.
    """
    relative = maps / maps.mean((-2, -1), keepdim=True).clamp_min(1e-12)
    return torch.softmax(power * relative.clamp_min(1e-12).log(), dim=-3)


def withheld(parts: torch.Tensor, apart: float) -> torch.Tensor:
    """Cells kept from other concepts' words — b_i = β (max_j g_j − g_i), taken off the attention's logits.

    Nothing is where no concept is ahead.
    """
    return apart * (parts.amax(-3, keepdim=True) - parts)


def soft_masks(maps: torch.Tensor, power: float, level: float) -> torch.Tensor:
    """Found masks — g_i σ(p (a_i − level)) of maps averaged over layers and steps, a_i smoothed, [..., N, h, w].

    A cell that looks at no concept more than ``level`` times the mean is, for the most part, nobody's.
    """
    kernel = torch.tensor([1.0, 2.0, 1.0], device=maps.device)
    kernel = (kernel[:, None] * kernel / 16)[None, None]
    flat = F.pad(maps.reshape(-1, 1, *maps.shape[-2:]), (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(flat, kernel).view_as(maps)
    relative = smooth / smooth.mean((-2, -1), keepdim=True).clamp_min(1e-12)
    return cell_parts(smooth, power) * torch.sigmoid(power * (relative - level))
