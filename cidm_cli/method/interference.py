"""How much concepts stand in each other's way: overlap of their subspaces, and room for more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def basis(up: Tensor) -> Tensor:
    """Ū: an orthonormal basis of the space the columns of ``up`` [out, r] span, [out, rank of up], float64.

    Columns that are zero, or that the others span up to rounding, add nothing.
    """
    U, values, _ = torch.linalg.svd(up.double(), full_matrices=False)
    if not values.numel():
        return U
    smallest = values[0] * max(up.shape) * torch.finfo(up.dtype).eps
    return U[:, values > smallest]


def overlap(one: Tensor, other: Tensor) -> float:
    """‖Ū_iᵀŪ_j‖_F² / r, with r the smaller rank: 0 for orthogonal subspaces, 1 where one holds the other.

    Args:
        one, other: orthonormal bases [out, r_i] and [out, r_j]. Of an empty one the overlap is 0.
    """
    rank = min(one.shape[1], other.shape[1])
    return float((one.T @ other).square().sum()) / rank if rank else 0.0


def free(ups: Sequence[Tensor]) -> int:
    """Dimensions of a site's output that no concept's low-rank weight reaches: out - rank of all ups [out, r_i]."""
    return ups[0].shape[0] - basis(torch.cat(list(ups), 1)).shape[1]
