"""Reading `concepts/`: which numbers are used, which concepts are alive, what they are called.

A concept is alive while `000005.json` is there and `000005.removed` is not. Numbers are claimed one after
another by `disk.claim`; whoever claims number n+1 has seen everything up to n, so names cannot clash and
order cannot fork.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from .disk import Disk
from .errors import RegistryError
from .records import Problem, Record, Renaming, decode

ENTRY = re.compile(r"([0-9]{6,})\.(json|removed)\Z")

RESTORE = "restore the file from a backup, or delete it if the concept is not needed any more"


@dataclass(frozen=True)
class Journal:
    """What `concepts/` held at one moment."""

    head: int
    """The highest number ever used, removed concepts included."""
    records: tuple[Record, ...]
    """Every live version of every concept, by number, under the names they have now."""
    renamings: tuple[Renaming, ...]
    """Live changes of name, by number."""
    problems: tuple[Problem, ...]
    """Entries that could not be read. Their concepts are left out, nothing else is."""
    unreadable: tuple[int, ...]
    """The numbers of those entries."""

    def newest(self) -> tuple[Record, ...]:
        """The newest version of each concept, by number."""
        last = {record.origin: record for record in self.records}
        return tuple(sorted(last.values(), key=lambda record: record.sequence))

    def find(self, key: str) -> Record | None:
        """The newest version of the concept with that key."""
        found = [record for record in self.newest() if record.key == key]
        return found[-1] if found else None

    def versions(self, origin: int) -> tuple[Record, ...]:
        """All versions of one concept, oldest first."""
        return tuple(record for record in self.records if record.origin == origin)

    def referenced(self) -> frozenset[str]:
        """Every blob a live record of any version needs."""
        return frozenset(blob for record in self.records for blob in record.blobs)


def entry_path(root: Path, sequence: int) -> Path:
    """Where entry number `sequence` is."""
    return root / "concepts" / f"{sequence:06d}.json"


def tombstone_path(root: Path, sequence: int) -> Path:
    """What entry number `sequence` becomes when it is removed. It keeps the number from being used again."""
    return root / "concepts" / f"{sequence:06d}.removed"


def read_journal(disk: Disk, root: Path) -> Journal:
    """Reads every live entry. Unreadable ones become problems; only an unreadable folder raises (OSError)."""
    present, removed = _numbers(disk.names(root / "concepts"))
    entries: list[Record | Renaming] = []
    problems: list[Problem] = []
    unreadable: list[int] = []
    for sequence in sorted(present - removed):
        path = entry_path(root, sequence)
        try:
            entries.append(decode(disk.read(path), sequence))
        except FileNotFoundError:
            continue  # removed by another process since the folder was listed
        except (OSError, ValueError, RegistryError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(Problem(path, f"this record cannot be read: {reason}", RESTORE))
            unreadable.append(sequence)
    records, renamings = _named(entries)
    return Journal(max(present | removed, default=0), records, renamings, tuple(problems), tuple(unreadable))


def _numbers(names: list[str]) -> tuple[set[int], set[int]]:
    present: set[int] = set()
    removed: set[int] = set()
    for name in names:
        match = ENTRY.match(name)
        # Only the one spelling of each number counts: 0000005.json would be a second record 5.
        if match and match[1] == f"{int(match[1]):06d}":
            (present if match[2] == "json" else removed).add(int(match[1]))
    return present, removed


def _named(entries: list[Record | Renaming]) -> tuple[tuple[Record, ...], tuple[Renaming, ...]]:
    """Gives every version of a concept the name that the newest entry about it says."""
    alive = {entry.origin for entry in entries if isinstance(entry, Record)}
    latest = {entry.origin: entry for entry in entries}
    records = [
        entry
        if latest[entry.origin].name == entry.name
        else replace(entry, name=latest[entry.origin].name, key=latest[entry.origin].key)
        for entry in entries
        if isinstance(entry, Record)
    ]
    renamings = [entry for entry in entries if isinstance(entry, Renaming) and entry.origin in alive]
    return tuple(records), tuple(renamings)
