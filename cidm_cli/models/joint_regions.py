"""Regions in one joint attention to several texts, each with weights of its own.

All texts of a row stand in one sequence, before the picture's cells. A mask lets a text see itself and its own cells,
and a cell the texts that it has a share of; cells see each other, or two pictures would come out side by side. Low-rank
weights act on the positions of their text, and on cells by their share. Nothing is merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .base import Base
from .compiling import uncompiled
from .family import Rows, Source

Change = tuple[torch.Tensor, torch.Tensor]
"""Down [in, sources · r] and up [sources · r, out] of all sources side by side; ranks are filled up with zeros."""


def parts(base: Base, rows: Rows, grid: tuple[int, int]) -> torch.Tensor:
    """How much each cell of a grid (width, height) is each text's, the whole's first [rows, cells, texts]."""
    given = rows.weights(grid) if rows.patches else torch.zeros(0, len(rows.whole), grid[1], grid[0])
    given = given.to(base.device).flatten(2).movedim(0, -1)
    return torch.cat([(1 - given.sum(-1, keepdim=True)).clamp(min=0), given], -1)


def sources_of(rows: Rows) -> list[list[int]]:
    """Of each row, the source of each text."""
    return [[whole, *rows.patches] for whole in rows.whole]


def laid_out(cells: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of so many tokens, one behind the other, and then cells, given as ``parts`` gives them.

    Returns:
        How much each position is each text's [rows, positions, texts], and what is added to the attention's logits
        [rows, 1, positions, positions].
    """
    count = cells.shape[1]
    spoken = torch.eye(cells.shape[-1], device=cells.device).repeat_interleave(tokens, 0)
    belongs = torch.cat([spoken.expand(len(cells), -1, -1), cells], 1)
    seen = torch.where(cells > 0, 0.0, -torch.inf).mT.repeat_interleave(tokens, 1)
    picture = torch.cat([seen, seen.new_zeros(len(cells), count, count)], 1)
    return belongs, torch.cat([belongs.log().repeat_interleave(tokens, 2), picture], 2)[:, None]


def shared(base: Base, belongs: torch.Tensor, rows: Rows, sources: int) -> torch.Tensor:
    """Of each position, how much it is each source's [rows, positions, sources]."""
    of = torch.tensor(sources_of(rows), device=base.device)
    return (belongs @ F.one_hot(of, sources).float()).to(base.compute)


def changes(base: Base, sources: Sequence[Source]) -> dict[str, Change]:
    """The low-rank weights of all sources, by site."""
    sites = sorted({site for source in sources for site in source.factors})
    return {site: _stacked(base, site, sources) for site in sites}


@contextmanager
def carried(
    base: Base, changes: Mapping[str, Change], shares: Callable[[str], torch.Tensor]
) -> Iterator[None]:
    """While open, layers add each source's change in its share of each position.

    Args:
        shares: given a site, those of the positions that it is fed, [.., positions, sources].
    """
    with ExitStack() as stack:
        if changes:
            stack.enter_context(uncompiled(base))
        for site, change in changes.items():
            hook = partial(_added, change, shares(site))
            stack.callback(base.denoiser.get_submodule(site).register_forward_hook(hook, prepend=True).remove)
        yield


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
