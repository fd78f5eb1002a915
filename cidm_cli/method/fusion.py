"""Static merges: several concepts' low-rank weights made into one, with no routing left.

| symbol | here | shape |
|---|---|---|
| A_i, B_i | ``up``, ``down`` of concept i at one site, its scale and weight in ``up`` | [out, r_i], [r_i, in] |
| ΔW_i | A_i B_i | [out, in] |
| X_i | the features concept i's prompts feed the site, one column each | [in, n_i] |
| C_i | X_i X_iᵀ, the Gram matrix of X_i | [in, in] |
| S_i | ``seen[i]``: B_i C_i | [r_i, in] |
| G | ``gram``: Σ_i C_i | [in, in] |
| C_reg | ``regular``: the Gram matrix of features of prompts without a concept | [in, in] |
| K, λ | number of concepts; ``preserve`` | |
| D | the merged weight, itself in two factors | [out, in] |
| Q | ``rank_axes``: orthonormal rows that span those of all B_i | [k, in] |
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor]
"""(up [out, r], down [r, in]); the weight is their product."""


def concatenated(factors: Sequence[tuple[Tensor, Tensor, float]]) -> Factors:
    """Σ_i w_i A_i B_i in two factors of rank Σ r_i, exactly; one concept at weight 1 comes back to the bit.

    Args:
        factors: (up [out, r_i], down [r_i, in], w_i) of each concept.
    """
    up = torch.cat([weight * up for up, _, weight in factors], 1)
    return up, torch.cat([down for _, down, _ in factors])


def rank_axes(downs: Sequence[Tensor]) -> Tensor:
    """Q [min(Σ r_i, in), in], float64: orthonormal rows that span those of all B_i [r_i, in].

    Rank-space least squares (SSR-Merge, arXiv 2606.10617) — D = argmin Σ_i ‖ΔW_i X_i - D X_i‖² over all D = A R B,
    with A, B all concepts' factors side by side. The best D = D' Q is of that form, and ΔW_i X_i = A_i (B_i Qᵀ)(Q X_i),
    so it is what ``fused`` makes of Q X_i and B_i Qᵀ, times Q. What has to be kept of the features is k × k, and not
    in × in; where the concepts' rows span the whole input, the two are one.
    """
    return torch.linalg.qr(torch.cat(list(downs)).double().T).Q.T


def fused(
    ups: Sequence[Tensor],
    seen: Sequence[Tensor],
    gram: Tensor,
    regular: Tensor,
    preserve: float,
    *,
    ridge: float = 1e-6,
) -> Factors:
    """D = argmin Σ_i ‖ΔW_i X_i - D X_i‖² + Kλ‖D X_reg‖² + ε‖D‖², in closed form, in two factors of rank Σ r_i.

    The minimum is D = (Σ_i ΔW_i C_i) M⁻¹ with M = G + Kλ C_reg + ε I. As ΔW_i = A_i B_i this is Σ_i A_i (S_i M⁻¹):
    a LoRA whose ups are the concepts' own, and nothing is lost by writing it as one. Each concept acts on its own
    prompts as if it were alone, as far as one matrix can, and prompts without a concept are left alone. λ weighs them
    against all concepts together: a hundred leave them as much alone as one. Relatives: Custom Diffusion's constrained
    merge (Kumari et al. 2023), Mix-of-Show's gradient fusion (Gu et al. 2023), RegMean (Jin et al. 2023).

    Args:
        ups: A_i [out, r_i] of each concept; r_i may be 0 for a concept that leaves this site as it is.
        seen: S_i = B_i C_i [r_i, in], float64. Sums over concepts are all that is needed of the features, so that
            no more than one concept's Gram matrix has to be held.
        gram: G [in, in], float64.
        regular: C_reg [in, in], float64.
        preserve: λ.
        ridge: ε over the mean eigenvalue of G + Kλ C_reg: a direction that no feature has is left as it was.

    Returns:
        up [out, Σ r_i] and down [Σ r_i, in], in the precision of ``ups``.
    """
    width = gram.shape[0]
    M = gram + len(ups) * preserve * regular
    # Features that are all zero ask for nothing, and get it: any positive ε will do.
    epsilon = ridge * float(M.trace()) / width or 1.0
    M = M + epsilon * torch.eye(width, dtype=M.dtype, device=M.device)
    down = torch.cholesky_solve(torch.cat(list(seen)).T, torch.linalg.cholesky(M)).T
    up = torch.cat(list(ups), 1)
    return up, down.to(up.dtype).contiguous()


def strayed(
    merged: Factors,
    ups: Sequence[Tensor],
    downs: Sequence[Tensor],
    seen: Sequence[Tensor],
    gram: Tensor,
) -> tuple[float, float]:
    """Σ_i ‖ΔW_i X_i - D X_i‖² and Σ_i ‖ΔW_i X_i‖²: how far a merge D is from every concept on its own features.

    Args:
        merged: D in two factors.
        ups, downs: A_i and B_i of each concept.
        seen, gram: as in ``fused``.
    """
    up, down = merged[0].double(), merged[1].double()
    A, S = torch.cat(list(ups), 1).double(), torch.cat(list(seen))
    own = 0.0
    for one, low, view in zip(ups, downs, seen, strict=True):
        own += float(((one.double().T @ one.double()) * (view @ low.double().T)).sum())
    across = float(((up.T @ A) * (down @ S.T)).sum())
    whole = float(((up.T @ up) * (down @ gram @ down.T)).sum())
    return max(own - 2 * across + whole, 0.0), own


def truncated(up: Tensor, down: Tensor, rank: int) -> Factors:
    """The best approximation of A B of the given rank (Eckart-Young), never forming the product.

    With A = Q_1 R_1 and Bᵀ = Q_2 R_2 it is Q_1 SVD_k(R_1 R_2ᵀ) Q_2ᵀ; both factors carry the root of each singular
    value. A rank above the product's own size is cut to it.
    """
    left, R1 = torch.linalg.qr(up.double())
    right, R2 = torch.linalg.qr(down.double().T)
    U, values, Vt = torch.linalg.svd(R1 @ R2.T, full_matrices=False)
    roots = values[:rank].sqrt()
    return (left @ (U[:, :rank] * roots)).to(up.dtype), (roots[:, None] * (Vt[:rank] @ right.T)).to(up.dtype)


def energy(up: Tensor, down: Tensor) -> float:
    """‖A B‖_F² from r×r products. What ``truncated`` loses is the difference of energies before and after."""
    one, other = up.double(), down.double()
    return float(((one.T @ one) * (other @ other.T)).sum())
