"""What prompts say to the denoiser, encoded once however many batches their pictures are drawn in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch

from cidm_registry import Record

from ..models import sampling, text
from ..models import structure as control
from ..models.base import Base
from ..models.offload import present
from ..options.draw import DrawOptions
from . import structure
from .mixtures import Applied, Loader, Mixture, spoken

Text = tuple[tuple[torch.Tensor, ...], torch.Tensor | None]
"""What each layer attends to [1, tokens, width], and the text as a whole [1, width] if need be."""

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Said:
    """What a picture is asked for with."""

    prompt: str
    negative: str
    chosen: Mixture


@dataclass
class Texts:
    """Encodes what is said. What one batch of pictures and the next have in common is encoded once."""

    base: Base
    load: Loader
    on_note: Callable[[str], None] = lambda note: None
    _without: dict[tuple[str, ...], Text] = field(default_factory=dict)
    _given: dict[tuple[str, ...], Text] = field(default_factory=dict)
    _heard: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def of(self, batch: Sequence[Said]) -> list[tuple[Text, Text]]:
        """Of each picture of a batch, without its prompt and with it.

        Raises:
            CidmError: USAGE when a prompt is so long that a concept in it is cut off.
        """
        keys = [
            (
                (said.negative, *(record.blob for record in said.chosen.against)),
                (said.prompt, *(record.blob for record in said.chosen.named)),
            )
            for said in batch
        ]
        new = any(without not in self._without or given not in self._given for without, given in keys)
        with present(self.base.device, *(self.base.encoders if new else ())):
            made = [*zip(keys, batch, strict=True)]
            self._without = _once(
                self._without,
                {
                    without: partial(self._encoded, said.negative, said.chosen.against, "negative prompt")
                    for (without, _), said in made
                },
            )
            self._given = _once(
                self._given,
                {
                    given: partial(self._encoded, said.prompt, said.chosen.named, "prompt")
                    for (_, given), said in made
                },
            )
        return [(self._without[without], self._given[given]) for without, given in keys]

    def heard(self, batch: Sequence[Said]) -> torch.Tensor:
        """What a model that follows a structure hears of a batch, [2 pictures, tokens, width].

        Of each picture without its prompt, then of each with it.
        """
        pairs = [
            structure.heard_of(said.prompt, said.negative, said.chosen.named, said.chosen.against)
            for said in batch
        ]
        self._heard = _once(
            self._heard, {pair: partial(control.plain_texts, self.base, pair) for pair in pairs}
        )
        return torch.stack([self._heard[pair] for pair in pairs], dim=1).flatten(0, 1)

    def _encoded(self, said: str, named: Sequence[Record], what: str) -> Text:
        tokens, vectors = spoken(self.base, self.load, said, named, self.on_note, what)
        return text.encode(self.base, [tokens], vectors), text.pooled(self.base, [tokens])


def _once(kept: Mapping[Key, Made], makers: Mapping[Key, Callable[[], Made]]) -> dict[Key, Made]:
    """What there is of each key already, else what its maker makes; of other keys nothing is kept."""
    return {key: kept[key] if key in kept else make() for key, make in makers.items()}


def estimate(
    base: Base,
    options: DrawOptions,
    told: Sequence[tuple[Text, Text]],
    weights: Applied,
    followed: Callable[[int], control.Condition | None] = lambda step: None,
) -> sampling.Estimate:
    """What the pictures of a batch are denoised by.

    Args:
        told: of each, without its prompt and with it, as ``Texts.of`` gives it.
        followed: the structure they follow at a step, two rows a picture.
    """
    without, given = ([contexts for contexts, _ in some] for some in zip(*told, strict=True))
    without_whole, given_whole = (_wholes(whole for _, whole in some) for some in zip(*told, strict=True))
    return sampling.guided(
        base, sampling.joined(*given), sampling.joined(*without), options.guidance,
        partial(weights.evaluate, base), pooled=(given_whole, without_whole), followed=followed,
    )  # fmt: skip


def _wholes(texts: Iterable[torch.Tensor | None]) -> torch.Tensor | None:
    there = [text for text in texts if text is not None]
    return torch.cat(there) if there else None
