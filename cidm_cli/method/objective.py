"""The training objective.

| symbol | here | shape |
|---|---|---|
| z_0, z_t | clean and noised latents | [batch, channels, h, w] |
| ε | the noise added | like z_0 |
| ᾱ_t | signal: share of the clean latents' variance left at timestep t | [batch] |
"""

from __future__ import annotations

import torch


def noised(clean: torch.Tensor, noise: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """z_t = √ᾱ z_0 + √(1-ᾱ) ε (Ho et al. 2020, eq. 4)."""
    signal = signal.view(-1, 1, 1, 1)
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def target(kind: str, clean: torch.Tensor, noise: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """What the base predicts: ε ("epsilon"), or v = √ᾱ ε - √(1-ᾱ) z_0 ("v_prediction", Salimans & Ho 2022)."""
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        signal = signal.view(-1, 1, 1, 1)
        return signal.sqrt() * noise - (1 - signal).sqrt() * clean
    raise ValueError(f"unknown prediction type {kind!r}")


def denoising_loss(
    prediction: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Eq. 1 — ‖ε - ε_θ'(z_t | c_g, t)‖², mean over elements and batch; a scalar.

    Args:
        prediction, wanted: [batch, channels, h, w].
        mask: weights [batch, 1, h, w]; each picture's loss is its weighted mean over the cells.
    """
    error = (prediction - wanted) ** 2
    if mask is None:
        return error.mean()
    weights = mask.expand_as(error)
    return ((error * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp_min(1e-6)).mean()
