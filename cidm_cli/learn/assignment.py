"""What is to be learned: a name, images, what kind of thing they show. No torch: refusing takes no time."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bases import family
from ..errors import CidmError, ExitCode
from ..machine.session import Session
from ..options.declared import check_said
from ..options.learn import LearnOptions, resolve_learn
from . import admission

if TYPE_CHECKING:
    from cidm_registry import Record

    from ..data import Dataset, Listing


@dataclass(frozen=True)
class Task:
    """What is to be learned, complete and checked, before any model is loaded."""

    name: str
    noun: str
    style: bool
    dataset: Dataset
    options: LearnOptions
    """Without None."""
    update: bool
    resume: bool
    restart: bool


def assign(
    session: Session,
    name: str,
    images: Path,
    options: Mapping[str, Any],
    *,
    noun: str | None,
    style: bool,
    update: bool,
    resume: bool,
    restart: bool,
) -> Task:
    """What is to be learned from a folder of images, or one image.

    Args:
        options: as given; what they leave open is set, or the base's own.
        noun: what kind of thing it is, else what the captions, the folder or the name say.

    Raises:
        CidmError: USAGE, INVALID or NOT_FOUND for what cannot be learned; what ``admission.check`` raises.
    """
    if resume and restart:
        raise CidmError("--resume and --restart exclude each other", "give one of them", ExitCode.USAGE)
    from ..data import list_pictures, load_examples, remarks

    note, warn = session.listener.note, session.listener.warn
    name = concept_name(name, images)
    said = session.machine("learn").completed(session.said(LearnOptions, "learn", options))
    resolved = resolve_learn(said, session.kind)
    check_said(options, resolved)
    existing = admission.check(session.registry, name, resolved, update=update, crew=session.crew)
    listing = list_pictures(images)
    noun = noun_to_learn(name, noun, listing, existing, style=style, on_note=note, on_warning=warn)
    note(f"reading {len(listing.pictures)} images of {images} …")
    dataset = load_examples(images, class_noun=noun, caption_template=resolved.caption)
    captions = [(example.path.name, example.caption) for example in dataset.examples]
    for warning in (*dataset.warnings, *remarks(captions, name, noun), *unseen(dataset, resolved)):
        warn(warning)
    if beyond := family(session.kind).doubts([example.image.size for example in dataset.examples]):
        warn(beyond)
    return Task(name, noun, style, dataset, resolved, update=update, resume=resume, restart=restart)


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
                f"{images}: no such folder or image, and {name} is one",
                f"the name comes first: cidm learn {images} {shlex.quote(name)}",
                ExitCode.USAGE,
            )
    return display_name(name)


def noun_to_learn(
    name: str,
    said: str | None,
    listing: Listing,
    existing: Record | None,
    *,
    style: bool,
    on_note: Callable[[str], None],
    on_warning: Callable[[str], None],
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
        on_warning(f"<{name}> was {kinds[existing.style]} and becomes {kinds[style]}; {flag} to keep it")
    if said is not None:
        noun = stated(said, name)
        if noun != " ".join(said.split()):
            on_note(f"--class {said!r}: taken as {noun!r}")
        if existing and existing.class_noun != noun:
            on_warning(f"the class noun of <{name}> was {existing.class_noun!r} and becomes {noun!r}")
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
            on_note(f"the class noun of <{name}> is {noun!r}, by {source}; --class says otherwise")
            return noun
    raise CidmError(
        f"concept {name}: its name contains no known class noun, and the captions do not agree on one",
        "say what kind of thing it is with --class, for instance --class dog",
        ExitCode.USAGE,
    )


def unseen(dataset: Dataset, options: LearnOptions) -> list[str]:
    """A warning where the training ends before it has come to every picture."""
    seen = options.steps * options.batch * options.accumulate
    count = len(dataset.examples)
    if seen >= count:
        return []
    return [
        f"{count} images, of which {options.steps} steps see {seen}: raise --steps, or give the best 3 to 7"
    ]
