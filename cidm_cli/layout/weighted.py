r"""Prompts as AUTOMATIC1111 and ComfyUI write them: `(word:1.2)`, `[word]`, `<lora:name:0.8>`, `\(`.

A layout has none of that: the words stay, the marks go, and what went is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cidm_cli.errors import CidmError, ExitCode

from ..options.prompts import parse_prompt

MAX_TEXT = 20_000

_MARK = re.compile(r"\\[()\[\]\\]|[()\[\]:|]")
_NETWORK = re.compile(r"<\s*(\w{1,20}):([^<>]{0,300})>")
_EMBEDDING = re.compile(r"\bembedding:([\w.-]+)")
_WILDCARD = re.compile(r"\{[^{}]*\|[^{}]*\}|__[\w./*-]+?__")
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*")


@dataclass
class _Open:
    """A bracket that was opened, and what was read since."""

    bracket: str
    parts: list[str] = field(default_factory=lambda: [""])
    """texts between the marks in `marks`"""
    marks: list[str] = field(default_factory=list)
    """":" or "|", each between two parts"""

    def whole(self) -> str:
        marks = [*self.marks, ""]
        return "".join(part + mark for part, mark in zip(self.parts, marks, strict=True))


def plain_prompt(text: str, source: str, *, brackets: bool) -> tuple[str, list[str]]:
    """The prompt as a layout writes it, and notes on what it lost.

    `brackets` says whether `[...]` means something (AUTOMATIC1111) or stands for itself (ComfyUI). `<name>` stays,
    as the name of a concept; any other "<" becomes a plain one.

    Raises CidmError INVALID, naming `source`, for more than MAX_TEXT characters.
    """
    if len(text) > MAX_TEXT:
        raise CidmError(f"{source}: a prompt of more than {MAX_TEXT} characters", code=ExitCode.INVALID)
    notes: list[str] = []
    networks = [f"<{match[1]}:{match[2]}>" for match in _NETWORK.finditer(text)]
    if networks:
        notes.append(
            f"{', '.join(networks)} left out: learn or import it, and name it in the prompt as <name>"
        )
    text = _unbracketed(_NETWORK.sub("", text), notes, brackets=brackets)
    if match := _EMBEDDING.search(text):
        notes.append(f"{match[0]} stays as plain words: a layout names concepts as <name>")
    if match := _WILDCARD.search(text):
        notes.append(
            f"{match[0][:60]} stays as it is: a layout picks nothing at random, so write what is meant"
        )
    return _tidy(_with_concepts(text, notes)), notes


def _unbracketed(text: str, notes: list[str], *, brackets: bool) -> str:
    """One pass, with a stack of what is open: nothing is read twice, however deep it is nested."""
    stack = [_Open("")]
    weights = changes = 0
    end = 0
    for match in _MARK.finditer(text):
        mark, top = match.group(), stack[-1]
        top.parts[-1] += text[end : match.start()]
        end = match.end()
        if len(mark) == 2:
            top.parts[-1] += mark[1]
        elif mark in ":|" and top.bracket:
            top.marks.append(mark)
            top.parts.append("")
        elif mark == "(" or (mark == "[" and brackets):
            stack.append(_Open(mark))
        elif {")": "(", "]": "["}.get(mark) == top.bracket and top.bracket:
            stack.pop()
            inner, changed = _inside(top)
            changes += changed
            weights += not changed
            stack[-1].parts[-1] += inner
        else:
            top.parts[-1] += mark
    stack[-1].parts[-1] += text[end:]
    if weights:
        notes.append("weights, as in (word:1.2), are left out: every word has weight 1")
    if changes:
        notes.append(
            "words that change while drawing, as in [a:b:0.5] or [a|b], are left out but the first of them"
        )
    return "".join(f"{one.bracket}{one.whole()}" for one in stack)


def _inside(closed: _Open) -> tuple[str, bool]:
    """What stays of a pair of brackets, and whether it was a choice of words and not a weight."""
    weighted = (
        bool(closed.marks) and closed.marks[-1] == ":" and _NUMBER.fullmatch(closed.parts[-1]) is not None
    )
    if closed.bracket == "(":
        if weighted:
            closed.parts.pop()
            closed.marks.pop()
        return closed.whole(), False
    if not closed.marks:
        return closed.parts[0], False
    choices = closed.parts[:-1] if weighted else closed.parts
    return next((choice for choice in choices if choice.strip()), ""), True


def _with_concepts(text: str, notes: list[str]) -> str:
    r"""Every "<" that begins no `<name>` becomes `\<`."""
    out, at, plain = "", 0, 0
    for match in re.finditer(r"\\?<[^<>]{0,80}>?", text):
        out += text[at : match.start()]
        at = match.end()
        piece = match.group()
        if piece.startswith("\\"):
            out += piece
            continue
        try:
            parse_prompt(piece)
            out += piece
        except CidmError:
            out += "\\" + piece
            plain += 1
    if plain:
        notes.append(r"a < that begins no <name> is written \<")
    return out + text[at:]


def _tidy(text: str) -> str:
    """White space and commas that are left between what was taken out."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?: ?, ?)+", ", ", text)
    return text.strip(" ,")
