"""The training objective.

| symbol | here | shape |
|---|---|---|
| z_0, z_t | clean and noised latents | [batch, channels, h, w] |
| ε | the noise added | like z_0 |
| ᾱ_t | signal: share of the clean latents' variance left at timestep t | [batch] |
| 1-σ_t | signal, where the base is one of rectified flow: share of the clean latents themselves | [batch] |
"""

from __future__ import annotations

import torch


def noised(kind: str, clean: torch.Tensor, noise: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """z_t = √ᾱ z_0 + √(1-ᾱ) ε (Ho et al. 2020, eq. 4); of flows z_t = (1-σ) z_0 + σ ε (Liu et al. 2023)."""
    signal = signal.view(-1, 1, 1, 1)
    if kind == "flow_prediction":
        return signal * clean + (1 - signal) * noise
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def target(kind: str, clean: torch.Tensor, noise: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """What the base predicts: ε ("epsilon"), v = √ᾱ ε - √(1-ᾱ) z_0 ("v_prediction", Salimans & Ho 2022), or the
    velocity ε - z_0 of a straight line ("flow_prediction", Liu et al. 2023)."""
    if kind == "flow_prediction":
        return noise - clean
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        signal = signal.view(-1, 1, 1, 1)
        return signal.sqrt() * noise - (1 - signal).sqrt() * clean
    raise ValueError(f"unknown prediction type {kind!r}")


def min_snr_weight(kind: str, signal: torch.Tensor, gamma: float) -> torch.Tensor:
    """Weight of each timestep's loss, min(SNR, γ) / SNR for ε and min(SNR, γ) / (SNR + 1) for v (Hang et al. 2023).

    SNR = ᾱ / (1-ᾱ). Both weight the error of the clean latents by min(SNR, γ). So does
    σ² min(SNR, γ) for a velocity, with SNR = (1-σ)² / σ². [batch]
    """
    if kind == "flow_prediction":
        return torch.minimum(signal**2, gamma * (1 - signal) ** 2)
    if kind == "epsilon":
        # As a quotient of γ, so that it is 1 and not 0 / 0 where no signal is left.
        return (gamma * (1 - signal) / signal).clamp_max(1)
    if kind == "v_prediction":
        # min(ᾱ / (1-ᾱ), γ) times 1-ᾱ, which is 1 / (SNR + 1).
        return torch.minimum(signal, gamma * (1 - signal))
    raise ValueError(f"unknown prediction type {kind!r}")


def denoising_loss(
    prediction: torch.Tensor,
    wanted: torch.Tensor,
    mask: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Eq. 1 — ‖ε - ε_θ'(z_t | c_g, t)‖², mean over elements and batch; a scalar.

    Args:
        prediction, wanted: [batch, channels, h, w].
        mask: weights [batch, 1, h, w]; each picture's loss is its weighted mean over the cells.
        weights: factor on each picture's loss [batch].
    """
    error = (prediction - wanted) ** 2
    if weights is not None:
        error = error * weights.view(-1, 1, 1, 1)
    if mask is None:
        return error.mean()
    shares = mask.expand_as(error)
    return ((error * shares).sum((1, 2, 3)) / shares.sum((1, 2, 3)).clamp_min(1e-6)).mean()
