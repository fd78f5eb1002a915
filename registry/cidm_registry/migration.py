"""Writing an older registry down in today's format.

First one archive takes a copy of all that will change; blobs never do. Then the head says the new format, which keeps
older programs away, and that the work goes on. Then entry after entry is replaced, each whole or not at all. Entries of
either format can be read all the while, so that nothing is lost when this is killed; the next writer finishes it.
"""

import errno
import io
import zipfile
from pathlib import Path

from .blobs import sha256_of
from .disk import Disk, place
from .errors import RegistryError
from .head import HEAD_FILE, MIGRATING, Head, encode_head
from .journal import entry_path, numbers, tombstone_path
from .records import decode, encode
from .steps import FORMAT

NOT_A_FILE = frozenset({errno.ENOENT, errno.EISDIR, errno.EINVAL})
"""What reading answers for an entry that was removed meanwhile, or is none: such a one is not replaced either."""


def migrate(disk: Disk, root: Path, head: Head) -> str:
    """Brings a registry up to FORMAT; says what was done. Raises OSError where the file system refuses."""
    content = dict(head.content)
    if content["format"] < FORMAT:
        data = _copy(disk, root)
        # Named by content: a copy is never lost to a later one, which might be of records half migrated.
        name = f"format-{content['format']}-{sha256_of(data)[:12]}.zip"
        place(disk, root / name, data)
        content |= {"format": FORMAT, MIGRATING: name}
        place(disk, root / HEAD_FILE, encode_head(content))
    _rewrite_entries(disk, root)
    copy = root / str(content.pop(MIGRATING))
    place(disk, root / HEAD_FILE, encode_head(content))
    return (
        f"the records of {root} are now of format {FORMAT}, which older versions of cidm cannot read; "
        f"{copy} keeps them as they were"
    )


def _copy(disk: Disk, root: Path) -> bytes:
    """The head and every entry, removed ones too. Equal files give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in (root / HEAD_FILE, *(path for _, path in _entries(disk, root))):
            try:
                data = disk.read(path)
            except OSError as error:
                if error.errno not in NOT_A_FILE:
                    raise
            else:
                # ZipInfo by itself is of a fixed date.
                file = zipfile.ZipInfo(path.relative_to(root).as_posix())
                archive.writestr(file, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _rewrite_entries(disk: Disk, root: Path) -> None:
    """One that cannot be read stays as it is: it is told of wherever records are read."""
    before: str | None = ""
    for sequence, path in _entries(disk, root):
        try:
            raw = disk.read(path)
            stored = decode(raw, sequence)
        except (OSError, ValueError, RegistryError):
            before = None
            continue
        new = encode(stored.entry, before if stored.previous is None else stored.previous)
        if new != raw:
            place(disk, path, new)
        before = "" if path == tombstone_path(root, sequence) else stored.entry.key


def _entries(disk: Disk, root: Path) -> list[tuple[int, Path]]:
    """Every number that was ever used, with its file, in order."""
    present, removed = numbers(disk.names(root / "concepts"))
    entries = [(number, entry_path(root, number)) for number in present - removed]
    return sorted(entries + [(number, tombstone_path(root, number)) for number in removed])
