"""Captions as the text encoder reads them, a concept in the class noun's place."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

from ..models import text
from ..models.base import Base
from ..prompts import Mention, parse_prompt


@dataclass(frozen=True)
class Read:
    """What of a caption is read."""

    prompt: str
    """The caption as far as it fits, or the bare concept where that would not reach it."""
    tokens: text.Tokens
    left_out: str
    """The rest, or empty."""


def slotted(base: Base, caption: str, slot: text.Slot) -> Read:
    """A caption with ``slot`` wherever it names a concept, cut behind the last word that fits.

    One so long that the concept does not fit is exchanged for the bare concept.
    """

    def tokens(prompt: str) -> text.Tokens:
        parts = parse_prompt(prompt).parts
        return text.tokenize(base.tokenizer, [slot if isinstance(part, Mention) else part for part in parts])

    whole = tokens(caption)
    if not whole.cut:
        return Read(caption, whole, "")
    ends = [match.start() for match in re.finditer(r"\s+", caption)]
    fitting = bisect_left(ends, True, key=lambda end: tokens(caption[:end]).cut)
    kept = caption[: ends[fitting - 1]] if fitting else ""
    read = tokens(kept)
    if read.slots:
        return Read(kept, read, caption[len(kept) :].strip())
    return Read(f"<{slot.name}>", text.tokenize(base.tokenizer, [slot]), caption)
