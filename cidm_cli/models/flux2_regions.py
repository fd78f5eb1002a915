"""Regions in FLUX.2, by one joint attention to several texts (``joint_regions``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .base import Base
from .family import Rows, Source
from .flux2_asking import ask, sees_cells, sees_words
from .joint_regions import Change, carried, changes, laid_out, parts, shared, sources_of


@dataclass(frozen=True)
class Cache:
    """All that depends on the sources alone."""

    texts: torch.Tensor
    """[sources, tokens, width]"""
    changes: Mapping[str, Change]
    """By site."""


@dataclass(frozen=True)
class Arranged:
    """A batch of rows, ready to be asked for at any timestep."""

    words: torch.Tensor
    """Each row's texts one behind the other [rows, texts · tokens, width]"""
    texts: int
    """How many these are."""
    mask: torch.Tensor | None
    """What is added to the attention's logits [rows, 1, positions, positions]; None where nothing is hidden."""
    shares: torch.Tensor
    """Of each position, how much it is each source's [rows, positions, sources]"""
    changes: Mapping[str, Change]


def cached(base: Base, sources: Sequence[Source]) -> Cache:
    """Texts and low-rank weights of all sources."""
    return Cache(torch.stack([source.contexts[0] for source in sources]), changes(base, sources))


def arranged(base: Base, cache: Cache, rows: Rows, size: tuple[int, int]) -> Arranged:
    """A batch of rows of latents of a size (width, height), drawn from the cache's sources."""
    belongs, mask = laid_out(parts(base, rows, size), cache.texts.shape[1])
    texts = belongs.shape[-1]
    return Arranged(
        cache.texts[torch.tensor(sources_of(rows), device=base.device)].flatten(1, 2), texts,
        mask.to(base.compute) if texts > 1 else None, shared(base, belongs, rows, len(cache.texts)), cache.changes,
    )  # fmt: skip


def predict(
    base: Base, latents: torch.Tensor, t: torch.Tensor, rows: Arranged, followed: Any = None
) -> torch.Tensor:
    """The transformer's prediction for each row of latents [rows, channels, h, w]."""
    spoken = rows.words.shape[1]

    def shares(site: str) -> torch.Tensor:
        return rows.shares[:, 0 if sees_words(site) else spoken : None if sees_cells(site) else spoken]

    with carried(base, rows.changes, shares):
        return ask(base, latents, t, rows.words, rows.texts, rows.mask)
