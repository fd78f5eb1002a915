"""What `cidm learn` is given: a name, pictures, what kind of thing they show."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CidmError, ExitCode
from ..options.learn import LearnOptions
from ..terminal.output import Output

if TYPE_CHECKING:
    from cidm_registry import Record

    from ..data import Dataset, Listing


def concept_name(name: str, images: Path) -> str:
    """The concept's name as the registry keeps it.

    Raises:
        CidmError: USAGE where the pictures are given first.
        InvalidName: for what is no name.
    """
    from cidm_registry import InvalidName, display_name

    if os.path.exists(name) and not os.path.exists(images):
        try:
            display_name(str(images))
        except InvalidName:
            pass
        else:
            raise CidmError(
                f"{images}: no such folder or picture, and {name} is one",
                f"the name comes first: cidm learn {images} {shlex.quote(name)}",
                ExitCode.USAGE,
            )
    return display_name(name)


def noun_to_learn(
    output: Output, name: str, said: str | None, listing: Listing, existing: Record | None, *, style: bool
) -> str:
    """What kind of thing the concept is: as said; else as its last version was; else the thing that all captions name,
    that a folder of kohya's kind names, that its own name holds. What was not said is told.

    Args:
        said: with --class.
        existing: the version that is updated.

    Raises:
        CidmError: USAGE for what is no noun, or where none is found.
    """
    from ..data.captions import find_noun
    from ..data.nouns import in_captions, in_folder, in_name, stated

    if existing and existing.style != style:
        kinds = {True: "a style", False: "an object"}
        flag = "leave --style out" if style else "give --style"
        output.warn(f"<{name}> was {kinds[existing.style]} and becomes {kinds[style]}; {flag} to keep it")
    if said is not None:
        noun = stated(said, name)
        if noun != " ".join(said.split()):
            output.note(f"--class {said!r}: taken as {noun!r}")
        if existing and existing.class_noun != noun:
            output.warn(f"the class noun of <{name}> was {existing.class_noun!r} and becomes {noun!r}")
        return noun
    if existing:
        return existing.class_noun
    captions = listing.said()
    own = in_name(name)
    if own and any(find_noun(caption, own) for caption in captions):
        return own
    for noun, source in (
        (in_captions(captions, style=style), "the captions"),
        (in_folder(listing.folder.resolve().name), "the folder's name"),
        (own, "its name"),
    ):
        if noun:
            output.note(f"the class noun of <{name}> is {noun!r}, by {source}; --class says otherwise")
            return noun
    raise CidmError(
        f"concept {name}: its name holds no class noun that is known, and the captions agree on none",
        "say what kind of thing it is with --class, for instance --class dog",
        ExitCode.USAGE,
    )


def unseen(dataset: Dataset, options: LearnOptions) -> list[str]:
    """A warning where the training ends before it has come to every picture."""
    assert options.steps is not None
    assert options.batch is not None
    seen = options.steps * options.batch * options.accumulate
    count = len(dataset.examples)
    if seen >= count:
        return []
    return [
        f"{count} pictures, of which {options.steps} steps see {seen}: raise --steps, or give the best 3 to 7"
    ]
