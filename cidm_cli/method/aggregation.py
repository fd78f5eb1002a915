"""Elastic weight aggregation: how much of each learned concept a prompt draws on.

| symbol | here | shape |
|---|---|---|
| ĉ^l | ``prompt``: the prompt's text embedding as cross-attention layer l sees it | [..., tokens, width] |
| ê_i^l | ``concepts[i]``: concept i's own tokens, encoded by themselves, special tokens left out | [..., n_i, width] |
| M | similarity of the prompt to each concept | [..., concepts] |
| ψ(M) | the concepts' weights | [..., concepts] |

The leading dimensions are the layers, or nothing for one layer. The sum ΔŴ^l = Σ_i ψ(M)_i ΔW_i^l is
``lowrank.weighted_sum``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FORMS = ("official", "paper")
"""Readings of Eq. 3: of the published code, and as printed (method.md, rows 6 and 7)."""


def similarities(
    prompt: Tensor, positions: Sequence[bool] | Tensor, concepts: Sequence[Tensor], *, form: str
) -> Tensor:
    """Eq. 3 — M_i, the similarity of a prompt to each concept.

    "paper" is the equation as printed: M_i = max over prompt tokens of ĉ · mean(ê_i), raw dot products.
    "official" is the published code's: cosines; each of the concept's tokens takes its largest over the prompt's
    tokens, and these are averaged.

    Args:
        prompt: [..., tokens, width].
        positions: which of the prompt's tokens count, [tokens]: no special and no padding tokens (row 8).
        concepts: each [..., n_i, width], its leading dimensions the prompt's or broadcast to them.
        form: "paper" or "official".

    Returns:
        M [..., concepts], float32. A prompt without a token that counts and a concept without tokens have
        nothing in common with anything: 0.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form of aggregation {form!r}")
    layers = prompt.shape[:-2]
    counted = torch.as_tensor(positions, dtype=torch.bool, device=prompt.device)
    rows = prompt.float()[..., counted, :]
    M = rows.new_zeros(*layers, len(concepts))
    having = [i for i, own in enumerate(concepts) if own.shape[-2]]
    if not having or not rows.shape[-2]:
        return M
    own = [concepts[i].float().expand(*layers, -1, -1) for i in having]
    if form == "paper":
        averaged = torch.stack([tokens.mean(-2) for tokens in own], -2)
        M[..., having] = (rows @ averaged.mT).amax(-2)
        return M
    rows = torch.nn.functional.normalize(rows, dim=-1)
    largest = (rows @ torch.nn.functional.normalize(torch.cat(own, -2), dim=-1).mT).amax(-2)
    each = largest.split([tokens.shape[-2] for tokens in own], -1)
    M[..., having] = torch.stack([values.mean(-1) for values in each], -1)
    return M


def paper_weights(M: Tensor) -> Tensor:
    """ψ(M) of Eq. 3 as printed: M², divided by the L2 norm of these squares. All zero where M is."""
    squares = _relative(M) ** 2
    return squares / _nonzero(squares.norm(dim=-1, keepdim=True))


def official_weights(M: Tensor, power: float = 4) -> Tensor:
    """ψ(M) of the published code: negative ones to 0, M^p, divided by their sum. All zero where M has none above 0.

    Each concept's share falls as others come: with g alike it is 1/g (method.md, row 9).
    """
    powers = _relative(M.clamp_min(0)) ** power
    return powers / _nonzero(powers.sum(-1, keepdim=True))


def sharp_weights(M: Tensor, named: Tensor, power: float) -> Tensor:
    """ψ(M) that stays sharp (method.md, row 9): named concepts keep 1 however many others there are.

    Every other gets M_j^p / max(1, Σ_named 1 + Σ_others M^p), so that all others together never pass 1. As p grows
    only the named are left (for M below 1), and ``power`` may be infinite.

    Args:
        M: cosine similarities [..., concepts].
        named: which concepts the prompt names [concepts], bool.
        power: p, above 0.
    """
    powers = torch.where(named, 0.0, M.clamp(0, 1) ** power)
    total = named.sum(-1, keepdim=True) + powers.sum(-1, keepdim=True)
    return torch.where(named, 1.0, powers / total.clamp_min(1))


def _relative(M: Tensor) -> Tensor:
    """M over its largest magnitude: the weights are the same, and no power of small similarities underflows."""
    return M / _nonzero(M.abs().amax(-1, keepdim=True)) if M.shape[-1] else M


def _nonzero(divisor: Tensor) -> Tensor:
    return torch.where(divisor == 0, 1.0, divisor)
