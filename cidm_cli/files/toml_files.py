"""TOML from anyone: refused early where it would be slow or deep, and with the line of every value.

tomllib takes time quadratic in the number of parts of a dotted key and recurses for every bracket. One
linear pass over the tokens bounds both before it runs. The same tokens then tell on which line each value
stands, which tomllib does not.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

from ..errors import CidmError, ExitCode
from .reading import readable_size

MAX_BYTES = 64 << 10
MAX_TOKENS = 12_000
MAX_DEPTH = 8
MAX_KEY_PARTS = 8
MAX_WORD = 1000

KeyPath = tuple[str | int, ...]

# What opens a text and never closes it is a token of its own, at which the scan stops: were it read on as
# an empty text and a quote, every later one would search to the document's end once more.
_TOKEN = re.compile(
    r"""
    (?P<blank>[ \t\r]+|\#[^\n]*)
  | (?P<newline>\n)
  | (?P<string>\"{3}(?:[^\\]|\\.)*?\"{3,5} | '{3}.*?'{3,5} | "(?!"")(?:[^"\\\n]|\\[^\n])*" | '(?!'')[^'\n]*')
  | (?P<unclosed>["'])
  | (?P<word>[\w+:-]+)
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class TomlDocument:
    """A parsed document and where its values stand."""

    data: dict[str, Any]
    lines: dict[KeyPath, int]
    """line (from 1) of each table, key and array element: ("region", 0, "box", 2)"""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def parse_toml(text: str, source: str) -> TomlDocument:
    """Parse TOML 1.0.

    Raises CidmError INVALID, beginning with "source:line:", for a syntax error and for a document beyond
    MAX_BYTES, MAX_TOKENS, MAX_DEPTH brackets, MAX_KEY_PARTS parts in a dotted key, or MAX_WORD characters in
    a number or plain key.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _invalid(f"{source} is larger than the {readable_size(MAX_BYTES)} allowed")
    tokens = _tokens(text, source)
    try:
        data = tomllib.loads(text)
    except ValueError as error:
        raise _invalid(_with_line(str(error), text, source)) from None
    return TomlDocument(data, _LineReader(tokens).read())


def _with_line(message: str, text: str, source: str) -> str:
    """tomllib puts the place, if it knows it, in words at the message's end; editors want it in front."""
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if place is None:
        return f"{source}: {message}"
    line = place.group(1) or text.count("\n") + 1
    return f"{source}:{line}: {message[: place.start()]}"


def _tokens(text: str, source: str) -> list[_Token]:
    tokens: list[_Token] = []
    line, depth, dots = 1, 0, 0
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup or "", match.group()
        if kind == "blank":
            continue
        if kind == "unclosed":
            raise _invalid(f"{source}:{line}: a text is opened here and never closed")
        if kind == "word" and len(token) > MAX_WORD:
            raise _invalid(f"{source}:{line}: a number or key of more than {MAX_WORD} characters")
        if len(tokens) == MAX_TOKENS:
            raise _invalid(f"{source}:{line}: more than {MAX_TOKENS} words and marks")
        tokens.append(_Token(kind, token, line))
        if token == ".":
            dots += 1
        elif kind == "mark" or kind == "newline":
            dots = 0
        if dots >= MAX_KEY_PARTS:
            raise _invalid(f"{source}:{line}: a key of more than {MAX_KEY_PARTS} parts")
        depth += (token in ("[", "{")) - (token in ("]", "}"))
        if depth > MAX_DEPTH:
            raise _invalid(f"{source}:{line}: brackets more than {MAX_DEPTH} deep")
        line += token.count("\n")
    return tokens


class _LineReader:
    """Walks the tokens of a valid document and notes the line of every path."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = [*tokens, _Token("newline", "\n", 0)]
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.last_index: dict[KeyPath, int] = {}

    def read(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "newline":
                self.at += 1
            elif token.text == "[":
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def header(self) -> KeyPath:
        brackets = 2 if self.tokens[self.at + 1].text == "[" else 1
        line = self.tokens[self.at].line
        self.at += brackets
        path: KeyPath = ()
        parts = self.key()
        for part in parts[:-1]:
            path = (*path, part)
            # A table under an array of tables belongs to the element that was opened last.
            if path in self.last_index:
                path = (*path, self.last_index[path])
        path = (*path, parts[-1])
        self.at += brackets
        self.lines.setdefault(path, line)
        if brackets == 2:
            self.last_index[path] = self.last_index.get(path, -1) + 1
            path = (*path, self.last_index[path])
            self.lines[path] = line
        return path

    def pair(self, table: KeyPath) -> None:
        line = self.tokens[self.at].line
        path = table
        for part in self.key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.at += 1
        self.value(path)

    def key(self) -> list[str]:
        parts = [_key_part(self.tokens[self.at])]
        self.at += 1
        while self.tokens[self.at].text == ".":
            parts.append(_key_part(self.tokens[self.at + 1]))
            self.at += 2
        return parts

    def value(self, path: KeyPath) -> None:
        opening = self.tokens[self.at].text
        if opening == "[":
            self.elements(path)
        elif opening == "{":
            self.inline_table(path)
        else:
            # Numbers and times are several words and marks; they end where something else must follow.
            while self.tokens[self.at].kind != "newline" and self.tokens[self.at].text not in (",", "]", "}"):
                self.at += 1

    def elements(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        while (token := self.tokens[self.at]).text != "]":
            if token.kind == "newline" or token.text == ",":
                self.at += 1
                continue
            self.lines[(*path, index)] = token.line
            self.value((*path, index))
            index += 1
        self.at += 1

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while (token := self.tokens[self.at]).text != "}":
            if token.kind == "newline" or token.text == ",":
                self.at += 1
            else:
                self.pair(path)
        self.at += 1


def _key_part(token: _Token) -> str:
    if token.kind != "string":
        return token.text
    (name,) = tomllib.loads(f"{token.text} = 0")
    return str(name)


def _invalid(message: str) -> CidmError:
    return CidmError(message, code=ExitCode.INVALID)
