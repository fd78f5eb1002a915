"""What pictures are drawn from, made ready once for all seeds: texts, weights, and where in the picture each is drawn.

A prompt is a layout without regions. Its concepts are merged into the base's weights, which costs nothing at each step,
and several prompts share a batch. With regions nothing is merged: the whole prompt's concepts are drawn where no region
is, a region's concepts in the region, and neither sees the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cidm_registry import Record, canonical_key

from ..errors import CidmError, ExitCode
from ..files.places import told_path
from ..layout import Layout, thin_regions
from ..layout.model import ImageSettings
from ..method import regions as method
from ..models import sampling, whole
from ..models.base import Base
from ..models.family import Factors, Own, Regions, Source
from ..models.structure import Guide, in_pixels
from ..options.draw import APART, DrawOptions
from ..options.prompts import parse_prompt
from . import apart
from .encoded import Said, Texts
from .jobs import Ablation, Job, Mask, check_layout
from .lines import lines
from .mixtures import Applied, Loader, Mixture, applied, factors, mixture, of_several
from .structure import Followed

STRETCHED = 0.02
"""The difference of two shapes, as a share, from which on a note tells that a picture is stretched."""
WITHOUT, WHOLE = 0, 1
"""Sources of the whole picture: its negative prompt and its prompt. A region's follow, in the same order."""


@dataclass(frozen=True)
class Chosen:
    """What pictures are drawn with."""

    whole: Mixture
    """By the whole prompt."""
    regions: tuple[Mixture, ...] = ()
    """By each region's own prompt."""
    masks: tuple[Mask | None, ...] = ()
    """Of each region."""
    before: tuple[Job, Chosen] | None = None
    """What the first steps draw instead, where a learned style comes later."""

    @property
    def mixtures(self) -> tuple[Mixture, ...]:
        """Of the whole picture, then of each region."""
        return self.whole, *self.regions


@dataclass(frozen=True)
class Part:
    """Pictures of one job in a batch."""

    job: Job
    chosen: Chosen
    seeds: tuple[int, ...]

    @property
    def said(self) -> list[Said]:
        """What each of them is asked for with: the whole picture, then each region."""
        both = zip(self.job.parts, self.chosen.mixtures, strict=True)
        return [Said(prompt, options.negative, mix) for (prompt, options), mix in both]


@dataclass(frozen=True)
class Scene:
    """What a batch of pictures is drawn from: all that does not depend on the seeds."""

    jobs: tuple[Job, ...]
    """One with regions, or some without that have all but prompt and negative prompt in common."""
    way: Regions
    """How the denoiser is asked."""
    cache: Any
    """Its cache of all jobs' sources, in order."""
    guide: Guide | None
    """A structure that is followed."""
    heard: torch.Tensor | None
    """What its model is told of each source [sources, tokens, width]."""
    masks: torch.Tensor
    """[regions, h, w], how much of each cell of the latents each region holds; where it is another in each picture,
    [regions, pictures, h, w]"""
    soft: torch.Tensor
    """[regions], whether its edges are soft"""
    own_without: tuple[bool, ...]
    """Of each region, whether without its prompt it is drawn otherwise than the whole picture is without its own."""
    crops: bool
    """Whether the regions' noise estimates are made on the part of the picture around each."""
    decide: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None
    """How cells are dealt out to concepts that are kept apart (``family.Routing``)."""
    alpha: float = 1.0
    """The whole prompt's share in the regions, Eq. 5"""
    fast: bool = False
    """Whether regions have no noise estimates of their own."""
    later: Scene | None = None
    """What the pictures are drawn from once their regions are found (``found``); its masks are not known yet."""

    @property
    def options(self) -> DrawOptions:
        """Those of all jobs, but for the negative prompt."""
        return self.jobs[0].options

    @property
    def image(self) -> ImageSettings:
        """How the layout is drawn."""
        layout = self.jobs[0].layout
        return layout.image if layout else ImageSettings()

    @property
    def cells(self) -> tuple[int, int]:
        """Width and height of the latents."""
        return self.masks.shape[-1], self.masks.shape[-2]

    def drawn(self, grid: tuple[int, int]) -> torch.Tensor:
        """How much each region is drawn in each cell of a grid (width, height), [regions, h, w]."""
        return method.in_cells(self.masks, self.soft, grid)

    def shares(self, grid: tuple[int, int], regions: Sequence[int]) -> torch.Tensor:
        """The shares of some regions, as if there were no others, [regions, h, w]."""
        return method.shares(self.drawn(grid)[list(regions)], self.image.overlap)

    def starts(self, batch: Sequence[Part]) -> list[int]:
        """Of each picture of a batch, the first of its sources."""
        each = 2 + 2 * len(self.masks)
        return [each * number for number, part in enumerate(batch) for _ in part.seeds]


def makes_crops(base: Base, layout: Layout, size: tuple[int, int], ablation: Ablation) -> bool:
    """Whether the regions' noise estimates are made on the part of the picture around each."""
    image = layout.image
    if image.mode == "fast" or not ablation.noise:
        return False
    # A base draws things best at the size of picture it was trained on.
    return max(size) > base.pixels if image.crops is None else image.crops


def sources_of(region: int) -> tuple[int, int]:
    """Of a region, without its prompt and with it."""
    return 2 + 2 * region, 3 + 2 * region


def told(layout: Layout) -> str:
    """A layout as pictures tell it: its files lie in its own folder, and its model is named as ``told_path`` does."""
    structure = layout.structure
    if structure and structure.model:
        structure = structure.model_copy(update={"model": told_path(Path(structure.model))})
    return layout.model_copy(update={"structure": structure}).to_toml()


def choose(base: Base, load: Loader, records: Sequence[Record], job: Job) -> Chosen:
    """What a job is drawn with, given the concepts there are: each region by its own prompt.

    Raises:
        CidmError: as `check_layout` and `mixture` do.
    """
    masks = check_layout(job.regions, job.options) if job.regions else ()
    whole, *regions = (mixture(base, load, records, prompt, how) for prompt, how in job.parts)
    return waiting(job, Chosen(whole, tuple(regions), masks))


def steps_before(job: Job) -> int:
    """Sampling steps that are drawn before learned styles have a say; over a given picture none: it is the subject."""
    return 0 if job.over else round(job.options.style_from * job.options.steps)


def waiting(job: Job, chosen: Chosen) -> Chosen:
    """The same, with what its first steps draw where the prompts name learned styles: their class nouns, unweighted.

    What a picture shows is settled at high noise, how it is painted afterwards. A merged file's weights hold styles and
    objects in one, and stay.
    """
    words = {record.key: record.class_noun for mix in chosen.mixtures for record in mix.named if record.style}
    if not words or not steps_before(job) or chosen.whole.method == "merged":
        return chosen

    def without(prompt: str) -> str:
        return parse_prompt(prompt).exchanged(lambda name: words.get(canonical_key(name)))

    def rest(mix: Mixture) -> Mixture:
        used = [
            (record, w) for record, w in zip(mix.used, mix.weights, strict=True) if record.key not in words
        ]
        named = tuple(record for record in mix.named if record.key not in words)
        return replace(
            mix, method=of_several(mix.method, named), named=named, used=tuple(r for r, _ in used),
            weights=tuple(w for _, w in used),
        )  # fmt: skip

    layout = job.layout
    if layout:
        regions = [r.model_copy(update={"prompt": without(r.prompt)}) for r in layout.regions]
        layout = layout.model_copy(update={"regions": tuple(regions)})
    earlier = replace(job, prompt=without(job.prompt), layout=layout)
    before = Chosen(rest(chosen.whole), tuple(rest(mix) for mix in chosen.regions), chosen.masks)
    return replace(chosen, before=(earlier, before))


def merging(base: Base, chosen: Chosen, load: Loader) -> Applied:
    """What is merged into the base's weights; where there are regions nothing: each has weights of its own."""
    return Applied(dict) if chosen.regions else applied(base, chosen.whole, load)


@torch.no_grad()
def prepare(base: Base, parts: Sequence[Part], texts: Texts, guide: Guide | None = None) -> Scene:
    """What the pictures of parts are drawn from; where there are regions, parts of one job.

    Regions whose mixtures use no concept draw the base's weights.

    Raises:
        CidmError: USAGE when a prompt is so long that a concept in it is cut off; INVALID for a region of which box
            and mask leave nothing; FAILED where the base draws no regions.
    """
    job, chosen = parts[0].job, parts[0].chosen
    layout, size = job.regions, job.options.size
    regions = layout.regions if layout else ()
    cells = width, height = size[0] // base.factor, size[1] // base.factor
    said = [part.said for part in parts]
    every = [one for some in said for one in some]
    changes: list[Factors] = [{}] * len(every)
    masks, own_without = [], []
    way: Regions = whole
    own: list[tuple[tuple[Own, ...], ...]] = [((), ())] * len(every)
    if chosen.whole.method in APART:
        way = base.routed
        own = [apart.owns(base, texts.load, one) for one in every]
    if layout:
        way = base.regions
        strengths = (1.0, *(region.strength for region in regions))
        changes = [
            factors(base, one.chosen, texts.load, strength)
            for one, strength in zip(every, strengths, strict=True)
        ]
        for index, (one, mask) in enumerate(zip(every[1:], chosen.masks, strict=True), 1):
            masks.append(method.coarse(_mask(layout, index - 1, mask, size), cells)[None])
            own_without.append(bool(changes[0] or changes[index]) or one.negative != job.options.negative)
        _warn_of_thin(base, layout, cells, texts.on_note)
    sources = [
        Source(
            [context[0] for context in contexts],
            change,
            None if pooled is None else pooled[0],
            apart.as_long(kept, contexts[0].shape[1]),
        )
        for both, change, two in zip(texts.of(every), changes, own, strict=True)
        for (contexts, pooled), kept in zip(both, two, strict=True)
    ]
    return Scene(
        tuple(part.job for part in parts), way, way.cached(base, sources), guide,
        texts.heard(said) if guide else None, torch.cat([torch.zeros(0, height, width), *masks]),
        torch.tensor([bool(region.feather or region.mask) for region in regions], dtype=torch.bool),
        tuple(own_without), layout is not None and makes_crops(base, layout, size, job.ablation),
        apart.decide if chosen.whole.method == "cells" else None,
        layout.base.alpha if layout else 1.0, layout is not None and layout.image.mode == "fast",
    )  # fmt: skip


def guide(
    base: Base,
    followed: Followed,
    options: DrawOptions,
    load: Loader,
    on_note: Callable[[str], None],
) -> Guide | None:
    """What is followed in pictures of the size of ``options``; None where it has no strength or no step.

    Raises:
        CidmError: INVALID for a model that does not fit the base, or a picture without lines.
    """
    how = followed.how
    control = load.control(followed.control)
    picture = lines(followed.image, how.kind, options.size)
    if how.kind != "as-is" and picture.getextrema() == ((0, 0),) * 3:
        raise CidmError(
            f"{followed.path}: no lines to follow are in it",
            hint="draw them dark on white or white on black; kind edge wants an ordinary image",
            code=ExitCode.INVALID,
        )
    (width, height), (wide, high) = followed.image.size, options.size
    if abs(width * high / (height * wide) - 1) > STRETCHED:
        on_note(f"{followed.path}: {width} x {height}, is stretched to the image's {wide} x {high}")
    when = sampling.steps_between(options.steps, how.start, how.until)
    if not when:
        on_note(
            f"{followed.path}: is not followed, as none of {options.steps} steps lies between from and until"
        )
    if not when or how.scale == 0:
        return None
    return Guide(control, in_pixels(base, control, picture), how.scale, when)


def noise(base: Base, scene: Scene, seeds: Sequence[int]) -> torch.Tensor:
    """The latents to start from, one a seed; a region with a seed of its own starts alike in all of them."""
    alone = sampling.initial_noise(base, seeds, scene.options.size)
    layout = scene.jobs[0].regions
    shares = scene.shares(scene.cells, range(len(scene.masks)))
    # Equal seeds give the same noise, of which the shares add up; only different ones add by their variances.
    own: dict[int, torch.Tensor] = {}
    for region, share in zip(layout.regions if layout else (), shares, strict=True):
        if region.seed is not None:
            own[region.seed] = own[region.seed] + share if region.seed in own else share
    if not own:
        return alone
    noises = sampling.initial_noise(base, list(own), scene.options.size)
    parts = torch.stack(list(own.values()))
    others = torch.tensor([[seed != mine for seed in own] for mine in seeds]).to(parts)
    return torch.stack(
        [
            method.mixed_noise(one, noises, parts * other[:, None, None])
            for one, other in zip(alone, others, strict=True)
        ]
    )


def _mask(layout: Layout, index: int, file: Mask | None, size: tuple[int, int]) -> torch.Tensor:
    """How much of each pixel a region holds, [height, width]: the product of its box and its mask."""
    region = layout.regions[index]
    mask = torch.ones(size[1], size[0])
    box = layout.relative_box(region)
    if box is not None:
        unit = min(layout.image.size) if layout.image.size and layout.image.units == "pixel" else 1
        mask = method.box_mask(box, size, region.feather / unit * min(size))
    if file is not None:
        image = file.image.resize(size, Image.Resampling.BILINEAR)
        mask = mask * torch.from_numpy(np.array(image)).float() / 255
    if not mask.any():
        raise CidmError(
            f"{layout.origin.place(('region', index, 'mask'))}: region.{index}.mask is black all over the box",
            hint="move the box, or paint white where the region is",
            code=ExitCode.INVALID,
        )
    return mask


def _warn_of_thin(base: Base, layout: Layout, cells: tuple[int, int], on_note: Callable[[str], None]) -> None:
    across, down = base.architecture.grids(base, cells)[-1]
    for index in thin_regions(layout, (across, down)):
        on_note(
            f"{layout.origin.place(('region', index, 'box'))}: region.{index}.box is thinner than a cell of the base's "
            f"coarsest attention map ({across} x {down} cells): there it takes the one cell it holds most of"
        )
