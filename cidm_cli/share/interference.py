"""What concepts do to each other when they are merged: overlap, change of pictures, room that is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cidm_registry import Record, Registry

from ..draw.mixtures import Loader
from ..method.consolidation import directions, subspace_overlap
from ..method.lowrank import apart, free
from ..models import sampling
from ..models.base import Base
from ..models.clip import Judge
from ..models.identity import folder_of
from ..options.merge import MergeOptions
from .features import concept_subject, denoised, own_deltas


@dataclass(frozen=True)
class Pair:
    """What adding one concept's weights, at weight 1, does to another's pictures."""

    concept: str
    """Name of the concept that is drawn."""
    added: str
    """Name of the concept whose weights are added."""
    overlap: float
    """Shared part of their subspaces, as R1 measures it, mean over sites: 0 to 1."""
    change: float
    """Mean absolute difference of the pictures, of 255."""
    likeness: float | None
    """Mean CLIP cosine of the pictures with and without; None where the base brings no CLIP model."""


@dataclass(frozen=True)
class Analysis:
    """How concepts get along."""

    pairs: tuple[Pair, ...]
    """Every ordered pair."""
    free: dict[str, int]
    """Dimensions of each site's output that no concept reaches."""
    tightest: str
    """The site with the fewest."""
    rank: int
    """The largest rank of the concepts."""
    fits: int
    """Further concepts of that rank whose subspaces could be orthogonal to all of these, and to each other."""


def work(records: Sequence[Record], options: MergeOptions) -> int:
    """How many times ``analyze`` will call ``on_step``."""
    return len(records) ** 2 * options.steps


def analyze(
    registry: Registry,
    base: Base,
    records: Sequence[Record],
    options: MergeOptions,
    *,
    on_step: Callable[[], None] = lambda: None,
) -> Analysis:
    """Measures every pair of concepts: their subspaces, and a few pictures of each with the other's weights added."""
    load = Loader(registry, base)
    folder = folder_of(registry.base) / "clip"
    judge = Judge(folder) if folder.is_dir() else None
    rows = base.architecture.parts(base.denoiser)
    pairs = []
    for one in records:
        alone = _samples(base, load, one, None, options, registry.base.kind, on_step)
        for other in records:
            if one == other:
                continue
            beside = _samples(base, load, one, other, options, registry.base.kind, on_step)
            pairs.append(
                Pair(
                    one.name, other.name, _overlap(load, rows, one, other), _change(alone, beside),
                    None if judge is None else _likeness(judge, alone, beside),
                )
            )  # fmt: skip
    room, rank = _room(load, records)
    tightest = min(room, key=lambda site: room[site])
    return Analysis(tuple(pairs), room, tightest, rank, room[tightest] // rank)


def _overlap(load: Loader, rows: Mapping[str, Sequence[int]], one: Record, other: Record) -> float:
    """R1 of ``other`` against ``one``, of the smaller's directions, mean over the sites that both have."""
    old, new = (apart(load(record).factors, rows) for record in (one, other))
    shared = []
    for site in (site for site in old if site in new):
        up, down = (factor.cpu() for factor in old[site])
        columns = directions(up, down, one.scale)
        up, down = (factor.cpu().double() for factor in new[site])
        of_smaller = up.shape[1] / min(up.shape[1], columns.shape[1])
        shared.append(of_smaller * float(subspace_overlap(columns, up, down, other.scale)))
    return sum(shared) / len(shared) if shared else 0.0


def _samples(
    base: Base,
    load: Loader,
    record: Record,
    added: Record | None,
    options: MergeOptions,
    kind: str,
    on_step: Callable[[], None],
) -> list[Image.Image]:
    """Pictures of a concept under its own weights, and under another's as well where one is added."""
    deltas = own_deltas(load, record)
    if added is not None:
        for site, more in own_deltas(load, added).items():
            deltas[site] = deltas[site] + more if site in deltas else more
    (prompt,) = concept_subject(load, record).prompts(base, 1)
    seeds = [options.seed + k for k in range(options.samples)]
    latents = denoised(
        base, [prompt] * options.samples, {record.key: load(record).tokens}, deltas, seeds,
        steps=options.steps, kind=kind, on_step=on_step,
    )  # fmt: skip
    return sampling.decode(base, latents)


def _change(before: Sequence[Image.Image], after: Sequence[Image.Image]) -> float:
    """Mean absolute difference, of 255."""
    apart = [
        np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b)).mean()
        for a, b in zip(before, after, strict=True)
    ]
    return float(np.mean(apart))


def _likeness(judge: Judge, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> float:
    """Mean cosine of each picture's CLIP embedding before and after."""
    return float((judge.embed(before) * judge.embed(after)).sum(-1).mean())


def _room(load: Loader, records: Sequence[Record]) -> tuple[dict[str, int], int]:
    """Free dimensions by site, and the concepts' largest rank."""
    ups: dict[str, list[torch.Tensor]] = {}
    for record in records:
        for site, up in load(record).up.items():
            ups.setdefault(site, []).append(up.cpu())
    rank = max(up.shape[1] for each in ups.values() for up in each)
    return {site: free(each) for site, each in sorted(ups.items())}, rank
