"""Drawing: schedulers, the guided denoising loop, latents to pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import nn

from ..errors import CidmError, ExitCode
from . import schedules
from .base import Base
from .offload import present
from .structure import Condition
from .tiling import tiled
from .whole import joined


def make_scheduler(base: Base, sampler: str) -> diffusers.SchedulerMixin:
    """A fresh scheduler of the named kind on the base's own noise schedule.

    Raises:
        CidmError: USAGE for a sampler that does not know that kind of schedule.
    """
    if not schedules.knows(base.scheduler_config, sampler):
        why = "is one of rectified flow" if base.prediction == schedules.FLOW else "ends without any signal"
        others = [name for name in schedules.SAMPLERS if schedules.knows(base.scheduler_config, name)]
        raise CidmError(
            f"--sampler {sampler}: does not know this base's noise schedule, which {why}",
            hint=f"use {', '.join(others[:-1])} or {others[-1]}",
            code=ExitCode.USAGE,
        )
    return schedules.scheduler(base.scheduler_config, sampler)


def timed_scheduler(base: Base, sampler: str, steps: int, cells: int) -> diffusers.SchedulerMixin:
    """As ``make_scheduler``, with the timesteps at which latents of so many cells are drawn in so many steps."""
    made, config, shift = make_scheduler(base, sampler), base.scheduler_config, base.family.shift
    if schedules.is_flow(config):
        by = shift(cells, steps) if shift else config.get("shift", 1.0)
        return schedules.shifted(config, sampler, steps, by, base.device)
    made.set_timesteps(steps, device=base.device)
    return made


def steps_between(steps: int, start: float, until: float) -> frozenset[int]:
    """The sampling steps that lie wholly between two shares of all steps."""
    return frozenset(n for n in range(steps) if start <= n / steps and (n + 1) / steps <= until)


def initial_noise(base: Base, seeds: Sequence[int], size: tuple[int, int]) -> torch.Tensor:
    """Standard normal latents [len(seeds), channels, height/f, width/f]; each picture's depends on its seed alone."""
    width, height = (side // base.factor for side in size)
    shape = (base.architecture.channels(base), height, width)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


Estimate = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""ε̂ (or v̂) of scaled latents [batch, channels, h, w] at a timestep, guidance included; told the sampling step's number.

Of the steps that are taken, from 0. A sampler that looks more than once a step asks several times with one number:
what changes from step to step must not change in the middle of one.
"""


def guided(
    base: Base,
    conditional: Sequence[torch.Tensor],
    unconditional: Sequence[torch.Tensor],
    guidance: float,
    *,
    pooled: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
    followed: Callable[[int], Condition | None] = lambda step: None,
) -> Estimate:
    """Classifier-free guidance of one prompt's prediction away from another's.

    ``conditional`` and ``unconditional`` hold, for each layer, text embeddings [batch, tokens, width]. ``pooled`` are
    the prompts as wholes, conditional and unconditional [batch, width], where the base wants them. ``followed`` tells,
    for a step's number, the structure that the 2 batch rows follow. A base that is not ``guided`` is asked with the
    prompt alone.
    """
    if not base.family.guided:
        return lambda latents, t, step: base.predict(
            latents, t, conditional, pooled[0], followed=followed(step)
        )
    both = joined(unconditional, conditional)
    given_whole, without_whole = pooled
    wholes = None if given_whole is None or without_whole is None else torch.cat([without_whole, given_whole])

    def estimate(latents: torch.Tensor, t: torch.Tensor, step: int) -> torch.Tensor:
        two = base.predict(torch.cat([latents, latents]), t, both, wholes, followed=followed(step))
        without, given = two.chunk(2)
        return without + guidance * (given - without)

    return estimate


@dataclass(frozen=True)
class Level:
    """How noisy a sampler's latents are: signal · clean + noise · ε, with ε standard normal."""

    signal: float
    noise: float


CLEAN = Level(1.0, 0.0)


def levels(scheduler: diffusers.SchedulerMixin, sampler: str) -> list[Level]:
    """Of the latents before each evaluation, and, clean, after the last; its timesteps must be set."""
    if sampler == "ddim":
        shares = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps]
        return [*(Level(share**0.5, (1 - share) ** 0.5) for share in shares), CLEAN]
    if not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("use_flow_sigmas"):
        return [*(Level(1 - float(sigma), float(sigma)) for sigma in scheduler.sigmas[:-1]), CLEAN]
    # The last of them is left out: a configuration may end a little above 0, and decoding knows only clean ones.
    sigmas = [float(sigma) for sigma in scheduler.sigmas[:-1]]
    if sampler in ("euler", "heun"):
        return [*(Level(1.0, sigma) for sigma in sigmas), CLEAN]
    shrink = [(1 + sigma**2) ** -0.5 for sigma in sigmas]
    return [*(Level(share, sigma * share) for share, sigma in zip(shrink, sigmas, strict=True)), CLEAN]


@torch.no_grad()
def denoise(
    base: Base,
    estimate: Estimate,
    noise: torch.Tensor,
    *,
    sampler: str,
    steps: int,
    first: int = 0,
    last: int | None = None,
    begin: Callable[[Level], torch.Tensor] | None = None,
    keep: Callable[[torch.Tensor, Level], torch.Tensor] = lambda latents, level: latents,
    on_step: Callable[[int], None] = lambda step: None,
    on_look: Callable[[torch.Tensor], None] = lambda latents: None,
    beside: Sequence[nn.Module] = (),
) -> torch.Tensor:
    """Latents drawn from ``noise`` [batch, channels, h, w], following ``estimate``.

    Args:
        first: steps of the ``steps`` that are left out, from the noisy end.
        last: the step after which to stop, else all are done; what comes then is still as noisy as it says.
        begin: the latents to start from, at the level they must have; else they are ``noise`` alone.
        keep: changes latents, given their level, before the first evaluation and after each one.
        on_step: hears 1, 2, …, ``last`` - ``first``, also from a sampler that looks more than once a step.
        on_look: sees, at each step, the clean latents that the sampler expects, where it tells them, else those it has.
        beside: what is asked at every step besides the denoiser.
    """
    scheduler = timed_scheduler(base, sampler, steps, noise.shape[-2:].numel())
    passed = levels(scheduler, sampler)
    last = steps if last is None else last
    start, end = (min(step * scheduler.order, len(scheduler.timesteps)) for step in (first, last))
    if start and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    whole = getattr(scheduler, "init_noise_sigma", 1.0)
    latents = noise.to(base.device) * whole if begin is None else begin(passed[start])
    latents = keep(latents, passed[start])
    done = 0
    with present(base.device, base.denoiser, *beside), base.autocast():
        for number, t in enumerate(scheduler.timesteps[start:end], start):
            step = (number - start) // scheduler.order
            prediction = estimate(_scaled(scheduler, latents, t), t, step)
            stepped = scheduler.step(prediction, t, latents)
            latents = keep(stepped.prev_sample, passed[number + 1])
            if (number + 1 - start) * (last - first) // (end - start) > done:
                done += 1
                on_step(done)
                # Multistep samplers do not return what they expect, but keep it.
                expected = (getattr(scheduler, "model_outputs", None) or [latents])[-1]
                on_look(stepped.get("pred_original_sample", expected))
    return latents


def _scaled(scheduler: diffusers.SchedulerMixin, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Latents as the denoiser takes them; along a straight line there is nothing to scale."""
    return scheduler.scale_model_input(latents, t) if hasattr(scheduler, "scale_model_input") else latents


@torch.no_grad()
def decoded(base: Base, latents: torch.Tensor) -> torch.Tensor:
    """Pixels [N, 3, height, width], from -1 to 1 and a little beyond, of unscaled sampler latents."""
    height, width = (side * base.factor for side in latents.shape[-2:])
    with present(base.device, base.vae), tiled(base, (width, height)), base.vae_autocast():
        return base.architecture.to_pixels(base, latents)


def decode(base: Base, latents: torch.Tensor) -> list[Image.Image]:
    """RGB pictures of unscaled sampler latents."""
    pixels = decoded(base, latents)
    array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in array]


@torch.no_grad()
def encode(base: Base, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the scaled latents of RGB pictures of one size, each [N, channels, h, w]."""
    array = np.stack([np.asarray(image.convert("RGB"), dtype=np.uint8) for image in images])
    pixels = torch.from_numpy(array).permute(0, 3, 1, 2).float().to(base.device) / 127.5 - 1
    with present(base.device, base.vae), tiled(base, images[0].size), base.vae_autocast():
        return base.architecture.to_latents(base, pixels)
