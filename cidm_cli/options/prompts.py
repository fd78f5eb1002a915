r"""Prompts that name concepts: "a <dog:0.8> on the (beach:1.2), a plain \< sign".

Signs, as ComfyUI and AUTOMATIC1111 read them: `<dog:0.8>` is a concept with a strength, `(word)` and `(word:1.2)` weigh
more or as said, `[word]` less, BREAK begins a new chunk. A backslash before a sign makes it plain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cidm_registry.errors import InvalidName
from cidm_registry.names import canonical_key, display_name

from ..errors import CidmError, ExitCode, nearest

_MARK = re.compile(r"\\(BREAK\b|[()\[\]{}|_<])|<([^<>]*)>?|\bBREAK\b|[()\[\]]")
_NAME = re.compile(r"\\(<)|<([^<>]*)>?")
"""What means something in a literal text."""
_SIGN = r"[()\[\]{}]|\bBREAK\b|__|(?<=\\)[_|]"
"""What a backslash makes plain, but for "<"."""
_WEIGHT = re.compile(r":\s*([+-]?(?:\d{1,4}(?:\.\d{0,9})?|\.\d{1,9}))\s*\Z")
_STRENGTH = re.compile(r":(\d{1,2}(?:\.\d{0,9})?|\.\d{1,9})\Z")
MORE = 1.1
"""What a pair of round brackets multiplies the weight by, and a pair of square ones divides it by."""
MOST = 100.0
"""No text weighs more."""
_NETWORK = re.compile(r"<\w{1,20}:([\w-]{1,60})(?::[^<>]*)?>")
"""A LoRA as other programs write it into a prompt, <lora:dog:0.8>."""
_WORD = re.compile(r"[^\s,.;:!?()\[\]{}|]+")


@dataclass(frozen=True)
class Mention:
    """One `<name>` in a prompt."""

    name: str
    """the name as typed, composed (NFC)"""
    position: int
    """where its `<` stands in the prompt, from 0"""
    strength: float | None = None
    """what its low-rank weights are multiplied by, where the prompt says so"""


@dataclass(frozen=True)
class Prompt:
    """A prompt taken apart at the concepts it names."""

    text: str
    """as typed"""
    parts: tuple[str | Mention, ...]
    """plain text (escapes undone, never empty) and mentions, in order"""
    names: tuple[str, ...]
    """the names mentioned, each once, in the order of their first mention; `<Dog>` and `<dog>` are one"""
    weights: tuple[float, ...]
    """of each part"""
    breaks: tuple[int, ...] = ()
    """the numbers of the parts that begin a new chunk"""

    @property
    def strengths(self) -> dict[str, float]:
        """Of concepts by key, where the prompt gives one."""
        mentions = [part for part in self.parts if isinstance(part, Mention)]
        return {canonical_key(one.name): one.strength for one in mentions if one.strength is not None}

    def filled(self, stand_in: Callable[[str], str]) -> str:
        """The prompt as plain text, each mention replaced by what `stand_in` gives for its name."""
        return "".join(part if isinstance(part, str) else stand_in(part.name) for part in self.parts)

    def exchanged(self, stand_in: Callable[[str], str | None]) -> str:
        """The prompt as a prompt, its signs kept, with plain words for each mention that `stand_in` gives some for."""

        def words(mark: re.Match[str]) -> str:
            found = None if mark.group(2) is None else stand_in(_name(mark, "").name)
            return mark.group() if found is None else escaped(found)

        return _MARK.sub(words, self.text)


def parse_prompt(text: str, what: str = "the prompt", *, literal: bool = False) -> Prompt:
    r"""Takes a prompt apart at its signs. `\<` is a plain "<"; a ">" or a bracket without its fellow is plain, too.

    Weights follow ComfyUI (comfy/sd1_clip.py, `token_weights`): a number stands for what is around it, whatever the
    brackets outside say; brackets without one multiply.

    Args:
        literal: `<name>` alone means something.

    Raises CidmError USAGE, saying where in `what`, for a "<" that begins no well-formed reference, two strengths of one
    concept, or a weight beyond all measure; as `check_text`.
    """
    check_text(text, what)
    marks = list((_NAME if literal else _MARK).finditer(text))
    pairs = _pairs(marks)
    said: list[tuple[str | Mention, float, bool]] = []
    opened: list[int] = []
    breaks: list[int] = []
    plain, end = "", 0
    for mark in marks:
        plain += text[end : mark.start()]
        end = mark.end()
        sign = mark.group()
        if mark.group(1) is not None:
            plain += mark.group(1)
            continue
        if sign in "()[]" and mark.start() not in pairs:
            plain += sign
            continue
        number = _WEIGHT.search(plain) if sign == ")" else None
        if number and (number.start() or len(said) > opened[-1]):
            plain = plain[: number.start()]
        else:
            number = None
        if plain:
            said.append((plain, 1.0, False))
            plain = ""
        if sign in "([":
            opened.append(len(said))
        elif sign in ")]":
            first = opened.pop()
            factor = float(number.group(1)) if number else MORE if sign == ")" else 1 / MORE
            said[first:] = [
                (part, weight if fixed else weight * factor, fixed or number is not None)
                for part, weight, fixed in said[first:]
            ]
        elif sign == "BREAK":
            breaks.append(len(said))
        else:
            said.append((_name(mark, what), 1.0, False))
    plain += text[end:]
    if plain:
        said.append((plain, 1.0, False))
    prompt = Prompt(
        text, tuple(part for part, _, _ in said), _names(said),
        tuple(weight for _, weight, _ in said), tuple(dict.fromkeys(breaks)),
    )  # fmt: skip
    _check_numbers(prompt, what)
    return prompt


def escaped(text: str) -> str:
    """Plain words as a prompt says them."""
    return re.sub(f"<|{_SIGN}", r"\\\g<0>", text)


def literally(prompt: str) -> str:
    """A prompt in which `<name>` alone meant something, as one in which all signs do."""
    return re.sub(
        rf"\\<|<[^<>]*>?|{_SIGN}", lambda mark: mark[0] if "<" in mark[0] else f"\\{mark[0]}", prompt
    )


def _pairs(marks: Iterable[re.Match[str]]) -> set[int]:
    """Where the brackets stand that have a fellow."""
    waiting: list[tuple[str, int]] = []
    found: set[int] = set()
    for mark in marks:
        sign = mark.group()
        if sign in ("(", "["):
            waiting.append((sign, mark.start()))
        elif sign in (")", "]"):
            fellow = "(" if sign == ")" else "["
            # Brackets of the other kind that stay open inside are plain.
            while waiting and waiting[-1][0] != fellow and any(one == fellow for one, _ in waiting):
                waiting.pop()
            if waiting and waiting[-1][0] == fellow:
                found |= {waiting.pop()[1], mark.start()}
    return found


def _names(said: Iterable[tuple[str | Mention, float, bool]]) -> tuple[str, ...]:
    names: dict[str, str] = {}
    for part, _, _ in said:
        if isinstance(part, Mention):
            names.setdefault(canonical_key(part.name), part.name)
    return tuple(names.values())


def _check_numbers(prompt: Prompt, what: str) -> None:
    mentions = [part for part in prompt.parts if isinstance(part, Mention) and part.strength is not None]
    for one in mentions:
        if one.strength != prompt.strengths[canonical_key(one.name)]:
            message = f"{what} gives <{one.name}> two strengths"
            raise CidmError(message, "give it one", ExitCode.USAGE)
    if any(abs(weight) > MOST for weight in prompt.weights):
        raise CidmError(
            f"{what} has words that weigh more than {MOST:g}", r"write \( for a plain bracket", ExitCode.USAGE
        )


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


def _name(mark: re.Match[str], what: str) -> Mention:
    inner = mark.group(2)
    strength = _STRENGTH.search(inner)
    try:
        if not mark.group().endswith(">"):
            raise InvalidName("it is not closed by '>'", "")
        name = display_name(inner[: strength.start()] if strength else inner)
        return Mention(name, mark.start(), float(strength.group(1)) if strength else None)
    except InvalidName as error:
        network = _NETWORK.fullmatch(mark.group())
        shown = mark.group() if len(mark.group()) <= 40 else mark.group()[:39] + "…"
        raise CidmError(
            f"{shown!r} at character {mark.start() + 1} of {what} names no concept: {error}",
            hint=rf"write <{network.group(1) if network else 'name'}>, or \< for a plain '<'",
            code=ExitCode.USAGE,
        ) from None
