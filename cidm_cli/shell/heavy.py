"""The libraries that take seconds to import: whoever waits for them hears of it first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIBRARIES = frozenset({"torch", "transformers", "diffusers", "peft", "accelerate"})
"""What a command that refuses, or needs no model, does without."""


class _Herald:
    """A finder of modules that finds none: it is asked first, and tells once.

    It stays where it is until the end: taken out while it is asked, it would have the finder after it passed over.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._told = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in LIBRARIES and not self._told:
            self._told = True
            self._tell()


@contextmanager
def heralded(tell: Callable[[], None]) -> Iterator[None]:
    """While open, ``tell`` is called once, right before the first of LIBRARIES is imported; never where one is there.

    Wherever the import stands: no command has to remember to say that it loads.
    """
    if LIBRARIES & sys.modules.keys():
        yield
        return
    herald = _Herald(tell)
    sys.meta_path.insert(0, herald)
    try:
        yield
    finally:
        sys.meta_path.remove(herald)
