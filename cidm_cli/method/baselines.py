"""What the baselines add to Eq. 1, each on the low-rank weights in training.

| symbol | here | shape |
|---|---|---|
| θ, θ* | numbers of the LoRA in training; as the concept before left them (``anchor``) | any, alike |
| F | ``fisher``: diagonal Fisher information of the denoising loss | like θ |
| ε_θ, ε_θ* | predictions of the model in training and of the one before | [batch, channels, h, w] |
| A_t, B_t | ``up``, ``down`` of the new concept at a site; ΔW_t = scale · A_t B_t | [out, r], [r, in] |
| Σ_{t'<t} ΔW_t' | ``older``: the older concepts' weights of that site, added up | [out, in] |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

Factors = tuple[torch.Tensor, torch.Tensor]
"""(up [out, r], down [r, in]) of one site."""


def fisher_diagonal(gradients: Iterable[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """EWC's F of one concept — the mean over draws of the loss's squared gradient (the empirical Fisher information).

    Args:
        gradients: of each draw, one sample each, the gradient of Eq. 1 with respect to every tensor of θ.

    Raises:
        ValueError: without draws.
    """
    total: list[torch.Tensor] = []
    count = 0
    for gradient in gradients:
        squares = [g.square() for g in gradient]
        total = [t + s for t, s in zip(total, squares, strict=True)] if total else squares
        count += 1
    if not count:
        raise ValueError("the Fisher information needs at least one draw")
    return [t / count for t in total]


def accumulated(older: Sequence[torch.Tensor], new: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """EWC's F of all concepts so far: the older ones' sum, empty for the first concept, and the new one's."""
    return [f + g for f, g in zip(older, new, strict=True)] if older else list(new)


def anchored(
    theta: Sequence[torch.Tensor], anchor: Sequence[torch.Tensor], fisher: Sequence[torch.Tensor]
) -> torch.Tensor:
    """EWC — ½ Σ F (θ − θ*)² over all numbers; a scalar, before λ (Kirkpatrick et al. 2017, eq. 3).

    F is the sum over all concepts so far, and θ* the last one's: the online form, which keeps one F and one θ*
    however many concepts there are (Schwarz et al. 2018, with γ = 1).
    """
    parts = [(f * (t - a).square()).sum() for t, a, f in zip(theta, anchor, fisher, strict=True)]
    return torch.stack(parts).sum() / 2


def distillation(prediction: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    """LwF — ‖ε_θ(z_t | c_i, t) − ε_θ*(z_t | c_i, t)‖², mean over elements and batch; a scalar.

    Learning without Forgetting (Li & Hoiem 2016) on a denoiser: c_i is a text that names an older concept, z_t comes
    from the new one's pictures. Gradients flow into ``prediction`` alone.
    """
    return (prediction - previous.detach()).square().mean()


def self_regularisation(
    factors: Mapping[str, Factors], older: Mapping[str, torch.Tensor], scale: float
) -> torch.Tensor:
    """C-LoRA — ‖ |Σ_{t'<t} ΔW_t'| ⊙ ΔW_t ‖_F², mean over the sites; a scalar (Smith et al. 2023).

    The square, under which the bars make no difference, is summed over a site's entries. The mean over sites is
    this project's: it keeps the term's size from growing with the base's depth. A site that no older concept has
    counts as zero.

    Raises:
        ValueError: when they have no site in common.
    """
    here = [site for site in factors if site in older]
    if not here:
        raise ValueError("the older concepts have none of the sites in training")
    parts = [(older[site] * (scale * (factors[site][0] @ factors[site][1]))).square().sum() for site in here]
    return torch.stack(parts).sum() / len(factors)
