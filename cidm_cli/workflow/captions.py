"""Captions as the text encoder reads them, a concept in the class noun's place."""

from __future__ import annotations

from ..models import text
from ..models.base import Base
from ..prompts import Mention, parse_prompt


def slotted(base: Base, caption: str, slot: text.Slot) -> tuple[text.Tokens, bool]:
    """A caption with ``slot`` wherever it names a concept, and whether the caption fits.

    One so long that the concept does not fit is exchanged for the bare concept.
    """
    parts = [slot if isinstance(part, Mention) else part for part in parse_prompt(caption).parts]
    tokens = text.tokenize(base.tokenizer, parts)
    if tokens.lost:
        return text.tokenize(base.tokenizer, [slot]), False
    return tokens, True
