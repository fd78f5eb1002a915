"""Attention to a text that several concepts stand in, each of which keeps to its own words and its own cells.

Keys and values of all texts are computed once for all steps, each concept's changes in the rows that are its own.
While denoising, a layer first looks at how much each cell attends to each concept's words, and by that decides where
the concept's other changes act; layers that do not attend to text take what the last one found. The same functions as
of ``regional``, for batches without patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn import functional as F

from . import regional
from .attention import cross_attention_layers
from .base import Base
from .family import Routing, Rows, Source
from .offload import present
from .regional import LowRank, Text, changes, grids, stacked
from .structure import Condition


@dataclass(frozen=True)
class Cache:
    """All that depends on the sources alone."""

    texts: Mapping[str, Text]
    """By cross-attention layer."""
    elsewhere: Mapping[str, LowRank]
    """Of the sites that do not belong to attention to text."""
    words: torch.Tensor
    """[sources, concepts, tokens], 1 at each concept's tokens"""
    unread: torch.Tensor
    """A text in the shape the UNet expects, [1, tokens, width]; nothing attends to it."""
    pooled: torch.Tensor | None
    """[sources, width]"""


@dataclass
class Cells:
    """Which cells are whose, as far as a forward pass has come."""

    routing: Routing | None
    """None where all are everybody's."""
    words: torch.Tensor
    """[rows, concepts, tokens]"""
    grids: Mapping[int, tuple[int, int]]
    """Width and height by the number of cells."""
    parts: torch.Tensor | None = None
    """What the last layer decided [rows, concepts, h, w]."""

    def at(self, cells: int) -> torch.Tensor:
        """Each concept's part of each cell [rows * cells, concepts, 1]; before any layer decided, 1."""
        rows, concepts, _ = self.words.shape
        if self.parts is None:
            return self.words.new_ones(rows * cells, concepts, 1)
        width, height = self.grids[cells]
        parts = self.parts
        if parts.shape[2:] != (height, width):
            parts = F.interpolate(parts, (height, width), mode="area")
        return parts.flatten(2).transpose(1, 2).flatten(0, 1)[..., None].to(self.words)

    def decide(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor | None:
        """Decides by queries and keys [rows, heads, n, width]; what is added to their products [rows, 1, n, tokens]."""
        if self.routing is None:
            return None
        told, (width, height) = list(self.routing.told_by), self.grids[query.shape[2]]
        products = query[told].float() @ keys[told].float().transpose(2, 3)
        attention = (products * query.shape[3] ** -0.5).softmax(-1).mean(1)
        words = self.words[told].float()
        looks = (words / words.sum(2, keepdim=True)) @ attention.transpose(1, 2)
        self.parts, withheld = self.routing.decide(looks.unflatten(2, (height, width)))
        return -(withheld.flatten(2).transpose(1, 2).to(self.words) @ self.words)[:, None]


@dataclass(frozen=True)
class Arranged:
    """A batch of rows, ready to be predicted at any timestep."""

    layers: regional.Arranged
    cells: Cells


@dataclass(frozen=True)
class Routed:
    """An attention processor for one layer and one batch of rows."""

    text: Text
    """Of each row."""
    cells: Cells

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        plain, heads = attn.to_q(hidden_states), self.text.keys.shape[1]

        def split() -> torch.Tensor:
            changed = self._changed(plain, hidden_states, self.text.query)
            return changed.unflatten(-1, (heads, -1)).transpose(1, 2)

        bias = self.cells.decide(split(), self.text.keys)
        found = F.scaled_dot_product_attention(split(), self.text.keys, self.text.values, attn_mask=bias)
        found = found.transpose(1, 2).flatten(2)
        return self._changed(attn.to_out[0](found), found, self.text.out)

    def _changed(self, output: torch.Tensor, given: torch.Tensor, change: LowRank | None) -> torch.Tensor:
        if change is None:
            return output
        return output + changes(change, self.cells.at(given.shape[1]), given, output.dtype)


@torch.no_grad()
def cached(base: Base, sources: Sequence[Source]) -> Cache:
    """Keys and values of all sources at every layer; all have the same concepts, in one order."""
    own = sources[0].own
    parts = torch.stack([torch.stack([one.rows for one in source.own]) for source in sources])
    words = torch.stack([torch.stack([one.words for one in source.own]) for source in sources])
    parts, words = parts.to(base.device, base.compute), words.to(base.device, base.compute)
    rows = parts.transpose(1, 2).flatten(0, 1)[..., None]
    texts = {}
    with present(base.device, base.denoiser), base.autocast():
        for layer, name in enumerate(cross_attention_layers(base.denoiser)):
            attn = base.denoiser.get_submodule(name)
            context = torch.stack([source.contexts[layer] for source in sources])
            both = []
            for leaf, linear in (("to_k", attn.to_k), ("to_v", attn.to_v)):
                out, change = linear(context), stacked(base, f"{name}.{leaf}", own)
                if change is not None:
                    out = out + changes(change, rows, context, out.dtype)
                both.append(out.unflatten(-1, (attn.heads, -1)).transpose(1, 2).contiguous())
            query, back = (stacked(base, f"{name}.{leaf}", own) for leaf in ("to_q", "to_out.0"))
            texts[name] = Text(both[0], both[1], query, back)
    sites = sorted({site for one in own for site in one.factors if ".attn2." not in site})
    found = {site: stacked(base, site, own) for site in sites}
    wholes = [source.pooled for source in sources if source.pooled is not None]
    return Cache(
        texts, {site: some for site, some in found.items() if some is not None}, words,
        sources[0].contexts[0][None], torch.stack(wholes) if wholes else None,
    )  # fmt: skip


def arranged(base: Base, cache: Cache, rows: Rows, size: tuple[int, int]) -> Arranged:
    """A batch of rows of latents of a size (width, height), drawn from the cache's sources."""
    whole = list(rows.whole)
    cells = Cells(rows.routing, cache.words[whole], {w * h: (w, h) for w, h in grids(base.denoiser, size)})
    processors = {
        name: Routed(Text(text.keys[whole], text.values[whole], text.query, text.out), cells)
        for name, text in cache.texts.items()
    }
    hooks = {site: partial(_added, change, cells) for site, change in cache.elsewhere.items()}
    pooled = None if cache.pooled is None else cache.pooled[whole]
    layers = regional.Arranged(processors, hooks, cache.unread.expand(len(whole), -1, -1), pooled)
    return Arranged(layers, cells)


def predict(
    base: Base, latents: torch.Tensor, t: torch.Tensor, rows: Arranged, followed: Condition | None = None
) -> torch.Tensor:
    """The UNet's prediction for each row of latents [rows, channels, h, w], each following a structure if need be."""
    rows.cells.parts = None
    return regional.predict(base, latents, t, rows.layers, followed)


def _added(
    change: LowRank, cells: Cells, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
) -> torch.Tensor:
    given = args[0]
    number = given.shape[2:].numel() if given.ndim == 4 else given.shape[1]
    return regional.added(change, {number: cells.at(number)}, module, args, output)
