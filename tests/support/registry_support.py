"""Making registries, and disks that fail."""

import errno
import json
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from cidm_registry import Against, BaseRef, Draft, Registry
from cidm_registry.disk import Disk

BASE = BaseRef("mini", "mini", "f" * 64)
PNG = b"\x89PNG\r\n\x1a\n" + b"not really"

DRAFT = Draft(
    name="dog",
    class_noun="dog",
    style=False,
    tokens=("<dog-0>", "<dog-1>"),
    rank=4,
    scale=1.0,
    method="cidm",
    config={"steps": 800, "rates": [1e-3, 1e-4]},
    data_hash="d" * 64,
    against=Against.of((), 0),
    losses={"last": 0.25},
    tools={"torch": "2.13.0"},
    extra={},
)

WRITES = (
    "create",
    "write",
    "fsync",
    "close",
    "replace",
    "link",
    "unlink",
    "touch",
    "mkdir",
    "sync_folder",
    "remove_tree",
)
READS = ("read", "names", "status")


class Killed(BaseException):
    """The process is gone."""


class HookedDisk(Disk):
    """Calls `hook(name, arguments)` before each operation, and `after` likewise behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.hook: Callable[[str, tuple[Any, ...]], None] = lambda name, arguments: None
        self.after: Callable[[str, tuple[Any, ...]], None] = lambda name, arguments: None
        self.locking = True

    def lock(self, path: Path, timeout: float | None) -> AbstractContextManager[None]:
        return super().lock(path, timeout) if self.locking else nullcontext()


def _hooked(name: str) -> Callable[..., Any]:
    def operation(self: HookedDisk, *arguments: Any) -> Any:
        self.hook(name, arguments)
        result = getattr(Disk, name)(self, *arguments)
        self.after(name, arguments)
        return result

    return operation


for _name in WRITES + READS:
    setattr(HookedDisk, _name, _hooked(_name))


class DyingDisk(HookedDisk):
    """Kills the process at its nth writing operation: from then on nothing it does has any effect.

    `late` kills just behind the operation instead of just before it. A write that is killed has written half.
    """

    def __init__(self, step: int, *, late: bool) -> None:
        super().__init__()
        self.step = step
        self.late = late
        self.count = 0
        self.dead = False
        self.hook = self._before
        self.after = self._behind

    def _before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.dead:
            raise Killed
        if name in WRITES:
            self.count += 1
            if self.count == self.step and not self.late:
                if name == "write":
                    Disk.write(self, arguments[0], arguments[1][: len(arguments[1]) // 2])
                self._die()

    def _behind(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in WRITES and self.count == self.step and self.late:
            self._die()

    def _die(self) -> None:
        self.dead = True
        raise Killed


class FailingDisk(HookedDisk):
    """Raises `OSError(code)` at its nth operation of the given kinds, and only there."""

    def __init__(self, step: int, code: int, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.step = step
        self.code = code
        self.kinds = kinds
        self.count = 0
        self.hook = self._before

    def _before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in self.kinds:
            self.count += 1
            if self.count == self.step:
                raise OSError(self.code, errno.errorcode[self.code], str(arguments[0]))


def make_weights(seed: int, tensors: dict[str, list[int]] | None = None) -> bytes:
    """A small safetensors file, different for each seed."""
    header: dict[str, Any] = {"__metadata__": {"seed": str(seed)}}
    position = 0
    for name, shape in (tensors or {"unet.lora_A": [4, 2], "tokens": [3]}).items():
        size = 4
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes((seed + n) % 251 for n in range(position))


def make_draft(name: str, **changes: Any) -> Draft:
    return replace(DRAFT, name=name, **changes)


def add(registry: Registry, name: str, seed: int, **options: Any) -> Any:
    """Commits a concept to a registry nobody else writes to."""
    return registry.commit(make_draft(name), make_weights(seed), expected_head=registry.head(), **options)


def files_of(root: Path) -> dict[str, bytes]:
    """Every file of a registry with its content, but for the lock."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != "lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
