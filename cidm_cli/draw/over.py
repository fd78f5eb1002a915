"""Drawing over given pictures: they are encoded, noised, and denoised under a concept's prompt.

Style transfer draws all of a picture anew, from as much noise as its structure may lose. Editing draws a part of it;
what is outside keeps every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from cidm_registry import Registry

from ..data import place
from ..files.given import Given
from ..method import editing
from ..models import sampling
from ..models.base import Base
from ..models.family import Rows
from ..models.offload import present
from ..options.declared import settled
from ..options.draw import PromptOptions, resolve_draw
from .choices import chosen
from .jobs import Job, Over, check_size
from .over_jobs import EditTask, Part, StyleTask
from .patches import Box, feathered, fitting_size, pasted, touched, window_around
from .scenes import WITHOUT, Scene
from .scenes import Part as Pictures

VARIATION = 0.3
"""Share of a seed's own noise beside the noise found in a picture: enough that seeds differ."""
CONTEXT = 1.5
"""Side of the square that is drawn, over the longer side of an edited part: what is around it is seen, and fits in."""


def jobs(registry: Registry, base: Base, task: StyleTask | EditTask) -> list[Job]:
    """A job for each given picture, in order.

    Raises:
        CidmError: USAGE for a size that this base cannot draw.
    """
    asked = task.options
    options = resolve_draw({**asked.draw, "size": asked.size}, registry.base.kind, base.pixels)
    check_size(asked.size, base.multiple)
    if isinstance(task, StyleTask):
        every = [_styled(base, task, given) for given in task.pictures]
    else:
        every = [_edited(base, task, part) for part in task.parts]
    read = settled(PromptOptions, asked.read)
    sized = [Job(task.prompt, replace(options, size=over.image.size), over=over) for over in every]
    return [one for job in sized for one in chosen(job, read)]


def first(job: Job) -> int:
    """Denoising steps that are left out."""
    return editing.first_step(job.over.strength, job.options.steps) if job.over else 0


def inverts(job: Job) -> bool:
    """Whether noise is found in a given picture first."""
    return job.over is not None and job.over.invert and first(job) > 0


def steps(job: Job) -> int:
    """Denoising steps of each of a job's pictures, forwards and backwards."""
    return (job.options.steps - first(job)) * (2 if inverts(job) else 1)


@dataclass(frozen=True)
class Begun:
    """Where a batch's denoising begins, as ``sampling.denoise`` takes it."""

    noise: torch.Tensor
    first: int = 0
    begin: Callable[[sampling.Level], torch.Tensor] | None = None
    keep: Callable[[torch.Tensor, sampling.Level], torch.Tensor] = lambda latents, level: latents


def begun(
    base: Base,
    scene: Scene,
    batch: Sequence[Pictures],
    noise: torch.Tensor,
    on_step: Callable[[], None] = lambda: None,
) -> Begun:
    """Of noise alone, or of noise and given pictures; the base must have its own weights where noise is found in them.

    At strength 0 nothing is denoised: what comes is the autoencoder's round trip.
    """
    given = [part.job.over for part in batch for _ in part.seeds if part.job.over]
    if not given:
        return Begun(noise)
    clean, _ = sampling.encode(base, [over.image for over in given])
    noise = noise.to(clean)
    start = first(scene.jobs[0])
    if inverts(scene.jobs[0]):
        noise = editing.varied(noise_found(base, scene, batch, clean, start, on_step), noise, VARIATION)

    def at(level: sampling.Level) -> torch.Tensor:
        return editing.noised(clean, noise, level.signal, level.noise)

    def keep(latents: torch.Tensor, level: sampling.Level) -> torch.Tensor:
        return latents if cells is None else editing.blended(latents, at(level), cells)

    masks = [torch.from_numpy(over.cells)[None] for over in given if over.cells is not None]
    cells = torch.stack(masks).to(clean) if masks else None
    return Begun(noise, start, at if start else None, keep)


@torch.no_grad()
def noise_found(
    base: Base,
    scene: Scene,
    batch: Sequence[Pictures],
    clean: torch.Tensor,
    first: int,
    on_step: Callable[[], None],
) -> torch.Tensor:
    """DDIM inversion: the noise, like ``clean``, from which the base denoises to these latents under no prompt.

    Without guidance, under the negative prompt, one evaluation a step, up to the level where ``first`` steps remain.
    """
    scheduler = sampling.timed_scheduler(base, "ddim", scene.options.steps, clean.shape[-2:].numel())
    levels = sampling.levels(scheduler, "ddim")
    said = Rows(tuple(start + WITHOUT for start in scene.starts(batch)), (), torch.zeros)
    rows = scene.way.arranged(base, scene.cache, said, scene.cells)
    latents, at = clean, levels[-1]
    with present(base.device, base.denoiser):
        for number in reversed(range(first, scene.options.steps)):
            to = levels[number]
            prediction = scene.way.predict(base, latents, scheduler.timesteps[number], rows)
            latents = editing.less_clean(
                latents, prediction, base.prediction, (at.signal, at.noise), (to.signal, to.noise)
            )
            at = to
            on_step()
    return editing.noise_in(latents, clean, at.signal, at.noise) if at.noise else torch.zeros_like(clean)


def _styled(base: Base, task: StyleTask, given: Given) -> Over:
    options = task.options
    size = options.size or fitting_size(given.image.size, base.pixels, base.multiple)
    image = place(given.image, size, crop=1.0, shift=(0.0, 0.0), mirror=False)
    told = _told("stylize", task, given)
    return Over(given, image, told, lambda drawn: drawn, options.strength, options.invert)


def _edited(base: Base, task: EditTask, part: Part) -> Over:
    given, options = part.given, task.options
    whole = (0, 0, *given.image.size)
    window = window_around(part.box, given.image.size, CONTEXT) if options.crop else whole
    extent = (window[2] - window[0], window[3] - window[1])
    size = options.size or fitting_size(extent, base.pixels, base.multiple)
    image = given.image.resize(size, Image.Resampling.LANCZOS, box=window, reducing_gap=3.0)
    cells: np.ndarray = touched(part.mask.crop(window), (size[0] // base.factor, size[1] // base.factor))
    mask = None if task.mask is None else {"name": task.mask.path.name, "sha256": task.mask.sha256}
    told = {**_told("edit", task, given), "box": list(part.box), "window": list(window), "mask": mask}
    finish = partial(_put_back, part, window, options.feather)
    return Over(given, image, told, finish, options.strength, cells=cells)


def _told(command: str, task: StyleTask | EditTask, given: Given) -> dict[str, Any]:
    """What a picture says of what it was drawn over; its size is the drawn one's."""
    return {
        "command": command,
        "concept": task.record.name,
        "options": {
            name: value for name, value in vars(task.options).items() if name not in ("draw", "read")
        },
        "picture": {"name": given.path.name, "sha256": given.sha256, "size": list(given.image.size)},
    }


def _put_back(part: Part, window: Box, feather: float, drawn: Image.Image) -> Image.Image:
    shorter = min(part.box[2] - part.box[0], part.box[3] - part.box[1])
    alpha = feathered(part.mask.crop(window), feather * shorter)
    patch = drawn.resize(alpha.size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return pasted(part.given.image, patch, alpha, window)
