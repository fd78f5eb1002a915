"""What prompts say to the denoiser, encoded once however many batches their pictures are drawn in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from cidm_registry import Record

from ..models import text
from ..models.base import Base
from ..models.offload import present
from . import structure
from .mixtures import Loader, Mixture, spoken

Text = tuple[text.Contexts, torch.Tensor | None]
"""What each layer attends to, and the text as a whole, by its first chunk, [1, width] if need be."""


@dataclass(frozen=True)
class Said:
    """What a part of a picture is asked for with."""

    prompt: str
    negative: str
    chosen: Mixture

    @property
    def both(self) -> tuple[tuple[str, tuple[Record, ...]], ...]:
        """What is said without the prompt, and with it: its words, the concepts in them."""
        return (self.negative, self.chosen.against), (self.prompt, self.chosen.named)


@dataclass
class Texts:
    """Encodes what is said. What one batch of pictures and the next have in common is encoded once."""

    base: Base
    load: Loader
    on_note: Callable[[str], None] = lambda note: None
    _texts: dict[tuple[str, ...], Text] = field(default_factory=dict)
    _heard: dict[tuple[str, ...], list[text.Contexts]] = field(default_factory=dict)

    @torch.no_grad()
    def of(self, said: Sequence[Said]) -> list[tuple[Text, Text]]:
        """Of each, without its prompt and with it; all of one length."""
        both = [each for one in said for each in one.both]
        keys = [(words, *(record.blob for record in named)) for words, named in both]
        kept, self._texts = self._texts, {}
        with present(self.base.device, *(self.base.encoders if {*keys} - kept.keys() else ())):
            for key, one in zip(keys, both, strict=True):
                if key not in self._texts:
                    self._texts[key] = kept[key] if key in kept else self._encoded(*one)
        contexts = text.alike([self._texts[key][0] for key in keys])
        found = [(some, self._texts[key][1]) for some, key in zip(contexts, keys, strict=True)]
        return list(zip(found[::2], found[1::2], strict=True))

    @torch.no_grad()
    def heard(self, jobs: Sequence[Sequence[Said]]) -> torch.Tensor:
        """What a model that follows a structure hears, [texts, tokens, width], of what each job says.

        Of each that is said without its prompt, then with it.
        """
        told = [
            tuple(structure.heard(words, named) for one in said for words, named in one.both) for said in jobs
        ]
        kept, self._heard = self._heard, {}
        for one in told:
            self._heard[one] = kept[one] if one in kept else self._plain(one)
        contexts = text.alike([each for one in told for each in self._heard[one]])
        return torch.cat([first for (first,) in contexts])

    def _plain(self, prompts: Sequence[str]) -> list[text.Contexts]:
        """Prompts without concepts."""
        return text.read(
            self.base, [spoken(self.base, self.load, one, ())[0] for one in prompts], {}, layers=1
        )

    def _encoded(self, said: str, named: Sequence[Record]) -> Text:
        chunks, vectors = spoken(self.base, self.load, said, named)
        (contexts,) = text.read(self.base, [chunks], vectors)
        return contexts, text.pooled(self.base, chunks[:1])
