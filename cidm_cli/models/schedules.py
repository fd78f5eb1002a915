"""Noise schedules, as bases describe them: what training noises by, and the samplers that follow them.

A schedule's ``prediction_type`` is the objective. "epsilon" and "v_prediction" are of diffusion; "flow_prediction" is
rectified flow: noise σ of a picture's 1 - σ, along a straight line (Liu et al. 2023; Esser et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch

FLOW = "flow_prediction"
#: Names for ``--sampler``, and the diffusers scheduler behind each.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    # Where a configuration does not say, DDIM clips what it takes for pixels; latents reach further.
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
}
#: The same for rectified flow.
FLOW_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_flow_sigmas": True}),
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {"use_flow_sigmas": True}),
    "heun": ("FlowMatchHeunDiscreteScheduler", {}),
}


@dataclass(frozen=True)
class Schedule:
    """What training noises by: timesteps are drawn evenly from its entries."""

    signal: torch.Tensor
    """Of each entry, how much of the picture is left (``method.objective``) [entries]"""
    times: torch.Tensor
    """The timestep that the denoiser is told of each [entries]"""


def training(config: dict[str, Any], device: torch.device) -> Schedule:
    """The schedule of training, of a base's scheduler settings."""
    if is_flow(config):
        made = scheduler(config, "euler")
        # From the least noise to the most, as diffusion's are.
        sigmas, times = made.sigmas.flip(0), made.timesteps.flip(0)
        return Schedule((1 - sigmas).to(device), times.to(device))
    signal = diffusers.DDPMScheduler.from_config(config).alphas_cumprod.to(device)
    return Schedule(signal, torch.arange(len(signal), device=device))


def is_flow(config: dict[str, Any]) -> bool:
    """Whether a schedule is one of rectified flow."""
    return config.get("prediction_type") == FLOW


def scheduler(config: dict[str, Any], sampler: str) -> diffusers.SchedulerMixin:
    """A fresh scheduler of the named kind on a noise schedule."""
    name, extra = (FLOW_SAMPLERS if is_flow(config) else SAMPLERS)[sampler]
    if "use_flow_sigmas" in extra:
        extra = {**extra, "flow_shift": config.get("shift", 1.0)}
    elif is_flow(config):
        # They know no other objective, and would warn of its name.
        config = {key: value for key, value in config.items() if key != "prediction_type"}
    return getattr(diffusers, name).from_config(config, **extra)


def shifted(
    config: dict[str, Any], sampler: str, steps: int, shift: float, device: torch.device
) -> diffusers.SchedulerMixin:
    """A scheduler of a rectified flow that shifts noise σ to shift σ / (1 + (shift - 1) σ), its timesteps set."""
    made = scheduler({**config, "use_dynamic_shifting": False, "shift": shift}, sampler)
    # Where it takes them, the even levels before the shift are those that such models were made for.
    even = {"sigmas": np.linspace(1, 1 / steps, steps)} if sampler == "euler" else {}
    made.set_timesteps(steps, device=device, **even)
    return made


def knows(config: dict[str, Any], sampler: str) -> bool:
    """Whether a sampler can follow a noise schedule: one does not start from noise without any signal."""
    if is_flow(config):
        return sampler in FLOW_SAMPLERS
    return sampler != "heun" or not config.get("rescale_betas_zero_snr")


def check_schedule(config: dict[str, Any]) -> None:
    """Tries every sampler on a noise schedule. Raises what diffusers raises, or ValueError, for none that can be."""
    # A shift by the size of the picture is worked out when one is drawn.
    config = {**config, "use_dynamic_shifting": False} if is_flow(config) else config
    for sampler in SAMPLERS:
        if knows(config, sampler):
            made = scheduler(config, sampler)
            made.set_timesteps(2)
            shares = made.sigmas if is_flow(config) else made.alphas_cumprod
            if (
                shares.ndim != 1
                or not ((shares >= 0) & (shares <= 1)).all()
                or not made.timesteps.isfinite().all()
            ):
                raise ValueError("its noise schedule is none")
