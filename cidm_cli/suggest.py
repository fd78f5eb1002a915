"""What a misspelt word was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Comparing takes time quadratic in the length; nobody misspells a word this long.
_LONGEST = 80


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The word of `known` most like `word`, upper and lower case alike, or None if none is like it."""
    if len(word) > _LONGEST:
        return None
    folded = {candidate.casefold(): candidate for candidate in known if len(candidate) <= _LONGEST}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[matches[0]] if matches else None
