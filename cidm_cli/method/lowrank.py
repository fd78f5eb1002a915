"""Low-rank weights.

| symbol | here | shape |
|---|---|---|
| A_g^l | ``up`` (PEFT: ``lora_B.weight``) | [out, r] |
| B_g^l | ``down`` (PEFT: ``lora_A.weight``) | [r, in] |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def delta(up: torch.Tensor, down: torch.Tensor, scale: float) -> torch.Tensor:
    """ΔW_g^l = scale · A_g^l B_g^l, [out, in] in float32."""
    return scale * (up.float() @ down.float())


def weighted_sum(deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """ΔŴ^l = Σ_i w_i ΔW_i^l of one layer. One concept at weight 1 comes back unchanged."""
    total = deltas[0] * weights[0]
    for matrix, weight in zip(deltas[1:], weights[1:], strict=True):
        total = total + weight * matrix
    return total


def free(ups: Sequence[torch.Tensor]) -> int:
    """Dimensions of a site's output that no concept's low-rank weight reaches: out - rank of all ups [out, r_i].

    Columns that are zero, or that the others span up to rounding, take no room.
    """
    every = torch.cat(list(ups), 1)
    rounding = max(every.shape) * torch.finfo(every.dtype).eps
    return every.shape[0] - int(torch.linalg.matrix_rank(every.double(), rtol=rounding))


def apart(
    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]], rows: Mapping[str, Sequence[int]]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A_g^l and B_g^l by site, those in ``rows`` by parts of so many rows: matrices that a base holds as one."""
    out: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for site, (up, down) in factors.items():
        if site in rows:
            parts = enumerate(up.split(list(rows[site])))
            out |= {f"{site}/{number}": (part, down) for number, part in parts}
        else:
            out[site] = up, down
    return out
