"""A prompt of several concepts that becomes a layout while it is drawn: the model itself says where each concept is.

In the first steps concepts are words alone, kept from each other's cells as by "cells", and what each layer's attention
looks at is written down. Then every concept is a region, with soft edges: its mask is where its words were looked at,
its prompt the whole one without the other concepts, its weights its own; around the regions no concept's weights act.
For some steps regions have noise estimates of their own; later, when what they
show is settled, regional attention alone costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from cidm_registry import Record, canonical_key

from ..method import routing
from ..models import sampling
from ..models.base import Base
from ..models.family import Source
from ..models.structure import Guide
from ..options.prompts import parse_prompt
from . import scenes, views
from .apart import POWER, decide
from .encoded import Said, Texts
from .mixtures import Applied, alone, factors
from .scenes import Part, Scene

LOOKED = 0.15
"""The share of the steps in which the attention is watched."""
ESTIMATED = 0.4
"""The share of the steps up to which regions have noise estimates of their own."""
LEVEL = 1.0
"""How much a cell must look at a concept's words to be of its region, of the mean over all cells."""


ALPHA = 0.1
"""The whole prompt's share in a region's noise estimate, as in a layout where nothing else is said."""


@dataclass
class Watch:
    """What cells look at, summed over layers and steps."""

    cells: tuple[int, int]
    """Width and height of the latents."""
    pictures: int
    total: torch.Tensor | None = None
    """[pictures, concepts, h, w]"""

    def decide(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``apart.decide``; the last rows are those with the prompt."""
        own = maps[-self.pictures :]
        own = own / own.mean((2, 3), keepdim=True).clamp_min(1e-12)
        own = F.interpolate(own, self.cells[::-1], mode="bilinear")
        self.total = own if self.total is None else self.total + own
        return decide(maps)

    def masks(self) -> torch.Tensor:
        """Of each region in each picture [regions, pictures, h, w]."""
        assert self.total is not None
        if self.total.is_meta:
            # Nothing was computed: any masks take the same work.
            return torch.full(self.total.shape, 1.0).transpose(0, 1)
        masks = routing.soft_masks(self.total, POWER, LEVEL)
        return (masks / masks.amax((2, 3), keepdim=True).clamp_min(1e-12)).transpose(0, 1).cpu()


def estimate(base: Base, scene: Scene, batch: Sequence[Part], weights: Applied) -> sampling.Estimate:
    """As ``views.estimate``; where regions are to be found, they are once the first steps are done."""
    if scene.later is None:
        return views.estimate(base, scene, batch, weights)
    later, steps = scene.later, scene.options.steps
    watch = Watch(scene.cells, len(scene.starts(batch)))
    looking = views.estimate(base, replace(scene, decide=watch.decide), batch, weights)
    stages: dict[bool, sampling.Estimate] = {}
    begun: list[int] = []

    def follow(latents: torch.Tensor, t: torch.Tensor, step: int) -> torch.Tensor:
        # Where styles come later, these are the first steps after them.
        if not begun:
            begun.append(step)
        if step - begun[0] < max(LOOKED * steps, 1):
            return looking(latents, t, step)
        fast = step >= ESTIMATED * steps
        if fast not in stages:
            found = replace(later, masks=watch.masks(), fast=fast)
            stages[fast] = views.estimate(base, found, batch, weights)
        return stages[fast](latents, t, step)

    return follow


def prepare(base: Base, parts: Sequence[Part], texts: Texts, guide: Guide | None = None) -> Scene:
    """As ``scenes.prepare``; with what is drawn from later, where regions are to be found."""
    scene = scenes.prepare(base, parts, texts, guide)
    if parts[0].chosen.whole.method != "found":
        return scene
    return replace(scene, later=_regions(base, parts, texts, scene))


def _regions(base: Base, parts: Sequence[Part], texts: Texts, scene: Scene) -> Scene:
    """What is drawn from once the regions are found; it has no masks yet.

    Raises:
        CidmError: FAILED where the base draws no regions.
    """
    said = [[one, *_alone(one)] for part in parts for one in part.said]
    every = [one for some in said for one in some]
    sources = [
        Source([context[0] for context in contexts], change, None if pooled is None else pooled[0])
        for one, both in zip(every, texts.of(every), strict=True)
        for change in [factors(base, one.chosen, texts.load) if len(one.chosen.used) == 1 else {}]
        for contexts, pooled in both
    ]
    number = len(said[0]) - 1
    return replace(
        scene, way=base.regions, cache=base.regions.cached(base, sources), decide=None,
        heard=texts.heard(said) if scene.guide else None, soft=torch.ones(number, dtype=torch.bool),
        own_without=(True,) * number, alpha=ALPHA,
    )  # fmt: skip


def _alone(said: Said) -> list[Said]:
    """What each concept's region is asked for with."""
    return [
        Said(
            without_others(said.prompt, mix.used[0]),
            said.negative,
            replace(mix, named=mix.used, against=said.chosen.against),
        )
        for mix in alone(said.chosen)
    ]


def without_others(prompt: str, record: Record) -> str:
    """A prompt that names no concept but one."""
    return parse_prompt(prompt).exchanged(lambda name: None if canonical_key(name) == record.key else "")
