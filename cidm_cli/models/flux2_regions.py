"""Regions in FLUX.2: one joint attention to several texts, each with weights of its own.

All texts of a row stand in one sequence, before the picture's cells. A mask lets a text see itself and its own cells,
and a cell the texts that it has a share of; cells see each other, or two pictures would come out side by side. Low-rank
weights act on the positions of their text, and on cells by their share. Nothing is merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .base import Base
from .compiling import uncompiled
from .family import Rows, Source
from .flux2_asking import ask, sees_cells, sees_words

Change = tuple[torch.Tensor, torch.Tensor]
"""Down [in, sources · r] and up [sources · r, out] of all sources side by side; ranks are filled up with zeros."""


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
    sites = sorted({site for source in sources for site in source.factors})
    texts = torch.stack([source.contexts[0] for source in sources])
    return Cache(texts, {site: _stacked(base, site, sources) for site in sites})


def arranged(base: Base, cache: Cache, rows: Rows, size: tuple[int, int]) -> Arranged:
    """A batch of rows of latents of a size (width, height), drawn from the cache's sources."""
    tokens, cells = cache.texts.shape[1], size[0] * size[1]
    parts = rows.weights(size) if rows.patches else torch.zeros(0, len(rows.whole), size[1], size[0])
    parts = parts.to(base.device).flatten(2).movedim(0, -1)
    left = (1 - parts.sum(-1, keepdim=True)).clamp(min=0)
    own = torch.cat([left, parts], -1)  # [rows, cells, texts]
    texts = own.shape[-1]
    spoken = torch.eye(texts, device=base.device).repeat_interleave(tokens, 0).expand(len(own), -1, -1)
    belongs = torch.cat([spoken, own], 1)  # [rows, positions, texts]
    sources = torch.tensor([[whole, *rows.patches] for whole in rows.whole], device=base.device)
    shares = belongs @ F.one_hot(sources, len(cache.texts)).float()
    mask = None
    if texts > 1:
        seen = torch.where(own > 0, 0.0, -torch.inf).mT.repeat_interleave(tokens, 1)
        picture = torch.cat([seen, seen.new_zeros(len(own), cells, cells)], 1)
        mask = torch.cat([belongs.log().repeat_interleave(tokens, 2), picture], 2)[:, None].to(base.compute)
    words = cache.texts[sources].flatten(1, 2)
    return Arranged(words, texts, mask, shares.to(base.compute), cache.changes)


def predict(
    base: Base, latents: torch.Tensor, t: torch.Tensor, rows: Arranged, followed: Any = None
) -> torch.Tensor:
    """The transformer's prediction for each row of latents [rows, channels, h, w]."""
    spoken = rows.words.shape[1]
    with ExitStack() as stack:
        if rows.changes:
            stack.enter_context(uncompiled(base))
        for site, change in rows.changes.items():
            begin = 0 if sees_words(site) else spoken
            shares = rows.shares[:, begin : None if sees_cells(site) else spoken]
            hook = partial(_added, change, shares)
            stack.callback(base.denoiser.get_submodule(site).register_forward_hook(hook, prepend=True).remove)
        return ask(base, latents, t, rows.words, rows.texts, rows.mask)


def _stacked(base: Base, site: str, sources: Sequence[Source]) -> Change:
    having = [source.factors.get(site) for source in sources]
    rank = max(len(pair[1]) for pair in having if pair is not None)
    height, width = base.denoiser.get_submodule(site).weight.shape
    up = torch.zeros(len(sources), rank, height, device=base.device, dtype=base.compute)
    down = torch.zeros(len(sources), rank, width, device=base.device, dtype=base.compute)
    for number, pair in enumerate(having):
        if pair is not None:
            up[number, : len(pair[1])], down[number, : len(pair[1])] = pair[0].T.to(up), pair[1].to(down)
    return down.flatten(0, 1).T, up.flatten(0, 1)


def _added(
    change: Change, shares: torch.Tensor, _module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
) -> torch.Tensor:
    """A linear layer's output with each source's low-rank change added in its share of each position."""
    down, up = change
    inner = (args[0].to(down.dtype) @ down).unflatten(-1, (shares.shape[-1], -1)) * shares[..., None]
    return output + (inner.flatten(-2) @ up).to(output.dtype)
