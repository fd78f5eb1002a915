"""Rows of a batch that attend to one text each: the denoiser as it stands, with no part of a row drawn otherwise.

The same three functions as of an architecture that draws regions (``family.Regions``), for sources without weights of
their own: what is drawn is in the denoiser's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .base import Base
from .family import Rows, Source
from .structure import Condition


@dataclass(frozen=True)
class Arranged:
    """A batch of rows, ready to be predicted at any timestep."""

    contexts: Sequence[torch.Tensor]
    """Of each layer [rows, tokens, width]"""
    pooled: torch.Tensor | None
    """[rows, width]"""


def cached(_base: Base, sources: Sequence[Source]) -> Sequence[Source]:
    """The sources themselves."""
    return sources


def arranged(_base: Base, cache: Sequence[Source], rows: Rows, _size: tuple[int, int]) -> Arranged:
    """A batch of rows; layers that look at the same memory look at the same again."""
    said = [cache[number] for number in rows.whole]
    pooled = [source.pooled for source in said if source.pooled is not None]
    return Arranged(
        joined(*([context[None] for context in source.contexts] for source in said)),
        torch.stack(pooled) if pooled else None,
    )


def predict(
    base: Base, latents: torch.Tensor, t: torch.Tensor, rows: Arranged, followed: Condition | None = None
) -> torch.Tensor:
    """The prediction for each row of latents [rows, channels, h, w], each following a structure if need be."""
    return base.predict(latents, t, rows.contexts, rows.pooled, followed=followed)


def joined(*texts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Texts in one batch, a layer each; layers that look at the same memory look at the same again."""
    made: dict[tuple[object, ...], torch.Tensor] = {}
    out = []
    for rows in zip(*texts, strict=True):
        seen = tuple(
            (text.untyped_storage()._cdata, text.storage_offset(), text.shape, text.stride()) for text in rows
        )
        if seen not in made:
            made[seen] = torch.cat(rows)
        out.append(made[seen])
    return out
