"""Running the command line in this process, as the installed program does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on stdout: fails if there is more, or none."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        assert self.out.count("\n") == 1
        return value

    @property
    def error(self) -> str:
        """The one line that says what went wrong: fails if there is none, more than one, or a traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert not lines[0].startswith("error: unexpected "), lines[0]
        return lines[0]


Cidm = Callable[..., Ran]


def ran(cidm: Cidm, *words: object) -> None:
    """Runs a command that has to succeed."""
    done = cidm(*words)
    assert done.code == 0, done.err
