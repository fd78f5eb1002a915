"""Noise schedules, as bases describe them, and the samplers that follow them."""

from __future__ import annotations

from typing import Any

import diffusers

#: Names for ``--sampler``, and the diffusers scheduler behind each.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    # Where a configuration does not say, DDIM clips what it takes for pixels; latents reach further.
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
}


def scheduler(config: dict[str, Any], sampler: str) -> diffusers.SchedulerMixin:
    """A fresh scheduler of the named kind on a noise schedule."""
    name, extra = SAMPLERS[sampler]
    return getattr(diffusers, name).from_config(config, **extra)


def knows(config: dict[str, Any], sampler: str) -> bool:
    """Whether a sampler can follow a noise schedule: one does not start from noise without any signal."""
    return sampler != "heun" or not config.get("rescale_betas_zero_snr")


def check_schedule(config: dict[str, Any]) -> None:
    """Tries every sampler on a noise schedule. Raises what diffusers raises, or ValueError, for none that can be."""
    for sampler in SAMPLERS:
        if knows(config, sampler):
            made = scheduler(config, sampler)
            made.set_timesteps(2)
            shares = made.alphas_cumprod
            if (
                shares.ndim != 1
                or not ((shares >= 0) & (shares <= 1)).all()
                or not made.timesteps.isfinite().all()
            ):
                raise ValueError("its noise schedule is none")
