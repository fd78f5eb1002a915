r"""Prompts as AUTOMATIC1111 and ComfyUI write them: `(word:1.2)`, `[word]`, `<lora:name:0.8>`, `\(`.

A layout says weights as ComfyUI does. What changes while drawing, and other programs' files, are left out, and told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cidm_cli.errors import CidmError, ExitCode

from ..options.prompts import MORE, MOST, parse_prompt

MAX_TEXT = 20_000

_MARK = re.compile(r"\\[()\[\]\\]|[()\[\]:|]")
_NETWORK = re.compile(r"<\s*(\w{1,20}):(?![\d.]+>)([^<>]{0,300})>")
_EMBEDDING = re.compile(r"\bembedding:([\w.-]+)")
_WILDCARD = re.compile(r"__[\w./*-]+?__")
_HELD = re.compile("\0([^\0]*)\0")
"""A weight, until all brackets around it are known."""
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

    `brackets` says whether `[...]` means something and weights multiply (AUTOMATIC1111), or brackets of this kind and
    BREAK stand for themselves (ComfyUI). `<name>` stays, as the name of a concept; any other "<" becomes a plain one.

    Raises CidmError INVALID, naming `source`, for more than MAX_TEXT characters.
    """
    if len(text) > MAX_TEXT:
        raise CidmError(f"{source}: a prompt of more than {MAX_TEXT} characters", code=ExitCode.INVALID)
    notes: list[str] = []
    networks = [f"<{match[1]}:{match[2]}>" for match in _NETWORK.finditer(text)]
    if networks:
        notes.append(
            f"{', '.join(networks)} left out: learn or import it, and name it in the prompt as <name:0.8>"
        )
    text = _NETWORK.sub("", text.replace("\0", ""))
    text = _bracketed(text if brackets else re.sub(r"\bBREAK\b", r"\\BREAK", text), notes, brackets=brackets)
    if match := _EMBEDDING.search(text):
        notes.append(f"{match[0]} stays as plain words: a layout names concepts as <name>")
    if match := _WILDCARD.search(text):
        notes.append(f"{match[0][:60]} takes a line of a file of that name: draw with --wildcards FOLDER")
    return _tidy(_with_concepts(text, notes)), notes


def _bracketed(text: str, notes: list[str], *, brackets: bool) -> str:
    """One pass, with a stack of what is open: nothing is read twice, however deep it is nested."""
    stack = [_Open("")]
    changes = 0
    end = 0
    for match in _MARK.finditer(text):
        mark, top = match.group(), stack[-1]
        top.parts[-1] += text[end : match.start()]
        end = match.end()
        if len(mark) == 2:
            top.parts[-1] += mark.replace("\\\\", "\\")
        elif mark in ":|" and top.bracket:
            top.marks.append(mark)
            top.parts.append("")
        elif mark == "(" or (mark == "[" and brackets):
            stack.append(_Open(mark))
        elif {")": "(", "]": "["}.get(mark) == top.bracket and top.bracket:
            stack.pop()
            inner, changed = _inside(top, brackets)
            changes += changed
            stack[-1].parts[-1] += inner
        else:
            top.parts[-1] += f"\\{mark}" if mark in "[]" else mark
    stack[-1].parts[-1] += text[end:]
    if changes:
        notes.append(
            "words that change while drawing, as in [a:b:0.5] or [a|b], are left out but the first of them"
        )
    return _HELD.sub(_shown, "".join(f"{one.bracket}{one.whole()}" for one in stack))


def _inside(closed: _Open, multiplied: bool) -> tuple[str, bool]:
    """What becomes of a pair of brackets, and whether it was a choice of words and not a weight."""
    weighted = (
        bool(closed.marks) and closed.marks[-1] == ":" and _NUMBER.fullmatch(closed.parts[-1]) is not None
    )
    if closed.bracket == "[" and closed.marks:
        choices = closed.parts[:-1] if weighted else closed.parts
        return next((choice for choice in choices if choice.strip()), ""), True
    factor = MORE if closed.bracket == "(" else 1 / MORE
    number = ""
    if weighted:
        factor = float(closed.parts.pop())
        closed.marks.pop()
        number = f"\0{factor}\0"
    inner = closed.whole()
    if multiplied:
        inner = _HELD.sub(lambda held: f"\0{float(held[1]) * factor}\0", inner)
    return f"{closed.bracket}{inner}{number}{')' if closed.bracket == '(' else ']'}", False


def _shown(held: re.Match[str]) -> str:
    return f":{min(max(float(held[1]), -MOST), MOST):.4f}".rstrip("0").rstrip(".")


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
