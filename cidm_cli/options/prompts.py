r"""Prompts that name concepts: "a <dog> on the beach, a plain \< sign"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cidm_registry.errors import InvalidName
from cidm_registry.names import canonical_key, display_name

from ..errors import CidmError, ExitCode, nearest

_MARK = re.compile(r"\\<|<([^<>]*)>?")
_NETWORK = re.compile(r"<\w{1,20}:([\w-]{1,60})(?::[^<>]*)?>")
"""A LoRA as other programs write it into a prompt, <lora:dog:0.8>."""
_WORD = re.compile(r"[^\s,.;:!?()]+")


@dataclass(frozen=True)
class Mention:
    """One `<name>` in a prompt."""

    name: str
    """the name as typed, composed (NFC)"""
    position: int
    """where its `<` stands in the prompt, from 0"""


@dataclass(frozen=True)
class Prompt:
    """A prompt taken apart at the concepts it names."""

    text: str
    """as typed"""
    parts: tuple[str | Mention, ...]
    """plain text (escapes undone, never empty) and mentions, in order"""
    names: tuple[str, ...]
    """the names mentioned, each once, in the order of their first mention; `<Dog>` and `<dog>` are one"""

    def filled(self, stand_in: Callable[[str], str]) -> str:
        """The prompt as plain text, each mention replaced by what `stand_in` gives for its name."""
        return "".join(part if isinstance(part, str) else stand_in(part.name) for part in self.parts)

    def renamed(self, words: Mapping[str, str]) -> str:
        """The prompt as typed, with other words for some of its mentions, by the names' canonical keys."""
        text = self.text
        for part in reversed(self.parts):
            if isinstance(part, Mention) and (word := words.get(canonical_key(part.name))) is not None:
                text = text[: part.position] + word + text[text.index(">", part.position) + 1 :]
        return text


def parse_prompt(text: str, what: str = "the prompt") -> Prompt:
    r"""Find the `<name>` references of a prompt. `\<` is a plain "<"; a ">" by itself is plain too.

    Raises CidmError USAGE, saying where in `what`, for a "<" that begins no well-formed reference; as `check_text`.
    """
    check_text(text, what)
    parts: list[str | Mention] = []
    names: dict[str, str] = {}
    plain, end = "", 0
    for mark in _MARK.finditer(text):
        plain += text[end : mark.start()]
        end = mark.end()
        if mark.group(1) is None:
            plain += "<"
            continue
        name = _name(mark, what)
        names.setdefault(canonical_key(name), name)
        if plain:
            parts.append(plain)
        parts.append(Mention(name, mark.start()))
        plain = ""
    plain += text[end:]
    if plain:
        parts.append(plain)
    return Prompt(text, tuple(parts), tuple(names.values()))


def check_text(text: str, what: str) -> None:
    """Refuses what came from bytes that are not UTF-8: no tokenizer takes it. Raises CidmError USAGE."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CidmError(
            f"{what} {text!r}: its bytes from character {error.start + 1} on are not UTF-8",
            hint="save the file or set the terminal to UTF-8",
            code=ExitCode.USAGE,
        ) from error


def noun_in(name: str) -> str:
    """The class noun that a concept's name holds: "dog2" is a dog, "duck_toy" a duck toy; empty where there is none."""
    return re.sub(r"[\s_-]+", " ", name.rstrip("0123456789_- "))


def unmarked(prompt: Prompt, names: Iterable[str]) -> str | None:
    """The first of `names` that stands in a prompt as a plain word, where the prompt names no concept at all."""
    words = set() if prompt.names else {*_WORD.findall(prompt.text.casefold())}
    return next((name for name in names if name.casefold() in words), None)


def find_unknown(prompt: Prompt, names: Iterable[str]) -> CidmError | None:
    """The error (NOT_FOUND, with a suggestion) for the first concept of `prompt` not in `names`, if any."""
    known = {canonical_key(name): name for name in names}
    for name in prompt.names:
        if canonical_key(name) not in known:
            meant = nearest(name, known.values())
            hint = f"did you mean <{meant}>?" if meant else "`cidm list` shows the concepts learned so far"
            return CidmError(f"no concept is called <{name}>", hint=hint, code=ExitCode.NOT_FOUND)
    return None


def _name(mark: re.Match[str], what: str) -> str:
    try:
        if not mark.group().endswith(">"):
            raise InvalidName("it is not closed by '>'", "")
        return display_name(mark.group(1))
    except InvalidName as error:
        network = _NETWORK.fullmatch(mark.group())
        shown = mark.group() if len(mark.group()) <= 40 else mark.group()[:39] + "…"
        raise CidmError(
            f"{shown!r} at character {mark.start() + 1} of {what} names no concept: {error}",
            hint=rf"write <{network.group(1) if network else 'name'}>, or \< for a plain '<'",
            code=ExitCode.USAGE,
        ) from None
