"""Ctrl-C: what it does while the libraries load, and while a work runs that can stop at a good place.

Imported before all else: it may import nothing that takes long.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from ..errors import CidmError, ExitCode, error_object, wants_json

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a work to stop: Ctrl-C, `kill` or a batch system, the terminal that closes."""


def interrupted() -> CidmError:
    """What an interrupt becomes where nobody has more to say about it."""
    return CidmError("interrupted", code=ExitCode.INTERRUPTED)


def end_while_loading() -> None:
    """From now on, SIGINT ends the process at once while modules are imported; at other times it interrupts as usual.

    Libraries turn what is raised in an import into errors of their own, or swallow it. What is on the disk stands
    a kill at any moment.
    """
    # A shell has it ignored for what runs in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def end_interrupted() -> NoReturn:
    """Says that it was interrupted, as every error is said, and ends the process at once."""
    error = interrupted()
    if wants_json(sys.argv[1:]):
        print(json.dumps({"ok": False, **error_object(error)}), flush=True)
    print(f"error: {error.message}", file=sys.stderr, flush=True)
    os._exit(error.code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    at = frame
    while at is not None:
        if at.f_code.co_filename == "<frozen importlib._bootstrap>":
            end_interrupted()
        at = at.f_back
    signal.default_int_handler(number, frame)


def was_interrupted(error: BaseException) -> bool:
    """Whether an interrupt is, or led to, an error."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


@contextmanager
def graceful() -> Iterator[Callable[[], bool]]:
    """While open, the first of ``STOPPING`` only makes the yielded function answer True; the next interrupts.

    What the process was started to ignore stays ignored: ``nohup`` has it so for a terminal that closes, a shell for
    Ctrl-C where it runs something in the background.
    """
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
