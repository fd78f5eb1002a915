"""Pictures into latents and back by diffusers' AutoencoderKL, whatever denoises them."""

from __future__ import annotations

import torch

from .base import Base


def factor(base: Base) -> int:
    """Pixels a latent cell spans."""
    return 2 ** (len(base.vae.config.block_out_channels) - 1)


def to_latents(base: Base, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the scaled latents of pixels."""
    config, posterior = base.vae.config, base.vae.encode(pixels).latent_dist
    mean = (posterior.mean.float() - (config.shift_factor or 0.0)) * config.scaling_factor
    return mean, posterior.std.float() * config.scaling_factor


def to_pixels(base: Base, latents: torch.Tensor) -> torch.Tensor:
    """The way back."""
    config = base.vae.config
    return base.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0.0)).sample.float()
