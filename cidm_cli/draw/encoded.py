"""What prompts say to the denoiser, encoded once however many batches their pictures are drawn in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from cidm_registry import Record

from ..models import structure as control
from ..models import text
from ..models.base import Base
from ..models.offload import present
from . import structure
from .mixtures import Loader, Mixture, spoken

Text = tuple[tuple[torch.Tensor, ...], torch.Tensor | None]
"""What each layer attends to [1, tokens, width], and the text as a whole [1, width] if need be."""


@dataclass(frozen=True)
class Said:
    """What a part of a picture is asked for with."""

    prompt: str
    negative: str
    chosen: Mixture

    @property
    def both(self) -> tuple[tuple[str, str, tuple[Record, ...]], ...]:
        """What is said without the prompt, and with it: what that is, its words, the concepts in them."""
        return (
            ("negative prompt", self.negative, self.chosen.against),
            ("prompt", self.prompt, self.chosen.named),
        )


@dataclass
class Texts:
    """Encodes what is said. What one batch of pictures and the next have in common is encoded once."""

    base: Base
    load: Loader
    on_note: Callable[[str], None] = lambda note: None
    _texts: dict[tuple[str, ...], Text] = field(default_factory=dict)
    _heard: dict[tuple[str, ...], torch.Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def of(self, said: Sequence[Said]) -> list[tuple[Text, Text]]:
        """Of each, without its prompt and with it.

        Raises:
            CidmError: USAGE when a prompt is so long that a concept in it is cut off.
        """
        both = [each for one in said for each in one.both]
        keys = [(what, words, *(record.blob for record in named)) for what, words, named in both]
        kept, self._texts = self._texts, {}
        with present(self.base.device, *(self.base.encoders if {*keys} - kept.keys() else ())):
            for key, one in zip(keys, both, strict=True):
                if key not in self._texts:
                    self._texts[key] = kept[key] if key in kept else self._encoded(*one)
        found = [self._texts[key] for key in keys]
        return list(zip(found[::2], found[1::2], strict=True))

    def heard(self, jobs: Sequence[Sequence[Said]]) -> torch.Tensor:
        """What a model that follows a structure hears, [texts, tokens, width], of what each job says.

        Of each that is said without its prompt, then with it.
        """
        told = [
            tuple(structure.heard(words, named) for one in said for _, words, named in one.both)
            for said in jobs
        ]
        kept, self._heard = self._heard, {}
        for one in told:
            self._heard[one] = kept[one] if one in kept else control.plain_texts(self.base, one)
        return torch.cat([self._heard[one] for one in told])

    def _encoded(self, what: str, said: str, named: Sequence[Record]) -> Text:
        tokens, vectors = spoken(self.base, self.load, said, named, self.on_note, what)
        return text.encode(self.base, [tokens], vectors), text.pooled(self.base, [tokens])
