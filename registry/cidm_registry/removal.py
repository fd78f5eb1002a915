"""Removing a concept and bringing it back: an entry is hidden by a change of its file's name, and keeps its content."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .blobs import blob_path
from .disk import Disk, settle
from .errors import RegistryError
from .garbage import size_of
from .journal import Journal, entry_path, named, numbers, tombstone_path
from .records import Plan, Record, Renaming, decode


@dataclass(frozen=True)
class Removed:
    """A removed concept whose files are still there."""

    record: Record
    """Its newest version, under the name it had last."""
    numbers: tuple[int, ...]
    """Its entries in the order in which they are brought back: changes of name, then versions, the newest first."""


def plan_removal(disk: Disk, root: Path, journal: Journal, record: Record) -> Plan:
    """What removing a concept, with all its versions, would do."""
    gone = journal.versions(record.origin)
    going = {blob for one in gone for blob in one.blobs}
    kept = {blob for one in journal.records if one.origin != record.origin for blob in one.blobs}
    later = (one for one in journal.newest() if one.against.sequence >= record.origin)
    dependents = sorted({one.name for one in later} - {record.name})
    files = tuple(path for path in (blob_path(root, blob) for blob in sorted(going - kept)) if path.exists())
    return Plan(gone, files, sum(size_of(disk, path) for path in files), tuple(dependents))


def remove_concept(disk: Disk, root: Path, journal: Journal, origin: int) -> None:
    """Turns each record into a tombstone, the newest version last: until then the concept is whole."""
    going = [one.sequence for one in journal.versions(origin)]
    going += [one.sequence for one in journal.renamings if one.origin == origin]
    for number in going:
        # Removed by another process meanwhile: that is what was asked for.
        with suppress(FileNotFoundError):
            disk.replace(entry_path(root, number), tombstone_path(root, number))
    settle(disk, root / "concepts")


def removed(disk: Disk, root: Path, journal: Journal) -> list[Removed]:
    """The removed concepts that can be brought back, by number; a version whose files are gone stays removed."""
    hidden = [*_hidden(disk, root)]
    records = named(sorted([*hidden, *journal.renamings], key=lambda entry: entry.sequence))
    alive = {record.origin for record in journal.records}
    newest = {record.origin: record for record in records if record.origin not in alive}
    whole = [one for one in records if all(blob_path(root, blob).exists() for blob in one.blobs)]
    out = []
    for origin, last in newest.items():
        if last in whole:
            names = [one.sequence for one in hidden if isinstance(one, Renaming) and one.origin == origin]
            versions = [one.sequence for one in reversed(whole) if one.origin == origin]
            out.append(Removed(last, (*names, *versions)))
    return sorted(out, key=lambda one: one.record.sequence)


def bring_back(disk: Disk, root: Path, found: Removed) -> None:
    """Turns tombstones into records again; the concept is there as soon as its newest version is.

    The entry that is to be written next makes it durable.
    """
    for number in found.numbers:
        # Brought back by another process meanwhile.
        with suppress(FileNotFoundError):
            disk.replace(tombstone_path(root, number), entry_path(root, number))


def _hidden(disk: Disk, root: Path) -> Iterator[Record | Renaming]:
    """The content of tombstones, by number; one that cannot be read was given up for that."""
    _, tombstones = numbers(disk.names(root / "concepts"))
    for number in sorted(tombstones):
        with suppress(OSError, ValueError, RegistryError):
            yield decode(disk.read(tombstone_path(root, number)), number).entry
