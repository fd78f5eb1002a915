"""Concepts of one prompt that are kept apart without boxes: by words, and by cells as the attention tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from cidm_registry import Record

from ..method import routing
from ..models.base import Base
from ..models.family import Factors, Own
from ..models.text import Tokens
from .encoded import Said
from .mixtures import Loader, alone, factors, kept_apart, spoken

POWER = 4.0
"""Exponent of a concept's part in a cell."""
BIAS = 4.0
"""Logits that a cell looks less at words of concepts that are not its own."""


def owns(base: Base, load: Loader, said: Said) -> tuple[tuple[Own, ...], ...]:
    """The used concepts, each with its own words, in what is said without the prompt and with it.

    Where regions are to be found they have no weights yet: all of them in one picture would spoil what it begins as.
    """
    changes: list[Factors] = [
        {site: pair for site, pair in factors(base, one, load).items() if kept_apart(base, one, site)}
        if one.method != "found"
        else {}
        for one in alone(said.chosen)
    ]
    out = []
    for text, named in said.both:
        chunks, _ = spoken(base, load, text, named)
        words = torch.cat([_words(chunk, said.chosen.used) for chunk in chunks], 1)
        rows = routing.token_parts(words)
        out.append(tuple(Own(*one) for one in zip(changes, words, rows, strict=True)))
    return tuple(out)


def _words(chunk: Tokens, used: Sequence[Record]) -> torch.Tensor:
    """1 at each concept's own tokens of a chunk [concepts, tokens]."""
    words = torch.zeros(len(used), len(chunk.ids))
    for position, key, _ in chunk.slots:
        for number, record in enumerate(used):
            words[number, position] += record.key == key
    return words


def as_long(own: Sequence[Own], tokens: int) -> tuple[Own, ...]:
    """The same for a text of so many tokens, in which it stands again and again, as ``text.read`` makes texts alike."""
    return tuple(
        replace(
            one,
            words=one.words.repeat(tokens // len(one.words)),
            rows=one.rows.repeat(tokens // len(one.rows)),
        )
        for one in own
    )


def decide(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each concept's part of each cell, and how much less that looks at its words."""
    parts = routing.cell_parts(maps, POWER)
    return parts, routing.withheld(parts, BIAS)
