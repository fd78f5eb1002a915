"""What a step learns from: pictures and captions encoded once, and the batches drawn from them.

Every random draw is a function of (seed, step, sample).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data import Dataset, Placement, draw_augmentation
from ..models import text
from ..models.base import Base
from ..models.sampling import encode
from ..options import LearnOptions


@dataclass(frozen=True)
class Prepared:
    """Pictures and captions as the training reads them: encoded once."""

    mean: torch.Tensor
    """Latents [pictures, variants, channels, h, w]."""
    std: torch.Tensor
    """Their posterior's standard deviation, like ``mean``."""
    masks: torch.Tensor | None
    """[pictures, variants, 1, h, w], or None when no picture has one."""
    prompts: tuple[text.Tokens, ...]
    """Caption of each picture."""
    pooled: torch.Tensor | None = None
    """The captions as wholes [pictures, width], where the base wants them."""
    sizes: torch.Tensor | None = None
    """What SDXL is told of each variant's size and cutting (``prediction.ask``) [pictures, variants, 6]."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    clean: torch.Tensor
    """Latents z_0 [batch, channels, h, w]"""
    noise: torch.Tensor
    """ε, like ``clean``"""
    times: torch.Tensor
    """Timesteps [batch]"""
    prompts: tuple[text.Tokens, ...]
    """Caption of each sample"""
    pictures: tuple[int, ...]
    """Number of the picture that each sample shows"""
    mask: torch.Tensor | None
    """[batch, 1, h, w], or None"""
    pooled: torch.Tensor | None = None
    """The captions as wholes [batch, width], where the base wants them"""
    sizes: torch.Tensor | None = None
    """[batch, 6], like those of ``Prepared``"""


def prepare(base: Base, dataset: Dataset, prompts: Sequence[text.Tokens], options: LearnOptions) -> Prepared:
    """Encodes every variant of every picture; which variants there are follows from the seed."""
    size = (base.pixels, base.pixels)
    variants = options.variants if options.crop or options.mirror else 1
    cells = base.pixels // base.factor
    means, stds, masks, sizes = [], [], [], []
    for number, example in enumerate(dataset.examples):
        placements = [
            draw_augmentation(
                np.random.default_rng((options.seed, number, variant)),
                crop=options.crop,
                mirror=options.mirror,
            )
            for variant in range(variants)
        ]
        mean, std = encode(base, [p.apply(example.image, size) for p in placements])
        means.append(mean)
        stds.append(std)
        sizes.append([_told_size(p, example.image.size, size) for p in placements])
        if any(e.mask for e in dataset.examples):
            for p in placements:
                cell_mask = p.apply(example.mask, size).resize((cells, cells)) if example.mask else None
                array = np.ones((cells, cells)) if cell_mask is None else np.asarray(cell_mask) / 255
                masks.append(torch.from_numpy(array).float())
    stacked = (
        torch.stack(masks).view(len(means), variants, 1, cells, cells).to(base.device) if masks else None
    )
    return Prepared(
        torch.stack(means), torch.stack(stds), stacked, tuple(prompts), text.pooled(base, prompts),
        torch.tensor(sizes, dtype=torch.float32, device=base.device) if base.family == "sdxl" else None,
    )  # fmt: skip


def _told_size(placement: Placement, image: tuple[int, int], canvas: tuple[int, int]) -> list[int]:
    """Height and width of a picture, top and left of the piece that is seen, and its height and width."""
    left, top = placement.corner(image, canvas)
    return [image[1], image[0], top, left, canvas[1], canvas[0]]


def draw(data: Prepared, options: LearnOptions, step: int, timesteps: int, part: int = 0) -> Batch:
    """A batch of a step, a function of the seed, the step and which of its ``accumulate`` batches it is.

    They are the pieces of the one batch that the step would have if it were not taken apart.
    """
    assert options.batch is not None
    count = options.batch * options.accumulate
    pictures, variants = data.mean.shape[:2]
    clean, noise, times, shown, masks, sizes = [], [], [], [], [], []
    for sample in range(part * options.batch, (part + 1) * options.batch):
        epoch, place = divmod(step * count + sample, pictures)
        picture = int(np.random.default_rng((options.seed, epoch, 0xE)).permutation(pictures)[place])
        rng = np.random.default_rng((options.seed, step, sample))
        variant = int(rng.integers(variants))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        shape = data.mean.shape[2:]
        spread = torch.randn(shape, generator=generator).to(data.mean)
        clean.append(data.mean[picture, variant] + data.std[picture, variant] * spread)
        epsilon = torch.randn(shape, generator=generator).to(data.mean)
        if options.noise_offset:
            epsilon += options.noise_offset * torch.randn((shape[0], 1, 1), generator=generator).to(data.mean)
        noise.append(epsilon)
        # One timestep from each of `count` equal stretches: uniform over all, and less noisy than free draws.
        times.append(int((sample + rng.random()) / count * timesteps))
        shown.append(picture)
        if data.masks is not None:
            masks.append(data.masks[picture, variant])
        if data.sizes is not None:
            sizes.append(data.sizes[picture, variant])
    return Batch(
        clean=torch.stack(clean), noise=torch.stack(noise), times=torch.tensor(times, device=data.mean.device),
        prompts=tuple(data.prompts[picture] for picture in shown), pictures=tuple(shown),
        mask=torch.stack(masks) if masks else None,
        pooled=None if data.pooled is None else data.pooled[shown], sizes=torch.stack(sizes) if sizes else None,
    )  # fmt: skip
