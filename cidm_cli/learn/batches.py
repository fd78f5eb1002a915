"""What a step learns from: pictures and captions encoded once, and the batches drawn from them.

Every random draw is a function of (seed, step, sample).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data import Dataset, Example, Placement, bucket, draw_augmentation
from ..models import text
from ..models.base import Base
from ..models.sampling import encode
from ..options.learn import LearnOptions
from ..options.prompts import Mention, parse_prompt


@dataclass(frozen=True)
class Prepared:
    """Pictures and captions as the training reads them: encoded once."""

    mean: tuple[torch.Tensor, ...]
    """Latents of each picture [variants, channels, h, w]; pictures of one size make a bucket."""
    std: tuple[torch.Tensor, ...]
    """Their posterior's standard deviation, like ``mean``."""
    masks: tuple[torch.Tensor, ...] | None
    """Of each picture [variants, 1, h, w], or None when no picture has one."""
    prompts: tuple[text.Tokens, ...]
    """Caption of each picture."""
    pooled: torch.Tensor | None = None
    """The captions as wholes [pictures, width], where the base wants them."""
    sizes: torch.Tensor | None = None
    """What the base is told of each variant's size and cutting (``Base.predict``) [pictures, variants, 6], if it is."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    clean: torch.Tensor
    """Latents z_0 [batch, channels, h, w]"""
    noise: torch.Tensor
    """ε, like ``clean``"""
    times: torch.Tensor
    """Entries of the schedule [batch]"""
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
    part: int = 0
    """Which of the step's ``accumulate`` batches it is"""
    numbers: range | None = None
    """Which of that batch's samples they are; None: all"""


Encoder = Callable[[Base, Example, Sequence[Placement], tuple[int, int]], tuple[torch.Tensor, torch.Tensor]]
"""Gives latents' mean and standard deviation of a picture's placements at a size, each [placements, channels, h, w]."""


def encode_placed(
    base: Base, example: Example, placements: Sequence[Placement], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``Encoder`` that asks the VAE."""
    return encode(base, [placement.apply(example.image, size) for placement in placements])


def prepare(
    base: Base,
    dataset: Dataset,
    prompts: Sequence[text.Tokens],
    options: LearnOptions,
    encoder: Encoder = encode_placed,
) -> Prepared:
    """Encodes every variant of every picture; which variants there are follows from the seed."""
    if base.family.texts_once:
        # All captions while the encoders are there; what they give is remembered.
        base.architecture.embedded(base, list(dict.fromkeys(prompts)), None, None)
    variants = options.variants if options.crop or options.mirror else 1
    means, stds, masks, sizes = [], [], [], []
    masked = any(example.mask for example in dataset.examples)
    canvases = picture_sizes(base, dataset, options)
    for number, (example, size) in enumerate(zip(dataset.examples, canvases, strict=True)):
        placements = [
            draw_augmentation(
                np.random.default_rng((options.seed, number, variant)),
                crop=options.crop,
                mirror=options.mirror,
            )
            for variant in range(variants)
        ]
        mean, std = encoder(base, example, placements, size)
        means.append(mean)
        stds.append(std)
        sizes.append([_told_size(p, example.image.size, size) for p in placements])
        if masked:
            width, height = (side // base.factor for side in size)
            cells = [
                np.asarray(p.apply(example.mask, size).resize((width, height))) / 255
                if example.mask
                else np.ones((height, width))
                for p in placements
            ]
            masks.append(torch.from_numpy(np.stack(cells)[:, None]).float().to(base.device))
    return Prepared(
        tuple(means), tuple(stds), tuple(masks) if masked else None, tuple(prompts), text.pooled(base, prompts),
        torch.tensor(sizes, dtype=torch.float32, device=base.device) if base.family.told_sizes else None,
    )  # fmt: skip


def picture_sizes(base: Base, dataset: Dataset, options: LearnOptions) -> list[tuple[int, int]]:
    """Width and height that each picture is learned at."""
    square = (base.pixels, base.pixels)
    return [
        bucket(example.image.size, base.pixels) if options.buckets else square for example in dataset.examples
    ]


def _told_size(placement: Placement, image: tuple[int, int], canvas: tuple[int, int]) -> list[int]:
    """Height and width of a picture, top and left of the piece that is seen, and its height and width."""
    left, top = placement.corner(image, canvas)
    return [image[1], image[0], top, left, canvas[1], canvas[0]]


def draw(
    data: Prepared,
    options: LearnOptions,
    step: int,
    timesteps: int,
    part: int = 0,
    numbers: range | None = None,
) -> Batch:
    """A batch of a step, a function of the seed, the step and which of its ``accumulate`` batches it is.

    They are the pieces of the one batch that the step would have if it were not taken apart. Of the batch's samples,
    only ``numbers`` if given: the same ones as in the whole batch.
    """
    count = options.batch * options.accumulate
    members, earlier = _bucket(data, options.seed, step * options.accumulate + part)
    clean, noise, times, shown, masks, sizes = [], [], [], [], [], []
    for number in numbers or range(options.batch):
        sample = part * options.batch + number
        epoch, place = divmod(earlier * options.batch + number, len(members))
        order = np.random.default_rng((options.seed, epoch, 0xE)).permutation(len(members))
        picture = members[order[place]]
        mean, std = data.mean[picture], data.std[picture]
        rng = np.random.default_rng((options.seed, step, sample))
        variant = int(rng.integers(len(mean)))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        shape = mean.shape[1:]
        spread = torch.randn(shape, generator=generator).to(mean)
        clean.append(mean[variant] + std[variant] * spread)
        epsilon = torch.randn(shape, generator=generator).to(mean)
        if options.noise_offset:
            epsilon += options.noise_offset * torch.randn((shape[0], 1, 1), generator=generator).to(mean)
        noise.append(epsilon)
        # One timestep from each of `count` equal stretches: uniform over all, and less noisy than free draws.
        times.append(int((sample + rng.random()) / count * timesteps))
        shown.append(picture)
        if data.masks is not None:
            masks.append(data.masks[picture][variant])
        if data.sizes is not None:
            sizes.append(data.sizes[picture, variant])
    return Batch(
        clean=torch.stack(clean), noise=torch.stack(noise), times=torch.tensor(times, device=clean[0].device),
        prompts=tuple(data.prompts[picture] for picture in shown), pictures=tuple(shown),
        mask=torch.stack(masks) if masks else None,
        pooled=None if data.pooled is None else data.pooled[shown], sizes=torch.stack(sizes) if sizes else None,
        part=part, numbers=numbers,
    )  # fmt: skip


def _bucket(data: Prepared, seed: int, number: int) -> tuple[list[int], int]:
    """The pictures, all of one size, that batch ``number`` is drawn from, and how many batches of that size came first.

    In as many batches as there are pictures, each size has as many as it has pictures, in an order drawn anew.
    """
    shapes = [mean.shape for mean in data.mean]
    epoch, place = divmod(number, len(shapes))
    order = np.random.default_rng((seed, epoch, 0xB)).permutation(len(shapes))
    chosen = shapes[order[place]]
    members = [picture for picture, shape in enumerate(shapes) if shape == chosen]
    earlier = sum(shapes[picture] == chosen for picture in order[:place])
    return members, epoch * len(members) + earlier


@dataclass(frozen=True)
class Read:
    """What of a caption is read."""

    prompt: str
    """The caption as far as it fits, or the bare concept where that would not reach it."""
    tokens: text.Tokens
    left_out: str
    """The rest, or empty."""


def slotted(base: Base, caption: str, slot: text.Slot) -> Read:
    """A caption with ``slot`` wherever it names a concept, cut behind the last word that fits.

    One so long that the concept does not fit is exchanged for the bare concept.
    """

    def tokens(prompt: str) -> text.Tokens:
        parts = parse_prompt(prompt, literal=True).parts
        return text.tokenize(base, [slot if isinstance(part, Mention) else part for part in parts])

    whole = tokens(caption)
    if not whole.cut:
        return Read(caption, whole, "")
    ends = [match.start() for match in re.finditer(r"\s+", caption)]
    fitting = bisect_left(ends, True, key=lambda end: tokens(caption[:end]).cut)
    kept = caption[: ends[fitting - 1]] if fitting else ""
    read = tokens(kept)
    if read.slots:
        return Read(kept, read, caption[len(kept) :].strip())
    return Read(f"<{slot.name}>", text.tokenize(base, [slot]), caption)
