"""Every touch of the outside world, in one small object, and the two ways a file comes into being.

Tests hand the registry a `Disk` that fails, or kills the process, at the nth operation.
"""

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from .errors import RegistryError
from .locking import hold

TEMP = ".tmp-"
"""Start of the name of a file that is still being written. Nothing reads such a file."""

LAST_SECOND = 253_402_300_799.0
"""Of the year 9999, the last that a date can say."""

NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What `link` answers on file systems that have none (FAT, some network folders)."""

NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What `fsync` of a folder answers where folders cannot be synced."""

ADVICE = {
    errno.ENOSPC: "free some space (`cidm gc` removes what no concept uses), then try again",
    errno.EDQUOT: "free some space (`cidm gc` removes what no concept uses), then try again",
    errno.EROFS: "the registry is read-only: copy it to a folder you can write to",
    errno.EACCES: "check the permissions of the registry's folder, or give another with --registry",
    errno.EPERM: "check the permissions of the registry's folder, or give another with --registry",
}


class Disk:
    """The file system, the clock and the lock, one method per system call."""

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        """`tell` hears what went wrong behind work that is done."""
        self.tell = tell

    def now(self) -> float:
        """Seconds since 1970. Used for time stamps and the grace period, never for order."""
        return time.time()

    def date(self) -> datetime:
        """`now` in UTC, as near as a date can say it: a clock may be thousands of years off."""
        return datetime.fromtimestamp(min(max(self.now(), 0.0), LAST_SECOND), UTC)

    def lock(self, path: Path, timeout: float | None) -> AbstractContextManager[None]:
        return hold(path, timeout)

    def create(self, path: Path) -> int:
        """A descriptor of a new file; FileExistsError if anything, even a dangling link, has that name."""
        flags = (
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        )
        return os.open(path, flags, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def same(self, one: Path, other: Path) -> bool:
        return os.path.samefile(one, other)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def mkdir(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def touch(self, path: Path) -> None:
        os.utime(path)

    def sync_folder(self, path: Path) -> None:
        """Makes the names in a folder durable; does nothing where the system cannot."""
        if os.name == "nt":
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in NO_FOLDER_SYNC:
                raise
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> bytes:
        """The whole file as bytes, never mapped: a mapped file that shrinks kills the process.

        Raises OSError for anything but an ordinary file: a FIFO would wait for ever.
        """
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not an ordinary file", str(path))
            return file.readall()

    def names(self, folder: Path) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(os.listdir(folder))

    def status(self, path: Path) -> os.stat_result:
        """Of the path itself, not of what it links to."""
        return os.lstat(path)

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path)


def write_temp(disk: Disk, folder: Path, data: bytes) -> Path:
    """A finished, synced temporary file in `folder`. Leaves nothing on failure."""
    path = folder / f"{TEMP}{secrets.token_hex(8)}"
    try:
        _write(disk, path, data)
    except BaseException:
        with suppress(OSError):
            disk.unlink(path)
        raise
    return path


def place(disk: Disk, path: Path, data: bytes) -> None:
    """Writes `path` whole or not at all, replacing what was there, and makes it durable."""
    put(disk, path, data)
    disk.sync_folder(path.parent)


def put(disk: Disk, path: Path, data: bytes) -> None:
    """Writes `path` whole or not at all, replacing what was there; its name may not be durable yet."""
    temp = write_temp(disk, path.parent, data)
    try:
        disk.replace(temp, path)
    except BaseException:
        with suppress(OSError):
            disk.unlink(temp)
        raise


def settle(disk: Disk, folder: Path) -> None:
    """Makes durable what was done in a folder and can be seen there: it is done, even where the disk fails now."""
    try:
        disk.sync_folder(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        disk.tell(
            f"{folder}: written, but the disk does not say that it will last ({reason}); look after the disk"
        )


def claim(disk: Disk, path: Path, data: bytes) -> bool:
    """Writes `path` whole or not at all, and only if nothing has that name yet. False if something has.

    This is the registry's compare-and-swap: `link` of a finished file is atomic and exclusive on every POSIX
    file system, so of two writers that go for the same number exactly one wins, with or without a lock. Where
    hard links do not exist the name itself is created exclusively: just as exclusive, but a process killed
    within that write leaves an unreadable record behind.
    """
    temp = write_temp(disk, path.parent, data)
    try:
        won = _link(disk, temp, path, data)
    finally:
        with suppress(OSError):
            disk.unlink(temp)
    if won:
        settle(disk, path.parent)
    return won


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turns an OSError into a RegistryError that says what was being done, to which file, and what helps."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        file = f" ({error.filename})" if error.filename is not None else ""
        raise RegistryError(f"{doing} failed: {reason}{file}", ADVICE.get(error.errno or 0)) from error


def _write(disk: Disk, path: Path, data: bytes) -> None:
    descriptor = disk.create(path)
    try:
        left = memoryview(data)
        while left:
            left = left[disk.write(descriptor, left) :]
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)


def _link(disk: Disk, temp: Path, path: Path, data: bytes) -> bool:
    try:
        disk.link(temp, path)
    except FileExistsError:
        # A network file system may have done the link and lost the answer: it is ours if it is the same file.
        with suppress(OSError):
            return disk.same(temp, path)
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return _create_exclusively(disk, path, data)
    return True


def _create_exclusively(disk: Disk, path: Path, data: bytes) -> bool:
    try:
        _write(disk, path, data)
    except FileExistsError:
        return False
    except BaseException:
        with suppress(OSError):
            disk.unlink(path)
        raise
    return True
