"""Whether a concept that took long to learn may still be committed: what it was learned against must be as it was."""

from pathlib import Path

from .blobs import read_blob
from .disk import Disk
from .errors import Conflict, Exists, Invalid
from .journal import Journal
from .names import canonical_key
from .records import Against, Draft, Record


def check_head(root: Path, journal: Journal, draft: Draft, expected_head: int) -> None:
    """Raises Conflict if anything but a change of name or a removal came after `expected_head`, Invalid."""
    newer = [repr(one.name) for one in journal.records if one.sequence > expected_head]
    newer += [f"record {number}" for number in journal.unreadable if number > expected_head]
    if newer:
        raise Conflict(
            f"{newer[0]} was added to the registry while {draft.name!r} was being learned",
            f"learn {draft.name!r} again, now against it as well",
        )
    if expected_head > journal.head:
        raise Conflict(
            f"the registry {root} is older than when {draft.name!r} was begun",
            "was it restored from a backup?",
        )
    if draft.against.sequence > expected_head:
        raise Invalid(f"{draft.name!r} cannot have been learned against what came later")


def former_version(journal: Journal, name: str, update: bool) -> Record | None:
    """The version there is of a concept that is updated; None for a new one.

    Raises Exists if the name is taken and `update` is not set, Damaged as `Journal.check_free` does.
    """
    journal.check_free(name)
    former = journal.find(canonical_key(name))
    if former is not None and not update:
        raise Exists(
            f"there already is a concept {former.name!r}",
            "choose another name, or give --update to replace it",
        )
    return former


def check_older(disk: Disk, root: Path, journal: Journal, draft: Draft) -> None:
    """Raises Damaged if the weights of an older concept were altered, Conflict if its record says others now.

    One that was removed since is no longer anybody's concern; one that was brought back is.
    """
    older = journal.older(draft.against)
    for record in older:
        read_blob(disk, root, record.blob)
    if len(older) >= draft.against.count and Against.of(older, draft.against.sequence) != draft.against:
        raise Conflict(
            f"an older concept is another than when {draft.name!r} was begun",
            f"learn {draft.name!r} again, now against it as it is",
        )
