"""Putting a user's own concepts into a layout that names others, with all its comments."""

from __future__ import annotations

import re
from collections.abc import Mapping

import tomlkit

from ..options.prompts import noun_in, parse_prompt

_VOWELS = frozenset("aeiouAEIOU")


def slots(text: str) -> tuple[str, ...]:
    """The concepts that a layout's prompts name, each once: those of the regions first, in their order."""
    document = tomlkit.parse(text).unwrap()
    prompts = [region["prompt"] for region in document.get("region", [])] + [document["base"]["prompt"]]
    return tuple(dict.fromkeys(name for prompt in prompts for name in parse_prompt(prompt).names))


def filled(text: str, concepts: Mapping[str, tuple[str, str]]) -> str:
    """A layout (TOML) with other concepts, comments and all.

    `concepts` gives for each name that stands in it the name and class noun to take instead. In every prompt `<dog>`
    becomes the name, and where no `<dog>` stands, as in the whole picture's prompt, the word "dog" becomes the noun.
    """
    document = tomlkit.parse(text)
    for table in (document["base"], *document.get("region", [])):
        table["prompt"] = _refilled(str(table["prompt"]), concepts)
    return tomlkit.dumps(document)


def sized(text: str, side: int, multiple: int) -> str:
    """A template with the size that it leaves out put in, for a base that draws squares of ``side`` pixels.

    Templates give it as a comment, as it is on a base of 512 pixels; a square of the base's own stays one.
    """

    def scaled(match: re.Match[str]) -> str:
        sides = [max(round(int(n) * side / 512 / multiple), 1) * multiple for n in match.groups()]
        return match[0] if sides == [side, side] else "size = [{}, {}]".format(*sides)

    return re.sub(r"^# size = \[(\d+), (\d+)\]", scaled, text, count=1, flags=re.MULTILINE)


def noun_of(name: str) -> str:
    """The class noun that a concept's name suggests, else the name itself."""
    return noun_in(name) or name


def _refilled(prompt: str, concepts: Mapping[str, tuple[str, str]]) -> str:
    names = "|".join(re.escape(name) for name in sorted(concepts, key=len, reverse=True))
    # One pass over the text: what was put in is not looked at again.
    pattern = re.compile(
        rf"(?:\b(?P<article>an?) )?(?:<(?P<name>{names})>|\b(?P<noun>{names})\b)", re.IGNORECASE
    )
    keys = {key.casefold(): key for key in concepts}

    def other(match: re.Match[str]) -> str:
        name, noun = concepts[keys[(match["name"] or match["noun"]).casefold()]]
        article = ""
        if match["article"]:
            capital = match["article"][0] == "A"
            article = ("An " if capital else "an ") if noun[0] in _VOWELS else ("A " if capital else "a ")
        return article + (f"<{name}>" if match["name"] else noun.replace("<", r"\<"))

    return pattern.sub(other, prompt)
