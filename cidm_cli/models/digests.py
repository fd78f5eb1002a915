"""Hashes of large files, taken once: a checkpoint's gigabytes need not be read again before every drawing."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ..files.places import cache_folder
from ..files.tensor_files import read_header

#: Bytes from which on a hash is worth remembering.
LARGE = 64 << 20
#: Seconds a file must have lain untouched: within a clock tick a change could hide behind equal times.
SETTLED = 2.0
#: Files remembered.
MOST = 200


def digest_weights(file: Path) -> str:
    """As ``digest``, of a safetensors file.

    Raises:
        CidmError: INVALID for what is none, or has a header that no honest file has.
    """
    read_header(file, hint="save the model again with save_pretrained(PATH)")
    return digest(file)


def digest(file: Path) -> str:
    """sha256 of a file's content, in hexadecimal.

    A large file's is remembered under its place, size, inode and the times of its last changes, of content and of
    properties: the latter no program can set back.
    """
    before = _identity(file)
    large = file.stat().st_size >= LARGE
    if large and (known := _remembered().get(before)):
        return known
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    settled = time.time() - file.stat().st_ctime > SETTLED
    if large and settled and _identity(file) == before:
        _remember(before, found)
    return found


def _identity(file: Path) -> str:
    there = file.stat()
    parts = (file.resolve(), there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)
    return "|".join(map(str, parts))


def _notes() -> Path:
    return cache_folder() / "digests.json"


def _remembered() -> dict[str, str]:
    try:
        notes = json.loads(_notes().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(notes, dict):
        return {}
    return {key: value for key, value in notes.items() if isinstance(value, str) and len(value) == 64}


def _remember(identity: str, found: str) -> None:
    """Where nothing can be written, the file is read again the next time."""
    notes = _notes()
    kept = dict(list(_remembered().items())[-(MOST - 1) :]) | {identity: found}
    with suppress(OSError):
        notes.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=notes.parent, prefix=".digests")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(kept, stream)
        os.replace(name, notes)
