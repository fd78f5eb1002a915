"""Training runs in progress: a folder each, with its settings and its newest checkpoints.

A run becomes visible only once its settings are complete, and vanishes in one rename.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .blobs import TRASH, sha256_of
from .disk import TEMP, Disk, explained, place
from .errors import Invalid
from .records import Problem
from .strict_json import canonical_json, parse

CONFIG = "config.json"
CHECKPOINT = re.compile(r"step-([0-9]{9,})-([0-9a-f]{64})\Z")
IDENTITY = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}\Z")


@dataclass(frozen=True)
class Run:
    """One training run."""

    id: str
    """Its name: time of its start and a random part."""
    path: Path
    """Its folder."""
    config: dict[str, Any]
    """Its settings; `config["key"]` is the concept it is for."""
    disk: Disk = field(default_factory=Disk, repr=False, compare=False)
    """How it touches the file system."""

    def save(self, step: int, blob: bytes) -> None:
        """Keeps a checkpoint, durably, then drops all but it and the newest one before it.

        Checkpoints of the same or a later step go too: they are damaged, or belong to a part of the run that
        is being done again. Raises RegistryError when it cannot be written; the older checkpoints are
        untouched then.
        """
        name = f"step-{step:09d}-{sha256_of(blob)}"
        with explained(f"saving a checkpoint of run {self.id}"):
            place(self.disk, self.path / name, blob)
        older = [found for found in self._checkpoints() if found.name != name]
        before = [found for found in older if _step(found) < step]
        for found in older:
            if found not in before[:1]:
                with suppress(OSError):
                    self.disk.unlink(found)

    def latest(self) -> tuple[int, bytes] | None:
        """Step and content of the newest checkpoint that is intact, or None. A damaged one is passed over."""
        for path in self._checkpoints():
            data = self._intact(path)
            if data is not None:
                return _step(path), data
        return None

    def finish(self) -> None:
        """Removes the run. It is gone at once, even if deleting its files is cut short."""
        aside = self.path.with_name(TRASH + self.id)
        with explained(f"removing run {self.id}"), suppress(FileNotFoundError):
            self.disk.replace(self.path, aside)
            self.disk.remove_tree(aside)

    def problems(self) -> Iterator[Problem]:
        """Damaged checkpoints."""
        for path in self._checkpoints():
            if self._intact(path) is None:
                yield Problem(path, "this checkpoint is damaged", "resuming passes it over; delete it")

    def _checkpoints(self) -> list[Path]:
        names = [name for name in self.disk.names(self.path) if CHECKPOINT.match(name)]
        return sorted((self.path / name for name in names), key=_step, reverse=True)

    def _intact(self, path: Path) -> bytes | None:
        match = CHECKPOINT.match(path.name)
        try:
            data = self.disk.read(path)
        except OSError:
            return None
        return data if match and sha256_of(data) == match[2] else None


def start_run(disk: Disk, root: Path, config: dict[str, Any]) -> Run:
    """A new run. Raises Invalid for settings without a `key` or that JSON cannot say."""
    if not isinstance(config.get("key"), str):
        raise Invalid("a run's settings must name the concept's key")
    try:
        raw = canonical_json(config)
        plain = parse(raw)
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"the run's settings hold a value JSON cannot say: {error}") from error
    identity = f"{disk.date():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    folder = root / "runs"
    temp = folder / f"{TEMP}{identity}"
    with explained("starting a training run"):
        disk.mkdir(temp)
        place(disk, temp / CONFIG, raw)
        disk.replace(temp, folder / identity)
        disk.sync_folder(folder)
    return Run(identity, folder / identity, plain, disk)


def read_runs(disk: Disk, root: Path) -> tuple[list[Run], list[Problem]]:
    """All runs, oldest first by their name, and those whose settings cannot be read."""
    runs: list[Run] = []
    problems: list[Problem] = []
    try:
        names = disk.names(root / "runs")
    except FileNotFoundError:
        names = []  # some tools that copy folders leave out empty ones
    for name in names:
        if not IDENTITY.match(name):
            continue
        path = root / "runs" / name
        try:
            config = parse(disk.read(path / CONFIG))
            if not isinstance(config, dict) or not isinstance(config.get("key"), str):
                raise ValueError("its settings name no concept")
        except FileNotFoundError:
            if path.is_dir():
                problems.append(Problem(path, "this training run has no settings", "delete the folder"))
        except (OSError, ValueError):
            problems.append(
                Problem(path, "the settings of this training run cannot be read", "delete the folder")
            )
        else:
            runs.append(Run(name, path, config, disk))
    return runs, problems


def _step(path: Path) -> int:
    match = CHECKPOINT.match(path.name)
    return int(match[1]) if match else -1
