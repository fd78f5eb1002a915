"""Where a caption speaks of the concept: the place that is marked, else the class noun."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cidm_cli.data.captions import JOINT, noun_forms
from cidm_cli.data.nouns import in_name

TRIGGERS = ("sks", "ohwx", "zwx", "tok", r"\[v\d*\*?\]", r"[sv]\*", r"\{\}")
"""What trainers write for "this one": patterns, matched as whole words in upper or lower case."""

_ANGLE = re.compile(r"\\<|<([^<>\s]+)>|<")


@dataclass(frozen=True)
class Marked:
    """A caption as a prompt."""

    prompt: str
    """`<name>` where the concept is; every other "<" escaped."""
    place: str
    """How it was found: "own" (a mark), "name", "trigger", "noun"; empty where the concept leads the caption."""
    said: str
    """What stood there."""
    others: tuple[str, ...]
    """`<other>` names in it: plain letters to the base."""


def marked(caption: str, name: str, noun: str) -> Marked:
    r"""A caption with `<name>` at the concept's place. The first of these that it holds is the place:

    1. `<name>` or `[name]`, wherever it stands;
    2. the bare name, once; but behind the noun where it is an ordinary word itself;
    3. a trigger of another trainer ("sks"), once;
    4. the class noun, once, as `noun_forms` finds it.

    The class noun right beside a mark belongs to it: "<pup> dog", "sks dog", "a dog named pup". Without any, the
    placeholder leads the caption: in front it cannot be lost where the text encoder cuts long captions off.
    """
    caption = unicodedata.normalize("NFC", caption)
    others = tuple(
        found.group()
        for found in _ANGLE.finditer(caption)
        if found.group(1) and found.group(1).casefold() != name.casefold()
    )
    placeholder = f"<{name}>"
    for kind, pattern in _places(name, noun):
        parts = re.split(f"({pattern})", caption, maxsplit=0 if kind == "own" else 1, flags=re.IGNORECASE)
        if len(parts) > 1:
            return Marked(placeholder.join(map(_escaped, parts[::2])), kind, parts[1], others)
    return Marked(f"{placeholder}, {_escaped(caption)}" if caption else placeholder, "", "", others)


def remarks(captions: Sequence[tuple[str, str]], name: str, noun: str) -> list[str]:
    """A line for whatever in the captions, each with its file's name, may be meant otherwise than it is read."""
    found = [(file, marked(caption, name, noun)) for file, caption in captions]
    lines = [
        f"{file}: {other} is not the concept that is learned: its letters are read as they stand"
        for file, one in found
        for other in one.others
    ]
    if triggers := sorted({one.said for _, one in found if one.place == "trigger"}):
        lines.append(f"captions: {', '.join(triggers)} is taken for <{name}>")
    if led := [file for file, one in found if not one.place]:
        files = ", ".join(led[:3]) + (f" and {len(led) - 3} more" if len(led) > 3 else "")
        lines.append(f"captions that say neither <{name}> nor {noun} get <{name}> in front: {files}")
    return lines


def _places(name: str, noun: str) -> list[tuple[str, str]]:
    """Patterns of what may be the concept's place, each with its kind, in the order in which they count."""
    forms = noun_forms(noun)
    nouns = "|".join(forms) or "(?!)"

    def beside(mark: str) -> str:
        return rf"(?:(?<!\w)(?:{nouns})\s+(?:named|called)\s+)?{mark}(?:\s+(?:{nouns})(?!\w))?"

    own = [("own", beside(rf"(?:(?<!\\)<{re.escape(name)}>|\[{re.escape(name)}\])"))]
    triggers = [("trigger", beside(rf"(?<!\w)(?:{'|'.join(TRIGGERS)})(?!\w)"))]
    plain = [("noun", rf"(?<![\w<]){form}(?!\w)") for form in forms]
    words = [re.escape(word) for word in re.split(r"[\s_-]+", name) if word]
    bare = [("name", beside(rf"(?<![\w<]){JOINT.join(words)}(?![\w>])"))] if len(name) > 2 else []
    ordinary = in_name(name) == " ".join(re.split(r"[\s_-]+", name))
    if ordinary or name.casefold() in re.split(r"[\s_-]+", noun.casefold()):
        return [*own, *triggers, *plain, *bare]
    return [*own, *bare, *triggers, *plain]


def _escaped(text: str) -> str:
    return re.sub(r"\\?<", r"\\<", text)
