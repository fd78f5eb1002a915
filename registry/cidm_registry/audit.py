"""Checking a whole registry: every record, every blob, every reference between them."""

from collections import defaultdict
from pathlib import Path

from .blobs import blob_path, check_preview, read_blob
from .disk import Disk
from .errors import RegistryError
from .journal import RESTORE, Journal, entry_path
from .records import SHA256, Problem, Record
from .runs import read_runs
from .strict_json import hash_of
from .tensors import check_safetensors


def audit(disk: Disk, root: Path, fingerprint: str, journal: Journal) -> list[Problem]:
    """Everything that is wrong. Files nothing uses are not: `gc` knows about those."""
    problems = list(journal.problems)
    problems += _about_blobs(disk, root, journal)
    problems += _about_records(root, fingerprint, journal)
    runs, unreadable = read_runs(disk, root)
    problems += unreadable
    for run in runs:
        problems += run.problems()
    return problems


def _about_blobs(disk: Disk, root: Path, journal: Journal) -> list[Problem]:
    users: dict[str, list[str]] = defaultdict(list)
    for record in journal.records:
        for blob in record.blobs:
            users[blob].append(f"{record.name!r} version {record.version}")
    weights = {record.blob for record in journal.records}
    pictures = {record.preview for record in journal.records}
    present = {name for name in disk.names(root / "blobs") if SHA256.match(name)}
    problems = []
    for sha in sorted(present | set(users)):
        needed = f" (needed by {', '.join(users[sha])})" if sha in users else ""
        try:
            data = read_blob(disk, root, sha)
            if sha in weights:
                check_safetensors(data)
            if sha in pictures:
                check_preview(data)
        except RegistryError as error:
            hint = error.hint if sha in users else "no concept uses it: `cidm gc` removes it"
            problems.append(Problem(blob_path(root, sha), f"{error.message}{needed}", hint))
    return problems


def _about_records(root: Path, fingerprint: str, journal: Journal) -> list[Problem]:
    problems = []
    for record in journal.records:
        path = entry_path(root, record.sequence)
        if record.base != fingerprint:
            problems.append(
                Problem(path, f"{record.name!r} belongs to another base", "learn it again on this base")
            )
        if record.config_hash != hash_of(record.config):
            problems.append(
                Problem(path, f"the settings of {record.name!r} were changed afterwards", RESTORE)
            )
    by_key: dict[str, list[Record]] = defaultdict(list)
    for record in journal.newest():
        by_key[record.key].append(record)
    for same in by_key.values():
        for record in same[:-1]:
            path = entry_path(root, record.sequence)
            hint = f"give the newer one another name: `cidm rename {record.name} NEW`"
            problems.append(
                Problem(path, f"a newer concept is called {record.name!r} too and hides this one", hint)
            )
    return problems
