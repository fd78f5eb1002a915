"""Blobs: files named by the sha256 of their content, written once, checked whenever they are read."""

import hashlib
from contextlib import suppress
from pathlib import Path

from .disk import Disk, place
from .errors import Damaged, Invalid
from .records import SHA256

TRASH = ".trash-"
"""Start of the name of a blob that `gc` has set aside and not yet deleted."""

PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")

MAX_PREVIEW = 20_000_000
"""Bytes."""


def sha256_of(data: bytes) -> str:
    """The name under which `data` is kept."""
    return hashlib.sha256(data).hexdigest()


def blob_path(root: Path, sha: str) -> Path:
    """Where a blob is. Raises Invalid for anything but 64 hexadecimal digits."""
    if not SHA256.match(sha):
        raise Invalid(f"{sha[:80]!r} is not the sha256 of a blob")
    return root / "blobs" / sha


def put_blob(disk: Disk, root: Path, data: bytes) -> str:
    """Makes sure `data` is kept, and returns its name. A damaged file of that name is replaced."""
    sha = sha256_of(data)
    path = blob_path(root, sha)
    if _holds(disk, path, data):
        # Renews its age: gc leaves young blobs alone, and the record that will point here does not exist yet.
        with suppress(OSError):
            disk.touch(path)
    else:
        place(disk, path, data)
    return sha


def read_blob(disk: Disk, root: Path, sha: str) -> bytes:
    """The content of a blob. Raises Damaged, naming the file, if it is missing or not what its name says."""
    path = blob_path(root, sha)
    try:
        data = disk.read(path)
    except FileNotFoundError as error:
        aside = path.with_name(TRASH + sha).exists()
        hint = "an interrupted gc set it aside: run `cidm gc`" if aside else "restore it from a backup"
        raise Damaged(f"{path} is missing", hint) from error
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}", "restore it from a backup") from error
    if sha256_of(data) != sha:
        raise Damaged(f"{path} is damaged: its content does not match its name", "restore it from a backup")
    return data


def check_preview(data: bytes) -> None:
    """Raises Invalid unless `data` is, by content, a PNG or JPEG picture of bearable size."""
    if not data.startswith(PICTURES):
        raise Invalid("a preview must be a PNG or JPEG picture")
    if len(data) > MAX_PREVIEW:
        raise Invalid(f"a preview may take {MAX_PREVIEW:,} bytes, this one takes {len(data):,}")


def _holds(disk: Disk, path: Path, data: bytes) -> bool:
    try:
        return disk.read(path) == data
    except OSError:
        return False
