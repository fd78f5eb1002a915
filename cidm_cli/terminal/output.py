"""What the user sees: the result on stdout, everything else on stderr, in one of three forms.

Nothing here interprets text. Whatever comes from a user's files is made harmless on its way out: control
characters and invisible direction marks are shown as escapes, never obeyed.
"""

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len

from ..errors import CidmError, error_object
from .progress import Progress, divert, say

BOLD, RED, YELLOW, RESET = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[0m"

JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners: invisible, but several scripts cannot be written without them."""


class Mode(Enum):
    """How results are shown."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


@dataclass(frozen=True)
class Table:
    """Rows under headings, for people."""

    columns: tuple[str, ...]
    """Headings."""
    rows: Sequence[Sequence[str]]
    """Cells, as many a row as there are columns."""


@dataclass(frozen=True)
class Result:
    """What a command found or did, in all three forms."""

    data: Mapping[str, Any]
    """Under `--json`, beside "ok"."""
    human: Sequence[str | Table]
    """Lines and tables for people."""
    ids: Sequence[str] = ()
    """Under `--quiet`, one a line: names, hashes or paths."""
    failure: CidmError | None = None
    """Set where the command did its work and what it found is bad news, as `verify` may: decides the exit code."""


@dataclass
class Output:
    """Where output goes and how. One per invocation; streams are handed in."""

    stdout: TextIO
    stderr: TextIO
    mode: Mode = Mode.HUMAN
    environment: Mapping[str, str] = field(default_factory=dict)
    """Looked at for NO_COLOR, FORCE_COLOR and TERM."""
    _answered: bool = field(default=False, repr=False)

    def result(self, result: Result) -> None:
        """Prints a command's result, once; and its failure, if it has one."""
        if self.mode is Mode.JSON:
            answer = {**result.data, **(error_object(result.failure) if result.failure else {})}
            self._answer(answer, ok=result.failure is None)
        elif self.mode is Mode.QUIET:
            for line in result.ids:
                self._print(self.stdout, plain(line) if self.stdout.isatty() else line)
        else:
            for block in result.human:
                self._block(block)
        if result.failure is not None:
            self._error_line(result.failure)

    def error(self, error: CidmError) -> None:
        """Prints one line on stderr; under `--json` also the object on stdout, unless a result is already there."""
        if self.mode is Mode.JSON and not self._answered:
            self._answer(error_object(error), ok=False)
        self._error_line(error)

    def note(self, text: str) -> None:
        """Something good to know, on stderr. Not shown under `--quiet`."""
        if self.mode is not Mode.QUIET:
            self._print(self.stderr, plain(text))

    def warn(self, text: str) -> None:
        """Something that may need attention, on stderr."""
        self._print(self.stderr, f"{self._style('warning:', YELLOW, self.stderr)} {plain(text)}")

    def progress(self, label: str, total: int) -> Progress:
        """A context manager that shows how far long work has come, on stderr. Silent under `--quiet`."""
        stream = None if self.mode is Mode.QUIET else self.stderr
        return Progress(plain(label), total, stream)

    def interactive(self) -> bool:
        """Whether a question would reach a person."""
        return self.mode is Mode.HUMAN and self.stdout.isatty() and self.stderr.isatty()

    def _answer(self, data: Mapping[str, Any], *, ok: bool) -> None:
        self._answered = True
        # ASCII only: whatever the terminal, a name cannot smuggle in an escape sequence.
        text = json.dumps({"ok": ok, **_jsonable(data)}, ensure_ascii=True, allow_nan=False)
        self._print(self.stdout, text)

    def _block(self, block: str | Table) -> None:
        if isinstance(block, str):
            self._print(self.stdout, plain(block))
            return
        head, *rows = _aligned(block)
        self._print(self.stdout, self._style(head, BOLD, self.stdout))
        for row in rows:
            self._print(self.stdout, row)

    def _error_line(self, error: CidmError) -> None:
        hint = f"; {error.hint}" if error.hint else ""
        line = f"{self._style('error:', RED, self.stderr)} {plain(error.message + hint)}"
        self._print(self.stderr, line)

    def _style(self, text: str, style: str, stream: TextIO) -> str:
        return f"{style}{text}{RESET}" if wants_colour(stream, self.environment) else text

    def _print(self, stream: TextIO, line: str) -> None:
        if stream is self.stderr:
            say(stream, line + "\n")
            return
        try:
            stream.write(line + "\n")
            stream.flush()
        except BrokenPipeError:
            # The reader has seen enough (`cidm list | head -1`).
            divert(stream)


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """NO_COLOR wins over FORCE_COLOR, which wins over whether the stream is a terminal."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


def plain(text: str) -> str:
    r"""`text` on one line with nothing a terminal would obey: control characters become `\x1b` and the like."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def readable_bytes(size: int) -> str:
    """A size for people: `999 B`, `1.2 MB`."""
    if size < 1000:
        return f"{size} B"
    value, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    dangerous = category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in JOINERS)
    return character.encode("unicode_escape").decode("ascii") if dangerous else character


def _aligned(table: Table) -> list[str]:
    grid = [[plain(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(cell_len(row[column]) for row in grid) for column in range(len(table.columns))]
    lines = []
    for row in grid:
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _jsonable(value: Any) -> Any:
    """`value` in JSON's own types. Numbers JSON has no word for (NaN, infinities) become null."""
    if value is None or isinstance(value, bool | int | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [_jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _jsonable(asdict(value))
    raise TypeError(f"{type(value).__name__} has no JSON form")
