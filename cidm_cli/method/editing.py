"""Drawing over a given picture: style transfer (SDEdit) and editing in a mask (Blended Latent Diffusion).

The paper gives no method for either; these are this project's choice.

| symbol | here | shape |
|---|---|---|
| z_0 | the given picture's latents | [batch, channels, h, w] |
| ε | the noise drawing starts from | like z_0 |
| z_t | latents at a noise level, signal · z_0 + spread · ε | like z_0 |
| m | mask: 1 where the picture is drawn anew | [batch, 1, h, w] |
"""

from __future__ import annotations

import torch


def first_step(strength: float, steps: int) -> int:
    """How many of ``steps`` denoising steps are left out, so that the share ``strength`` of them is taken.

    SDEdit (Meng et al. 2022, arXiv 2108.01073), section 3: denoising begins at t_0 = ``strength``, in 0..1, of the
    schedule; at 0 nothing is drawn anew, at 1 everything is.
    """
    return steps - int(strength * steps + 0.5)


def noised(clean: torch.Tensor, noise: torch.Tensor, signal: float, spread: float) -> torch.Tensor:
    """z_t = signal · z_0 + spread · ε: the given picture at a sampler's noise level."""
    return signal * clean + spread * noise


def less_clean(
    latents: torch.Tensor,
    prediction: torch.Tensor,
    kind: str,
    at: tuple[float, float],
    to: tuple[float, float],
) -> torch.Tensor:
    """DDIM's step taken backwards, z_t → z_t' with t' > t: the same ẑ_0 and ε̂ at a noisier level.

    DDIM inversion (Song et al. 2021, arXiv 2010.02502, section 4.3; Mokady et al. 2023, arXiv 2211.09794, eq. 3).

    Args:
        latents, prediction: like z_0; the prediction is what the base says of the latents at the level ``to``.
        kind: what the base predicts: "epsilon", or "v_prediction".
        at, to: (signal, spread) of the latents and of the result, with signal² + spread² = 1.
    """
    signal, spread = at
    if kind == "epsilon":
        noise = prediction
        clean = (latents - spread * noise) / signal
    elif kind == "v_prediction":
        clean = signal * latents - spread * prediction
        noise = spread * latents + signal * prediction
    else:
        raise ValueError(f"unknown prediction type {kind!r}")
    return noised(clean, noise, *to)


def noise_in(latents: torch.Tensor, clean: torch.Tensor, signal: float, spread: float) -> torch.Tensor:
    """ε = (z_t - signal · z_0) / spread: what noise turns the given picture into these latents."""
    return (latents - signal * clean) / spread


def varied(noise: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """√(1 - share²) ε + share · ε': another noise near ε, of variance 1 where both are."""
    return (1 - share**2) ** 0.5 * noise + share * other


def blended(drawn: torch.Tensor, given: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """z_t ← m ⊙ drawn + (1 - m) ⊙ given, both at one noise level.

    Blended Latent Diffusion (Avrahami et al. 2023, arXiv 2206.02779), algorithm 1. Where m is 0 or 1 the result is one
    of the two exactly.
    """
    return mask * drawn + (1 - mask) * given
