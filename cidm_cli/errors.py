"""The one kind of error a user is meant to see, and the exit codes scripts rely on."""

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

_OUT_OF_MEMORY = (
    "can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory",
)  # fmt: skip


class ExitCode(IntEnum):
    """What the process returns. Part of the command line's contract: values never change."""

    OK = 0
    """Done."""
    FAILED = 1
    """Failed, for a reason that has no code of its own."""
    USAGE = 2
    """The command line is wrong."""
    NOT_FOUND = 3
    """A registry, a concept or a file that was named does not exist."""
    INVALID = 4
    """An input file cannot be used."""
    OUT_OF_MEMORY = 5
    """Not enough memory, on the accelerator or the machine."""
    REGISTRY = 6
    """The registry is damaged, busy, or changed meanwhile."""
    INTERRUPTED = 130
    """Stopped by the user; a checkpoint was saved if one was due."""


class CidmError(Exception):
    """Something the user can understand and mostly mend.

    `message` is one line that names the thing, in lower case and without a full stop; `hint` says what to do,
    likewise. `details` are further keys of the error object under `--json`.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        code: ExitCode = ExitCode.FAILED,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.details = details or {}


def error_object(error: CidmError) -> dict[str, Any]:
    """What `--json` tells of an error, beside "ok"."""
    described = {
        "message": error.message,
        "hint": error.hint,
        "code": int(error.code),
        "kind": error.code.name,
    }
    return {"error": {**described, **error.details}}


def wants_json(arguments: Sequence[str]) -> bool:
    """Known before parsing, so that a wrong command line is also answered in JSON."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def is_out_of_memory(error: BaseException) -> bool:
    """Without importing torch: its CUDA error has a type, those of the CPU, cuBLAS and Apple's GPUs only a message."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The word of `known` most like `word`, upper and lower case alike, or None if none is like it."""
    folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[matches[0]] if matches else None
