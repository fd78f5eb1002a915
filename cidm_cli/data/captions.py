"""Captions: reading them beside their pictures, and putting a concept's placeholder into them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ..files.reading import read_text

MAX_CAPTION_BYTES = 10 << 10
DEFAULT_TEMPLATE = "a photo of a {noun}"
JOINT = r"[\s_-]*"
"""A pattern of what may stand between the words of a noun or a name."""


def read_caption(path: Path) -> str:
    """The caption in the text file `path`, as one line; "" if the file holds nothing but white space.

    Raises CidmError INVALID for a file that is not UTF-8 or larger than MAX_CAPTION_BYTES.
    """
    return one_line(read_text(path, MAX_CAPTION_BYTES))


def caption_from_template(template: str, class_noun: str) -> str:
    """`template` with every {noun} replaced; other braces stand for themselves."""
    return one_line(template.replace("{noun}", class_noun))


def one_line(text: str) -> str:
    """NFC, with control characters gone and runs of white space made one space."""
    visible = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(unicodedata.normalize("NFC", visible).split())


def replace_noun(caption: str, noun: str, placeholder: str) -> str:
    """The caption with its class noun replaced, once, by the concept's placeholder.

    - Whole words only, upper or lower case, however the noun's own words are joined ("teddy bear" also
      finds "Teddy-bear"): the first occurrence, the longest reading where two begin at one place.
    - If the singular does not occur, the plural serves ("two dogs" -> "two <rex>").
    - If the noun does not occur at all, the placeholder leads the caption ("asleep" -> "<rex>, asleep"):
      in front it cannot be lost where the text encoder cuts long captions off.
    - A caption that already holds the placeholder is left as it is, and the name of another concept
      ("<dog>") is not the noun "dog".
    """
    caption = unicodedata.normalize("NFC", caption)
    if placeholder in caption:
        return caption
    if match := find_noun(caption, noun):
        return caption[: match.start()] + placeholder + caption[match.end() :]
    return f"{placeholder}, {caption}" if caption else placeholder


def find_noun(caption: str, noun: str) -> re.Match[str] | None:
    """Where a class noun, or else its plural, first stands in a caption."""
    patterns = (rf"(?<![\w<]){form}(?!\w)" for form in noun_forms(noun))
    found = (re.search(pattern, caption, re.IGNORECASE) for pattern in patterns)
    return next(filter(None, found), None)


def noun_forms(noun: str) -> list[str]:
    """Patterns of a class noun, singular and plural, however its own words are joined; none where it has no word."""
    words = [re.escape(word) for word in re.split(r"[\s_-]+", unicodedata.normalize("NFC", noun)) if word]
    if not words:
        return []
    return [f"(?:{JOINT.join(forms)})" for forms in (words, [*words[:-1], _plural(words[-1])])]


def _plural(word: str) -> str:
    """A pattern for the regular plurals of an escaped word: dogs, foxes, puppies."""
    if word[-1:] in "yY":
        return f"(?:{word}s|{word[:-1]}ies)"
    return f"{word}e?s"
