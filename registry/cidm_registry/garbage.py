"""Finding and deleting what no concept uses.

What is alive is computed from the records, so one unreadable record stops everything. Young files are left
alone: another process may have written them for a record that does not exist yet. That is safe without any
lock, because a blob is first set aside, then the records are read again, and only then is it deleted; a
commit that was under way looks for its blobs after its record is visible, and writes them again if they are
gone.
"""

import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .blobs import TRASH
from .disk import TEMP, Disk
from .errors import Damaged
from .journal import read_journal
from .records import SHA256, Plan
from .runs import read_runs

GRACE = 3600.0
"""Seconds a file nothing uses is left alone."""


def plan_collection(disk: Disk, root: Path, grace: float, runs: bool) -> Plan:
    """What `collect` would delete. Raises Damaged if any record is unreadable."""
    alive = _alive(disk, root)
    young = disk.now() - grace
    files: list[Path] = []
    waiting = 0
    for path, temporary in _unused(disk, root, alive, runs):
        try:
            if temporary and disk.status(path).st_mtime > young:
                waiting += 1
            else:
                files.append(path)
        except FileNotFoundError:
            continue
    return Plan((), tuple(files), sum(size_of(disk, path) for path in files), waiting=waiting)


def collect(disk: Disk, root: Path, grace: float, runs: bool) -> Plan:
    """Deletes what nothing uses. Returns what was deleted. Raises Damaged if any record is unreadable."""
    plan = plan_collection(disk, root, grace, runs)
    doomed: list[Path] = []
    for path in plan.files:
        if path.parent.name == "blobs" and SHA256.match(path.name):
            aside = path.with_name(TRASH + path.name)
            with suppress(FileNotFoundError):
                disk.replace(path, aside)
                doomed.append(aside)
        else:
            doomed.append(path)
    try:
        alive = _alive(disk, root)
    except Damaged:
        _put_back(disk, [path for path in doomed if path.name.startswith(TRASH)])
        raise
    back = [path for path in doomed if path.name.removeprefix(TRASH) in alive]
    _put_back(disk, back)
    for path in doomed:
        if path not in back:
            _delete(disk, path)
    kept = {path.with_name(path.name.removeprefix(TRASH)) for path in back}
    files = tuple(path for path in plan.files if path not in kept and path not in back)
    return replace(plan, files=files, size=plan.size - sum(size_of(disk, path) for path in kept))


def _alive(disk: Disk, root: Path) -> frozenset[str]:
    journal = read_journal(disk, root)
    if journal.problems:
        problem = journal.problems[0]
        raise Damaged(f"nothing was deleted: {problem.path}: {problem.message}", problem.hint)
    return journal.referenced()


def _unused(disk: Disk, root: Path, alive: frozenset[str], runs: bool) -> list[tuple[Path, bool]]:
    """Paths nothing refers to, and whether each has to be old before it may go."""
    found: list[tuple[Path, bool]] = []
    for path in _inside(disk, root / "blobs"):
        if path.name.startswith(TRASH):
            found.append((path, False))
        elif path.name.startswith(TEMP) or (SHA256.match(path.name) and path.name not in alive):
            found.append((path, True))
    for path in _inside(disk, root / "concepts"):
        if path.suffix == ".json" and path.with_suffix(".removed").exists():
            found.append((path, False))
    for folder in (root, root / "concepts", root / "runs"):
        found += [(path, True) for path in _inside(disk, folder) if path.name.startswith(TEMP)]
    found += [(path, False) for path in _inside(disk, root / "runs") if path.name.startswith(TRASH)]
    for run in read_runs(disk, root)[0]:
        if runs:
            found.append((run.path, True))
        else:
            found += [(path, True) for path in _inside(disk, run.path) if path.name.startswith(TEMP)]
    return found


def _inside(disk: Disk, folder: Path) -> list[Path]:
    try:
        return [folder / name for name in disk.names(folder)]
    except FileNotFoundError:
        return []


def _put_back(disk: Disk, aside: list[Path]) -> None:
    for path in aside:
        target = path.with_name(path.name.removeprefix(TRASH))
        if SHA256.match(target.name) and not target.exists():
            disk.replace(path, target)
        else:
            _delete(disk, path)


def _delete(disk: Disk, path: Path) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(disk.status(path).st_mode):
            disk.remove_tree(path)
        else:
            disk.unlink(path)


def size_of(disk: Disk, path: Path) -> int:
    """Bytes in a file or a folder; nothing for what has vanished meanwhile."""
    try:
        status = disk.status(path)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size
        return sum(size_of(disk, path / name) for name in disk.names(path))
    except FileNotFoundError:
        return 0
