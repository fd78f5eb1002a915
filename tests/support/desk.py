"""A studio with a worker that computes nothing: it says what a test has it say."""

from __future__ import annotations

import io
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

TOKEN = "a-token"
HOME = f"http://127.0.0.1/{TOKEN}/"
API = f"{HOME}api/"


class Puppet:
    """A worker whose messages come from a test, and that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.closed = threading.Event()

    def say(self, **message: Any) -> None:
        self._said.put(message)

    def die(self) -> None:
        self._said.put(None)

    def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(dict(message))

    def messages(self) -> Iterator[dict[str, Any]]:
        while (message := self._said.get()) is not None:
            yield message

    def close(self) -> str:
        self.closed.set()
        self.die()
        return "was killed by signal 9"


class Stage:
    """Gives puppets, one after another."""

    def __init__(self) -> None:
        self.puppets: list[Puppet] = []

    def __call__(self) -> Puppet:
        self.puppets.append(Puppet())
        return self.puppets[-1]

    @property
    def now(self) -> Puppet:
        until(lambda: self.puppets)
        return self.puppets[-1]


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits for something that other threads or processes bring about."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def png(colour: tuple[int, int, int] = (200, 40, 40), side: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(stream, "PNG")
    return stream.getvalue()


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
