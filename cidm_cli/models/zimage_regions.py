"""Regions in Z-Image, by one attention of picture and several texts (``joint_regions``).

The blocks before it see each text, and the picture, by itself, as ever. A text takes as many positions as it does
alone, and ends right before the picture: the same distance from it, however long the others are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF as FULL
from torch import nn

from ..bases.joint import CELL
from .base import Base
from .family import Rows, Source
from .joint_regions import Change, carried, changes, laid_out, parts, shared, sources_of
from .zimage_asking import said, told

Entered = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Positions as the blocks see them [rows, positions, width], their places, and which are there, None for all."""


@dataclass(frozen=True)
class Cache:
    """All that depends on the sources alone."""

    texts: Sequence[torch.Tensor]
    """Of each source [tokens, width]"""
    changes: Mapping[str, Change]
    """By site."""


@dataclass(frozen=True)
class Arranged:
    """A batch of rows, ready to be asked for at any timestep."""

    texts: Sequence[Sequence[torch.Tensor]]
    """Of each row, as many."""
    tokens: int
    """Positions of the longest of them; so many are kept for each."""
    mask: torch.Tensor
    """What is added to the attention's logits [rows, 1, positions, positions]"""
    shares: torch.Tensor
    """Of each position, how much it is each source's [rows, positions, sources]"""
    changes: Mapping[str, Change]


def cached(base: Base, sources: Sequence[Source]) -> Cache:
    """Texts and low-rank weights of all sources."""
    texts = said(base, torch.stack([source.contexts[0] for source in sources]))
    return Cache(texts, changes(base, sources))


def arranged(base: Base, cache: Cache, rows: Rows, size: tuple[int, int]) -> Arranged:
    """A batch of rows of latents of a size (width, height), drawn from the cache's sources."""
    cells = parts(base, rows, (size[0] // CELL, size[1] // CELL))
    # What fills the picture up is everybody's, as the picture is.
    filling = cells.mean(1, keepdim=True).expand(-1, -cells.shape[1] % FULL, -1)
    texts = [[cache.texts[number] for number in row] for row in sources_of(rows)]
    lengths = torch.tensor([[_filled(text) for text in row] for row in texts], device=base.device)
    tokens = int(lengths.max())
    belongs, mask = laid_out(torch.cat([cells, filling], 1), tokens)
    absent = torch.arange(tokens, device=base.device) >= lengths[..., None]
    spoken = absent.flatten(1)
    mask[..., : spoken.shape[1]].masked_fill_(spoken[:, None, None], -torch.inf)
    shares = shared(base, belongs, rows, len(cache.texts))
    return Arranged(texts, tokens, mask.to(base.compute), shares, cache.changes)


def predict(
    base: Base, latents: torch.Tensor, t: torch.Tensor, rows: Arranged, followed: Any = None
) -> torch.Tensor:
    """The transformer's prediction for each row of latents [rows, channels, h, w], in float32."""
    spoken = len(rows.texts[0]) * rows.tokens

    def shares(site: str) -> torch.Tensor:
        if ".adaLN_modulation." in site:
            # What is made of the timestep is made for all positions at once.
            return rows.shares[:, spoken:].mean(1)
        if site.startswith("noise_refiner."):
            return rows.shares[:, spoken:]
        if site.startswith("context_refiner."):
            return rows.shares[:, :spoken].unflatten(1, (-1, rows.tokens)).flatten(0, 1)
        return rows.shares

    with carried(base, rows.changes, shares), base.autocast():
        return _asked(base.denoiser, latents, told(t, latents), rows)


def _asked(model: Any, latents: torch.Tensor, time: torch.Tensor, rows: Arranged) -> torch.Tensor:
    """As the transformer's own forward pass, with several texts a row."""
    adapted = model.t_embedder(time * model.t_scale).type_as(latents)
    pictures, words, sizes = [], [], []
    for latent, texts in zip(latents[:, :, None], rows.texts, strict=True):
        ends = max(map(_filled, texts)) + 1
        cells, size, grid = model._patchify_image(latent, CELL, 1)
        sizes.append(size)
        pictures.append(model._pad_with_ids(cells, grid, (ends, 0, 0), latents.device))
        for text in texts:
            length = _filled(text)
            words.append(model._pad_with_ids(text, (length, 1, 1), (ends - length, 0, 0), latents.device))
    x, places, _ = _entered(model, model.all_x_embedder[f"{CELL}-1"], model.x_pad_token, pictures)
    for block in model.noise_refiner:
        x = block(x, None, places, adapted)
    heard, spoken, there = _entered(model, model.cap_embedder, model.cap_pad_token, words)
    for block in model.context_refiner:
        heard = block(heard, there, spoken)
    heard, spoken = (each.unflatten(0, (len(x), -1)).flatten(1, 2) for each in (heard, spoken))
    x, places = torch.cat([heard, x], 1), torch.cat([spoken, places], 1)
    for block in model.layers:
        x = block(x, rows.mask, places, adapted)
    x = model.all_final_layer[f"{CELL}-1"](x, c=adapted)[:, heard.shape[1] :]
    return -torch.stack(model.unpatchify(list(x.unbind()), sizes, CELL, 1))[:, :, 0].float()


def _entered(model: Any, embed: nn.Module, filler: torch.Tensor, given: Sequence[Sequence[Any]]) -> Entered:
    """What enters the blocks of what ``_pad_with_ids`` gave of each row."""
    features, places, fills = (list(some) for some in zip(*(one[:3] for one in given), strict=True))
    embedded = embed(torch.cat(features)).split([len(one) for one in features])
    found: Entered = model._prepare_sequence(list(embedded), places, fills, filler, None, features[0].device)[
        :3
    ]
    return found


def _filled(text: torch.Tensor) -> int:
    """Positions that a text takes."""
    return -(-len(text) // FULL) * FULL
