"""Layouts with regions, made ready to draw: each region's prompt with its own concepts' weights in its own place.

Nothing is merged into the base's weights: the whole prompt's concepts are drawn where no region is, a region's concepts
in the region, and neither sees the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cidm_registry import Record

from ..errors import CidmError, ExitCode
from ..files.places import told_path
from ..layout import Layout, thin_regions
from ..method import regions as method
from ..models import sampling, text
from ..models.base import Base
from ..models.family import Source
from ..models.offload import present
from ..options.draw import DrawOptions
from .jobs import Ablation, Mask, check_layout, parts_of
from .mixtures import Loader, Mixture, factors, mixture, spoken

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


@dataclass(frozen=True)
class Scene:
    """A layout ready to be drawn: all that does not depend on the seeds."""

    layout: Layout
    options: DrawOptions
    ablation: Ablation
    cache: Any
    masks: torch.Tensor
    """[regions, h, w], how much of each cell of the latents each region holds"""
    soft: torch.Tensor
    """[regions], whether its edges are soft"""
    own_without: tuple[bool, ...]
    """Of each region, whether without its prompt it is drawn otherwise than the whole picture is without its own."""
    crops: bool
    """Whether the regions' noise estimates are made on the part of the picture around each."""

    @property
    def cells(self) -> tuple[int, int]:
        """Width and height of the latents."""
        return self.masks.shape[2], self.masks.shape[1]

    def drawn(self, grid: tuple[int, int]) -> torch.Tensor:
        """How much each region is drawn in each cell of a grid (width, height), [regions, h, w]."""
        return method.in_cells(self.masks, self.soft, grid)

    def shares(self, grid: tuple[int, int], regions: Sequence[int]) -> torch.Tensor:
        """The shares of some regions, as if there were no others, [regions, h, w]."""
        return method.shares(self.drawn(grid)[list(regions)], self.layout.image.overlap)


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


def choose(
    base: Base, load: Loader, records: Sequence[Record], layout: Layout, options: DrawOptions
) -> Chosen:
    """What a layout is drawn with, given the concepts there are: each region by its own prompt.

    Raises:
        CidmError: as `check_layout` and `mixture` do.
    """
    masks = check_layout(layout, options)
    whole, *regions = (mixture(base, load, records, prompt, how) for prompt, how in parts_of(layout, options))
    return Chosen(whole, tuple(regions), masks)


@torch.no_grad()
def prepare(
    base: Base,
    layout: Layout,
    options: DrawOptions,
    chosen: Chosen,
    load: Loader,
    ablation: Ablation,
    on_note: Callable[[str], None] = lambda note: None,
) -> Scene:
    """A layout ready to be drawn in the size of ``options``; mixtures that use no concept draw the base's weights.

    Raises:
        CidmError: USAGE when a prompt is so long that a concept in it is cut off; INVALID for a region of which box
            and mask leave nothing.
    """
    width, height = (side // base.factor for side in options.size)
    source = partial(_sources, base, load, on_note)
    own_without = []
    (prompt, _), *others = parts_of(layout, options)
    with present(base.device, *base.encoders):
        sources = source(prompt, options.negative, chosen.whole)
        for region, (prompt, own), mix in zip(layout.regions, others, chosen.regions, strict=True):
            sources += source(prompt, own.negative, mix, region.strength)
            changed = sources[WHOLE].factors or sources[-1].factors
            own_without.append(bool(changed) or own.negative != options.negative)
    masks = [_mask(layout, index, mask, options.size) for index, mask in enumerate(chosen.masks)]
    _warn_of_thin(base, layout, (width, height), on_note)
    return Scene(
        layout, options, ablation, base.regions.cached(base, sources),
        torch.stack([method.coarse(mask, (width, height)) for mask in masks]),
        torch.tensor([bool(region.feather or region.mask) for region in layout.regions]), tuple(own_without),
        makes_crops(base, layout, options.size, ablation),
    )  # fmt: skip


def noise(base: Base, scene: Scene, seeds: Sequence[int]) -> torch.Tensor:
    """The latents to start from, one a seed; a region with a seed of its own starts alike in all of them."""
    whole = sampling.initial_noise(base, seeds, scene.options.size)
    shares = scene.shares(scene.cells, range(len(scene.masks)))
    # Equal seeds give the same noise, of which the shares add up; only different ones add by their variances.
    own: dict[int, torch.Tensor] = {}
    for region, share in zip(scene.layout.regions, shares, strict=True):
        if region.seed is not None:
            own[region.seed] = own[region.seed] + share if region.seed in own else share
    if not own:
        return whole
    noises = sampling.initial_noise(base, list(own), scene.options.size)
    parts = torch.stack(list(own.values()))
    others = torch.tensor([[seed != mine for seed in own] for mine in seeds]).to(parts)
    return torch.stack(
        [
            method.mixed_noise(one, noises, parts * other[:, None, None])
            for one, other in zip(whole, others, strict=True)
        ]
    )


def _sources(
    base: Base,
    load: Loader,
    on_note: Callable[[str], None],
    prompt: str,
    negative: str,
    chosen: Mixture,
    strength: float = 1.0,
) -> list[Source]:
    """What a prompt's part of the picture is drawn from, without the prompt and with it."""
    changes = factors(base, chosen, load, strength)
    both = [
        spoken(base, load, negative, chosen.against, on_note, "negative prompt"),
        spoken(base, load, prompt, chosen.named, on_note),
    ]
    wholes = text.pooled(base, [tokens for tokens, _ in both])
    return [
        Source(
            [context[0] for context in text.encode(base, [tokens], vectors)], changes,
            None if wholes is None else wholes[number],
        )
        for number, (tokens, vectors) in enumerate(both)
    ]  # fmt: skip


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
