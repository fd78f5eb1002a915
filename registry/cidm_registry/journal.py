"""Reading `concepts/`: which numbers are used, which concepts are alive, what they are called.

A concept is alive while `000005.json` is there and `000005.removed` is not. Numbers are claimed one after
another by `disk.claim`; whoever claims number n+1 has seen everything up to n, so names cannot clash and
order cannot fork.
"""

import difflib
import gc
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .disk import Disk
from .errors import Conflict, Damaged, Exists, NotFound, RegistryError
from .names import canonical_key
from .records import Against, Problem, Record, Renaming, Stored, decode

ENTRY = re.compile(r"([0-9]{6,})\.(json|removed)\Z")

RESTORE = (
    "restore the file from a backup, or let its name end in .removed if the concept is not needed any more"
)


@dataclass(frozen=True)
class Journal:
    """What `concepts/` held at one moment."""

    root: Path
    """The registry's folder."""
    head: int
    """The highest number ever used, removed concepts included."""
    records: tuple[Record, ...]
    """Every live version of every concept, by number, under the names they have now."""
    renamings: tuple[Renaming, ...]
    """Changes of name that were not removed, by number."""
    problems: tuple[Problem, ...]
    """Entries that could not be read. Their concepts are left out, nothing else is."""
    unreadable: Mapping[int, str | None]
    """The numbers of those entries, with the key that each gives; None where nothing tells it."""
    last: str
    """Key that the entry with the highest number gave; empty where there is none that can be read."""

    def newest(self) -> tuple[Record, ...]:
        """The newest version of each concept, by number."""
        return _newest(self.records)

    def find(self, key: str) -> Record | None:
        """The newest version of the concept with that key."""
        return next((record for record in reversed(self.records) if record.key == key), None)

    def get(self, name: str) -> Record:
        """The newest version of a concept. Raises NotFound, with a suggestion; InvalidName."""
        key = canonical_key(name)
        if record := self.find(key):
            return record
        names = {one.key: one.name for one in self.newest()}
        close = difflib.get_close_matches(key, names, n=1)
        if key in self.unreadable.values():
            hint = "its record cannot be read: see `cidm verify`"
        elif close:
            hint = f"did you mean {names[close[0]]!r}?"
        elif self.problems:
            hint = "some records cannot be read: see `cidm verify`"
        else:
            hint = "`cidm list` shows all concepts"
        raise NotFound(f"there is no concept {name!r} in {self.root}", hint)

    def check_free(self, name: str) -> None:
        """Raises Damaged if a concept whose record cannot be read has that name, or may have it; InvalidName."""
        key = canonical_key(name)
        for problem, held in zip(self.problems, self.unreadable.values(), strict=True):
            if held is None or held == key:
                taken = "may be taken" if held is None else "is taken"
                raise Damaged(f"the name {name!r} {taken}: {problem.path}: {problem.message}", problem.hint)

    def check_unused(self, name: str, origin: int) -> None:
        """Raises Exists if a concept has that name, but for the one whose first version is `origin`.

        Raises Damaged where `check_free` does.
        """
        key = canonical_key(name)
        if other := next((one for one in self.records if one.key == key and one.origin != origin), None):
            raise Exists(
                f"there already is a concept {other.name!r}", "give one of them another name: `cidm rename`"
            )
        self.check_free(name)

    def older(self, against: Against) -> tuple[Record, ...]:
        """Those that are still here of the concepts that one was consolidated against, oldest first."""
        return _newest(record for record in self.records if record.sequence <= against.sequence)

    def versions(self, origin: int) -> tuple[Record, ...]:
        """All versions of one concept, oldest first."""
        return tuple(record for record in self.records if record.origin == origin)

    def referenced(self) -> frozenset[str]:
        """Every blob a live record of any version needs."""
        return frozenset(blob for record in self.records for blob in record.blobs)


def entry_path(root: Path, sequence: int) -> Path:
    """Where entry number `sequence` is."""
    return root / f"concepts/{sequence:06d}.json"


def tombstone_path(root: Path, sequence: int) -> Path:
    """What entry number `sequence` becomes when it is removed. It keeps the number from being used again."""
    return root / f"concepts/{sequence:06d}.removed"


def read_journal(disk: Disk, root: Path) -> Journal:
    """Reads every live entry. Unreadable ones become problems; only an unreadable folder raises (OSError)."""
    present, removed = numbers(disk.names(root / "concepts"))
    stored: dict[int, Stored] = {}
    wrong: dict[int, Exception] = {}
    with _no_search_for_cycles():
        for sequence in sorted(present - removed):
            try:
                stored[sequence] = decode(disk.read(entry_path(root, sequence)), sequence)
            except FileNotFoundError:
                continue  # removed by another process since the folder was listed
            except (OSError, ValueError, RegistryError) as error:
                wrong[sequence] = error
    entries = [one.entry for one in stored.values()]
    renamed = {entry.origin: entry.key for entry in entries if isinstance(entry, Renaming)}
    held = {
        sequence: renamed.get(sequence) or _said_behind(disk, root, sequence, stored) for sequence in wrong
    }
    problems = [_problem(entry_path(root, number), held[number], error) for number, error in wrong.items()]
    renamings = tuple(entry for entry in entries if isinstance(entry, Renaming))
    head = max(present | removed, default=0)
    last = stored[head].entry.key if head in stored else ""
    return Journal(root, head, named(entries), renamings, tuple(problems), held, last)


def read_stored(disk: Disk, root: Path, record: Record) -> tuple[Record, str | None]:
    """A record as it lies on disk, under the name it was committed with, and its `previous`.

    Raises NotFound if it was removed, Conflict if it is not the one that was read before, Damaged.
    """
    path = entry_path(root, record.sequence)
    try:
        stored = decode(disk.read(path), record.sequence)
    except FileNotFoundError as error:
        raise NotFound(f"{record.name!r} has been removed") from error
    except ValueError as error:
        raise Damaged(f"{path}: {error}", "restore it from a backup") from error
    entry = stored.entry
    if not isinstance(entry, Record) or entry.blob != record.blob:
        raise Conflict(f"{path} is not the record of {record.name!r} that was read before")
    return entry, stored.previous


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Entries hold no cycles; searching them for some, again and again as they get more, takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _said_behind(disk: Disk, root: Path, sequence: int, stored: Mapping[int, Stored]) -> str | None:
    """The key that an unreadable entry gives, as the entry behind it tells, removed or not; None where none does."""
    behind = stored.get(sequence + 1)
    if behind is None:
        try:
            behind = decode(disk.read(tombstone_path(root, sequence + 1)), sequence + 1)
        except (OSError, ValueError, RegistryError):
            return None
    return behind.previous


def _problem(path: Path, key: str | None, error: Exception) -> Problem:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    which = f"the record of {key!r}" if key else "this record"
    hint = error.hint if isinstance(error, RegistryError) else None
    return Problem(path, f"{which} cannot be read: {reason}", hint or RESTORE)


def numbers(names: Sequence[str]) -> tuple[set[int], set[int]]:
    """The numbers of the entries and of the tombstones in a folder with those files."""
    present: set[int] = set()
    removed: set[int] = set()
    for name in names:
        match = ENTRY.match(name)
        # Only the one spelling of each number counts: 0000005.json would be a second record 5.
        if match and match[1] == f"{int(match[1]):06d}":
            (present if match[2] == "json" else removed).add(int(match[1]))
    return present, removed


def _newest(records: Iterable[Record]) -> tuple[Record, ...]:
    last = {record.origin: record for record in records}
    return tuple(sorted(last.values(), key=lambda record: record.sequence))


def named(entries: Sequence[Record | Renaming]) -> tuple[Record, ...]:
    """Every version among entries, under the name that the newest of them about its concept says."""
    latest = {entry.origin: entry for entry in entries}
    return tuple(
        entry
        if latest[entry.origin].name == entry.name
        else replace(entry, name=latest[entry.origin].name, key=latest[entry.origin].key)
        for entry in entries
        if isinstance(entry, Record)
    )
