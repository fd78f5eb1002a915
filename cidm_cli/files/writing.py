"""Writing a file of the user's whole or not at all, and asking before long work whether that can be done."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from ..errors import CidmError


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, making its folder.

    Raises:
        CidmError: FAILED, naming the file, when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".cidm-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def write_beside(folder: Path, stem: str, ending: str, content: bytes) -> Path:
    """Writes a file into a folder, under the first of stem, stem-2, … that is free or holds the same.

    Raises:
        CidmError: FAILED, naming the file, when it cannot be written.
    """
    path, number = folder / f"{stem}{ending}", 1
    while path.exists() and path.read_bytes() != content:
        number += 1
        path = folder / f"{stem}-{number}{ending}"
    write_whole(path, content)
    return path


def check_place(path: Path) -> None:
    """To be asked before long work. Raises as ``write_whole`` would, as far as can be told without making anything."""
    folder = path.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    try:
        path.lstat()  # raises for a name that is too long, and where nothing may be looked at
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise unwritable(path, error) from error
    for number, bad in (
        (errno.EISDIR, path.is_dir()),
        (errno.ENOTDIR, not folder.is_dir()),
        (errno.EACCES, not os.access(folder, os.W_OK | os.X_OK)),
    ):
        if bad:
            raise unwritable(path, OSError(number, os.strerror(number)))


def unwritable(path: Path, error: OSError) -> CidmError:
    """What the system says of a file of -o, as a user is told it."""
    return CidmError(f"{path}: cannot be written ({error.strerror})", hint="choose another -o")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
