"""Cross-attention to several texts at once: each row of a batch to its own, and parts of a row to others.

Nothing is merged into the UNet's weights. A *source* is a text with its own low-rank weights; each row of the batch has
one for the whole picture, and *patches* say where another takes its place, cell by cell. Keys and values of all
sources are computed once for all steps. While denoising, a layer gathers the cells of all patches into one rectangle,
and treats it in a handful of operations however many regions there are: on small bases, starting operations is what
costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn import functional as F

from .attention import cross_attention_layers
from .base import Base
from .compiling import uncompiled
from .family import Own, Rows, Source
from .offload import present
from .prediction import ask
from .structure import Condition


@dataclass(frozen=True)
class LowRank:
    """Low-rank changes of one linear layer, one for each of several inputs; ranks are filled up with zeros."""

    down: torch.Tensor
    """[inputs, in, r]"""
    up: torch.Tensor
    """[inputs, r, out]"""


@dataclass(frozen=True)
class Text:
    """One cross-attention layer's view of several sources."""

    keys: torch.Tensor
    """[sources, heads, tokens, width of a head]"""
    values: torch.Tensor
    query: LowRank | None
    out: LowRank | None


@dataclass(frozen=True)
class Cache:
    """All that depends on the sources alone."""

    texts: Mapping[str, Text]
    """By cross-attention layer."""
    elsewhere: Mapping[str, LowRank]
    """Of the sites that do not belong to attention to text."""
    unread: torch.Tensor
    """A text in the shape the UNet expects, [1, tokens, width]; nothing attends to it."""
    pooled: torch.Tensor | None
    """[sources, width]"""


@dataclass(frozen=True)
class Place:
    """Where patches lie in the cells of a batch's rows, counted row by row at one grid."""

    taken: torch.Tensor
    """[patches, n]: the cells of each patch, filled up with cells it does not have."""
    entries: torch.Tensor
    """[depth, cells]: where in ``taken``, laid flat, each cell's patches are, for as many as meet in one."""
    weights: torch.Tensor
    """[depth, cells, 1]: their shares."""
    kept: torch.Tensor
    """[cells, 1]: what they leave to the row's own source."""


@dataclass(frozen=True)
class Arranged:
    """A batch of rows, ready to be estimated at any timestep."""

    processors: Mapping[str, Callable[..., torch.Tensor]]
    """By cross-attention layer."""
    hooks: Mapping[str, Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]]
    """By the name of a layer that does not belong to attention to text."""
    unread: torch.Tensor
    """[rows, tokens, width]"""
    pooled: torch.Tensor | None
    """Of each row's own source [rows, width]."""


@torch.no_grad()
def cached(base: Base, sources: Sequence[Source]) -> Cache:
    """Keys, values and low-rank weights of all sources at every layer, in the precision that the base computes in."""
    texts = {}
    with present(base.device, base.denoiser), base.autocast():
        for layer, name in enumerate(cross_attention_layers(base.denoiser)):
            context = torch.stack([source.contexts[layer] for source in sources])
            texts[name] = _text(base, name, context, sources)
    others = sorted({site for source in sources for site in source.factors if ".attn2." not in site})
    elsewhere = {site: stacked(base, site, sources) for site in others}
    first = torch.stack([source.contexts[0] for source in sources[:1]])
    wholes = [source.pooled for source in sources if source.pooled is not None]
    return Cache(
        texts, {site: some for site, some in elsewhere.items() if some is not None}, first,
        torch.stack(wholes) if wholes else None,
    )  # fmt: skip


def arranged(base: Base, cache: Cache, rows: Rows, size: tuple[int, int]) -> Arranged:
    """A batch of rows of latents of a size (width, height), drawn from the cache's sources.

    Done once for all steps: which cells belong to which patch at each grid of the UNet.
    """
    levels = grids(base.denoiser, size)
    shares = {w * h: rows.weights((w, h)).to(base.device) for w, h in levels} if rows.patches else {}
    places = {cells: _place(some, base.compute) for cells, some in shares.items()}
    there = {cells: place for cells, place in places.items() if place is not None}
    processors = {
        name: Regional(
            _picked(text, rows.whole), _picked(text, rows.patches) if rows.patches else None, there
        )
        for name, text in cache.texts.items()
    }
    hooks = {}
    if cache.elsewhere:
        sources = len(next(iter(cache.texts.values())).keys)
        mixed = {w * h: _by_source(rows, shares.get(w * h), w * h, sources, base) for w, h in levels}
        hooks = {site: partial(added, change, mixed) for site, change in cache.elsewhere.items()}
    pooled = None if cache.pooled is None else cache.pooled[list(rows.whole)]
    return Arranged(processors, hooks, cache.unread.expand(len(rows.whole), -1, -1), pooled)


def predict(
    base: Base, latents: torch.Tensor, t: torch.Tensor, rows: Arranged, followed: Condition | None = None
) -> torch.Tensor:
    """The UNet's prediction for each row of latents [rows, channels, h, w], each following a structure if need be."""
    with uncompiled(base) if rows.hooks else nullcontext(), _attending(base.denoiser, rows):
        return ask(base, latents, t, rows.unread, rows.pooled, followed=followed)


@dataclass(frozen=True)
class Regional:
    """An attention processor for one layer and one batch of rows."""

    rows: Text
    """Of each row's own source."""
    patches: Text | None
    places: Mapping[int, Place]
    """By the number of cells of a grid."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        query = attn.to_q(hidden_states)
        whole = _attended(attn, _changed(query, hidden_states, self.rows.query), self.rows)
        place = self.places.get(hidden_states.shape[1])
        if self.patches is None or place is None:
            return whole
        part = query.flatten(0, 1)[place.taken]
        if self.patches.query is not None:
            part = _changed(part, hidden_states.flatten(0, 1)[place.taken], self.patches.query)
        part = _attended(attn, part, self.patches).flatten(0, 1)
        blended = whole.flatten(0, 1) * place.kept
        for entries, weights in zip(place.entries, place.weights, strict=True):
            blended = torch.addcmul(blended, part[entries], weights)
        return blended.view_as(whole)


def _attended(attn: Attention, query: torch.Tensor, text: Text) -> torch.Tensor:
    """Softmax attention of queries [inputs, n, inner] to a text for each input, projected out again."""
    split = query.unflatten(-1, (text.keys.shape[1], -1)).transpose(1, 2)
    found = F.scaled_dot_product_attention(split, text.keys, text.values).transpose(1, 2).flatten(2)
    return _changed(attn.to_out[0](found), found, text.out)


def _changed(output: torch.Tensor, given: torch.Tensor, change: LowRank | None) -> torch.Tensor:
    """A linear layer's output [inputs, n, out] with a low-rank change of its weight added, for each input its own."""
    if change is None:
        return output
    return torch.baddbmm(output, torch.bmm(given.to(output.dtype), change.down), change.up)


@contextmanager
def _attending(unet: UNet2DConditionModel, rows: Arranged) -> Iterator[None]:
    modules = {name: unet.get_submodule(name) for name in rows.processors}
    before = {name: module.processor for name, module in modules.items()}
    with ExitStack() as stack:
        try:
            for name, module in modules.items():
                module.set_processor(rows.processors[name])
            for site, hook in rows.hooks.items():
                # Before anybody who listens: what they hear is then what the layer does.
                stack.callback(unet.get_submodule(site).register_forward_hook(hook, prepend=True).remove)
            yield
        finally:
            for name, module in modules.items():
                module.set_processor(before[name])


def _text(base: Base, name: str, context: torch.Tensor, sources: Sequence[Source]) -> Text:
    attn = base.denoiser.get_submodule(name)
    keys, values = (
        _changed(linear(context), context, stacked(base, f"{name}.{leaf}", sources))
        .unflatten(-1, (attn.heads, -1))
        .transpose(1, 2)
        .contiguous()
        for leaf, linear in (("to_k", attn.to_k), ("to_v", attn.to_v))
    )
    query, out = (stacked(base, f"{name}.{leaf}", sources) for leaf in ("to_q", "to_out.0"))
    return Text(keys, values, query, out)


def stacked(base: Base, site: str, sources: Sequence[Source | Own]) -> LowRank | None:
    """The low-rank weights of all sources at a site, or None where no source has any."""
    having = [source.factors.get(site) for source in sources]
    rank = max((pair[1].shape[0] for pair in having if pair is not None), default=0)
    if not rank:
        return None
    width_out, width_in = base.denoiser.get_submodule(site).weight.shape[:2]
    down = torch.zeros(len(sources), width_in, rank, device=base.device, dtype=base.compute)
    up = torch.zeros(len(sources), rank, width_out, device=base.device, dtype=base.compute)
    for number, pair in enumerate(having):
        if pair is not None:
            down[number, :, : pair[1].shape[0]] = pair[1].T.to(down)
            up[number, : pair[1].shape[0]] = pair[0].T.to(up)
    return LowRank(down, up)


def _picked(text: Text, sources: Sequence[int]) -> Text:
    which = torch.tensor(sources, device=text.keys.device)

    def some(change: LowRank | None) -> LowRank | None:
        if change is None or not change.up[which].any():
            return None
        return LowRank(change.down[which], change.up[which])

    return Text(text.keys[which], text.values[which], some(text.query), some(text.out))


def grids(unet: UNet2DConditionModel, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Width and height at each level of the UNet: a side of odd length is halved to the larger half."""
    levels = [size]
    for _ in unet.config.block_out_channels[1:]:
        width, height = levels[-1]
        levels.append((-(-width // 2), -(-height // 2)))
    return levels


def _place(weights: torch.Tensor, dtype: torch.dtype) -> Place | None:
    """The place of patches of given weights [patches, rows, height, width], or None where there are none."""
    flat = weights.flatten(1)
    active = flat > 0
    longest, depth = int(active.sum(1).max()), int(active.sum(0).max())
    if not longest:
        return None
    # Sorting keeps equals in order: what is active comes first, and nothing depends on chance.
    taken = active.byte().argsort(dim=1, descending=True, stable=True)[:, :longest]
    number = active.cumsum(1) - 1
    meeting = active.byte().argsort(dim=0, descending=True, stable=True)[:depth]
    entries = meeting * longest + number.gather(0, meeting).clamp(min=0)
    kept = (1 - flat.sum(0)).clamp(min=0)
    return Place(taken, entries, flat.gather(0, meeting)[..., None].to(dtype), kept[:, None].to(dtype))


def _by_source(
    rows: Rows, weights: torch.Tensor | None, cells: int, sources: int, base: Base
) -> torch.Tensor:
    """Each source's share of each cell of each row, [rows * cells, sources, 1]."""
    shares = torch.zeros(sources, len(rows.whole), cells, device=base.device)
    kept = torch.ones(len(rows.whole), cells, device=base.device)
    if weights is not None:
        shares.index_add_(0, torch.tensor(rows.patches, device=base.device), weights.flatten(2))
        kept = (1 - weights.flatten(2).sum(0)).clamp(min=0)
    for row, source in enumerate(rows.whole):
        shares[source, row] += kept[row]
    return shares.flatten(1).T[..., None].to(base.compute)


def added(
    change: LowRank,
    shares: Mapping[int, torch.Tensor],
    _module: nn.Module,
    args: tuple[Any, ...],
    output: torch.Tensor,
) -> torch.Tensor:
    """A linear layer's output with each source's low-rank change added in its share of each cell.

    The layer may be a 1x1 convolution, whose inputs and outputs are [rows, channels, h, w].
    """
    given = args[0]
    if given.ndim == 4:
        cells = given.flatten(2).transpose(1, 2)
        mixed = changes(change, shares[cells.shape[1]], cells, output.dtype)
        return output + mixed.transpose(1, 2).view_as(output)
    return output + changes(change, shares[given.shape[1]], given, output.dtype)


def changes(change: LowRank, shares: torch.Tensor, given: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[rows, cells, out] of inputs [rows, cells, in], by each one's shares [rows * cells, inputs, 1].

    The ranks of all are side by side, in one product.
    """
    rows, cells, _ = given.shape
    inner = given.flatten(0, 1).to(dtype) @ change.down.transpose(0, 1).flatten(1)
    mixed = inner.unflatten(-1, (len(change.up), -1)) * shares
    return (mixed.flatten(1) @ change.up.flatten(0, 1)).unflatten(0, (rows, cells))
