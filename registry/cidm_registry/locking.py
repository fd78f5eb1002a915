"""The registry's lock: a courtesy between processes, never what correctness rests on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import Busy, Damaged


@contextmanager
def hold(path: Path, timeout: float | None) -> Iterator[None]:
    """Holds the lock file at `path`; re-entrant within a thread. `timeout` in seconds, None waits for ever.

    A lock that cannot be taken at all (read-only or network folder, full disk) is not an error: every commit
    is safe without it, the lock only spares two writers the work of trying again.

    Raises Busy on timeout, Damaged where the lock is a symbolic link (it would be opened for writing).
    """
    if path.is_symlink():
        raise Damaged(f"{path} is a symbolic link", "remove the link; the lock is an ordinary empty file")
    # One lock object per path and process, so that a caller holding the lock can commit. No soft lock: that
    # one stays behind when its process is killed, and would stop every later one.
    lock = FileLock(path, is_singleton=True, fallback_to_soft=False)
    try:
        lock.acquire(timeout=-1 if timeout is None else timeout)
    except Timeout as error:
        raise Busy(
            f"another process is using the registry {path.parent}",
            "wait until it has finished, then try again",
        ) from error
    except (OSError, NotImplementedError):
        held = False
    else:
        held = True
    try:
        yield
    finally:
        if held:
            lock.release()
