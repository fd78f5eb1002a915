"""How far long work has come: a bar on a terminal, otherwise a line every few percent."""

import itertools
import os
import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

REDRAW = 0.1
"""Seconds between two drawings of the bar."""
SHARE = 0.05
"""Of the work, between two lines where there is no terminal."""
BAR = 24
"""Characters."""
ERASE = "\r\x1b[2K"


class Progress:
    """Shows steps done, time left and whatever numbers belong to the step. Use as a context manager.

    rich's bar says nothing where there is no terminal, and one that closes meanwhile ends the work.
    """

    def __init__(
        self, label: str, total: int, stream: TextIO | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`label` must be safe to print. With `stream` None nothing is shown. `clock` is in seconds."""
        self._label = label
        self._total = max(total, 1)
        self._stream = stream
        self._clock = clock
        self._bar = stream is not None and stream.isatty()
        self._started = clock()
        self._first: int | None = None
        self._shown_at = float("-inf")
        self._shown_share = 0.0
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bar away and, if all went well, leaves its last state as an ordinary line."""
        if self._bar and self._last:
            self._write(ERASE + (self._last + "\n" if error is None else ""))

    def update(self, done: int, **numbers: float) -> None:
        """`done` steps of the total are finished; `numbers` (a loss, say) belong to the last of them."""
        if self._stream is None:
            return
        if self._first is None:
            # Work that was resumed starts in the middle: only what is done here tells how fast it goes.
            self._first = done - 1
        share = min(done / self._total, 1.0)
        now = self._clock()
        self._last = self._line(done, share, now, numbers)
        if self._bar:
            if now - self._shown_at >= REDRAW or share == 1.0:
                self._shown_at = now
                self._write(ERASE + self._last[: shutil.get_terminal_size().columns - 1])
        elif share == 1.0 or share - self._shown_share >= SHARE:
            self._shown_share = share
            self._write(self._last + "\n")

    def _line(self, done: int, share: float, now: float, numbers: dict[str, float]) -> str:
        filled = int(BAR * share)
        bar = f" [{'#' * filled}{'.' * (BAR - filled)}]" if self._bar else ""
        elapsed = now - self._started
        here = done - (self._first or 0)
        left = elapsed / here * (self._total - done) if here > 0 else 0.0
        time_text = f"{duration(left)} left" if share < 1.0 else f"in {duration(elapsed)}"
        values = "".join(f"  {name} {value:.4g}" for name, value in numbers.items())
        return f"{self._label}{bar} {done}/{self._total} {share:4.0%}  {time_text}{values}"

    def _write(self, text: str) -> None:
        if self._stream is not None:
            say(self._stream, text)


def say(stream: TextIO, text: str) -> None:
    """Writes what is no result. Where it cannot be written nobody reads it, and that is no end of the work."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        divert(stream)


def divert(stream: TextIO) -> None:
    """Sends a stream nowhere, with what is still in its buffer: the interpreter would complain when it closes it."""
    try:
        descriptor = stream.fileno()
    except OSError:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def counting(update: Callable[[int], object]) -> Callable[[], None]:
    """What says of each step that it is done, to something that wants to hear how many are."""
    done = itertools.count(1)

    def step() -> None:
        update(next(done))

    return step


def duration(seconds: float) -> str:
    """A time span for people: `42s`, `3m10s`, `2h05m`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def once(on_note: Callable[[str], None]) -> Callable[[str], None]:
    """Passes each note on the first time it is said."""
    told: set[str] = set()

    def note(text: str) -> None:
        if text not in told:
            told.add(text)
            on_note(text)

    return note
