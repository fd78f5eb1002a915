"""Values that take time to make, kept for as long as there is room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class Recent(Generic[Value]):
    """The values last asked for; the newest one always, however large it is."""

    limit: int
    """Bytes that all of them together may take."""
    size: Callable[[Value], int]
    """Bytes of one."""
    _kept: dict[str, tuple[Value, int]] = field(default_factory=dict)
    _held: int = 0

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept."""
        if key in self._kept:
            value, size = self._kept.pop(key)
        else:
            value = make()
            size = self.size(value)
            self._held += size
        # Behind all others: a dict remembers the order.
        self._kept[key] = (value, size)
        while len(self._kept) > 1 and self._held > self.limit:
            oldest = next(iter(self._kept))
            self._held -= self._kept.pop(oldest)[1]
        return value
