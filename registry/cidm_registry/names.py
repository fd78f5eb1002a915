"""Concept names: which are allowed, and when two of them are the same."""

import re
import unicodedata

from .errors import InvalidName

MAX_CHARACTERS = 64
MAX_BYTES = 200
"""In UTF-8. A name becomes part of file names (`dog.png`), which end at 255 bytes almost everywhere."""

DEVICES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
)
"""Names Windows gives to devices, whatever the folder."""

INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
"""Letters and marks that draw nothing: two names could look alike. Variation selectors are added below."""

PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
"""Names that are their own key: most are, and looking at each character takes far longer."""

RULE = "a name is 1 to 64 letters, digits, '-' or '_', and starts with a letter or a digit"


def display_name(name: str) -> str:
    """`name` as the registry keeps and shows it: composed Unicode (NFC), case as typed.

    Raises InvalidName where `canonical_key` does.
    """
    canonical_key(name)
    return unicodedata.normalize("NFC", name)


def canonical_key(name: str) -> str:
    """What makes two names the same: composed (NFC), case folded.

    Letters and digits of any script are allowed, `-` and `_` too. Nothing else is, so a key is safe as part
    of a file name, in a prompt as `<name>`, and on a terminal.

    Raises InvalidName for everything else, and for the names Windows reserves for devices.
    """
    shown = repr(name if len(name) <= 80 else name[:77] + "...")
    key = name if PLAIN.match(name) else _folded(name, shown)
    if key in DEVICES:
        raise InvalidName(f"the name {shown} is reserved by Windows", "choose another name")
    return key


def _folded(name: str, shown: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    key = unicodedata.normalize("NFC", composed.casefold())
    if not key:
        raise InvalidName("a concept needs a name", RULE)
    for text in (composed, key):
        if len(text) > MAX_CHARACTERS or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise InvalidName(f"the name {shown} is too long", RULE)
        if not all(_allowed(character) for character in text):
            raise InvalidName(f"the name {shown} holds a character that is not allowed", RULE)
        if not _starts_well(text[0]):
            raise InvalidName(f"the name {shown} starts with a character that is not allowed there", RULE)
    return key


def _allowed(character: str) -> bool:
    if character in "-_":
        return True
    if character in INVISIBLE or 0xFE00 <= ord(character) <= 0xFE0F or 0xE0100 <= ord(character) <= 0xE01EF:
        return False
    category = unicodedata.category(character)
    # Marks belong: many scripts write vowels with them, and not every letter has a composed form.
    return category[0] in "LM" or category == "Nd"


def _starts_well(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "L" or category == "Nd"
