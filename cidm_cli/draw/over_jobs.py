"""What is to be drawn over given pictures, refused before any model is loaded where it cannot be. No torch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..files.given import Given
from ..options.declared import declared, settled
from ..options.draw import APART, PromptOptions, resolve_draw
from ..options.over import EditOptions, StylizeOptions
from ..options.prompts import parse_prompt
from .choices import chosen
from .jobs import Job, check, find
from .patches import Box, box_mask, parse_box, pixel_box

STYLE_PROMPT = "a {}"
"""The start of the captions that styles are learned with, "a painting of a house"; what is shown, nobody knows."""
OBJECT_PROMPT = "a photo of a {}"

OVER: dict[str, tuple[type, str]] = {
    "stylize": (StylizeOptions, "--style"),
    "edit": (EditOptions, "--concept"),
}
"""Commands that draw over given pictures: their options, and the flag that names the concept."""


@dataclass(frozen=True)
class StyleTask:
    """Pictures to give a style."""

    pictures: tuple[Given, ...]
    record: Record
    """The style."""
    prompt: str
    """Names it, whatever it leaves open."""
    options: StylizeOptions


@dataclass(frozen=True)
class Part:
    """Which part of a picture is drawn anew."""

    given: Given
    mask: Image.Image
    """L, of the picture's size: 255 where it is."""
    box: Box
    """Around it, in pixels."""


@dataclass(frozen=True)
class EditTask:
    """Pictures to edit."""

    parts: tuple[Part, ...]
    mask: Given | None
    """The file it came from, if not from a box."""
    record: Record
    """The concept."""
    prompt: str
    """Names it, whatever it leaves open."""
    options: EditOptions


def plan_style(
    registry: Registry, pictures: Sequence[Given], style: str, prompt: str | None, options: StylizeOptions
) -> StyleTask:
    """A style transfer that can be done.

    Raises:
        CidmError: NOT_FOUND for an unknown style, USAGE for options or a prompt that cannot be used.
    """
    chosen, record = _prompt(registry, style, prompt, STYLE_PROMPT, options)
    return StyleTask(tuple(pictures), record, chosen, options)


def plan_edit(
    registry: Registry,
    pictures: Sequence[Given],
    concept: str,
    prompt: str | None,
    options: EditOptions,
    *,
    box: str | None = None,
    mask: Given | None = None,
) -> EditTask:
    """An edit that can be done. One of ``box`` and ``mask`` must be there.

    Raises:
        CidmError: NOT_FOUND for an unknown concept; USAGE for a box, options or a prompt that cannot be used;
            INVALID for a mask of another size than a picture.
    """
    chosen, record = _prompt(registry, concept, prompt, OBJECT_PROMPT, options)
    if mask is not None:
        parts = [_masked(given, mask) for given in pictures]
    else:
        assert box is not None
        edges = parse_box(box)
        boxes = [pixel_box(edges, given.image.size, str(given.path)) for given in pictures]
        parts = [
            Part(given, box_mask(inside, given.image.size), inside)
            for given, inside in zip(pictures, boxes, strict=True)
        ]
    return EditTask(tuple(parts), mask, record, chosen, options)


def _prompt(
    registry: Registry, name: str, prompt: str | None, default: str, asked: StylizeOptions | EditOptions
) -> tuple[str, Record]:
    """The prompt to draw with, which names the concept, and the concept.

    Args:
        default: taken where there is no prompt; {} becomes the concept's name.

    Raises:
        CidmError: NOT_FOUND for concepts that are not there, USAGE for a prompt without the concept in it.
    """
    options = resolve_draw(asked.draw, registry.base.kind, 64)
    record = find(registry, name)
    said = default.format(f"<{record.name}>") if prompt is None else prompt
    if options.method in APART:
        raise CidmError(
            f"--method {options.method}: keeps concepts apart in images that are drawn from noise alone",
            hint="leave --method out",
            code=ExitCode.USAGE,
        )
    jobs = [*chosen(Job(said, options), settled(PromptOptions, asked.read))]
    check(registry, jobs)
    for job in jobs:
        if record.key not in map(canonical_key, parse_prompt(job.prompt).names):
            raise CidmError(
                f"prompt {job.prompt!r}: does not name the concept",
                hint=f'write <{record.name}> in it, for instance "{default.format(f"<{record.name}>")}"',
                code=ExitCode.USAGE,
            )
    return said, record


def _masked(given: Given, mask: Given) -> Part:
    if mask.image.size != given.image.size:
        raise CidmError(
            f"{mask.path} is {mask.image.width} x {mask.image.height} pixels but {given.path} is "
            f"{given.image.width} x {given.image.height}",
            hint="save the mask in the image's size",
            code=ExitCode.INVALID,
        )
    box = mask.image.getbbox()
    assert box is not None, "a mask that is all black was refused"
    return Part(given, mask.image, box)


def refuse_swapped(command: str, images: Sequence[Path], name: str, registry: Registry) -> None:
    """Says what was meant where a picture stands in the concept's place, or a concept in a picture's.

    Raises:
        CidmError: USAGE.
    """
    flag = OVER[command][1]
    concepts = {record.name.casefold(): record.name for record in registry.records()}
    named = [concepts[str(image).casefold()] for image in images if str(image).casefold() in concepts]
    strays = [] if all(map(os.path.exists, images)) else named
    is_picture = name.casefold() not in concepts and os.path.isfile(name)
    if not (strays or is_picture):
        return
    what = f"{flag} {name} is an image" if is_picture else f"{strays[0]} is a concept, not an image"
    picture = name if is_picture else "PICTURE"
    line = ["cidm", command, picture, flag, strays[0] if strays else "NAME"]
    raise CidmError(what, f"the image comes first: {shlex.join(line)}", ExitCode.USAGE)


def command_for(facts: dict[str, Any]) -> str | None:
    """The command line that draws such a picture over the given one; None for a picture drawn from nothing."""
    if facts.get("command") not in [*OVER]:
        return None
    try:
        cls, flag = OVER[facts["command"]]
        picture, told = facts["picture"]["name"], facts["options"]
        line = ["cidm", facts["command"], picture, flag, facts["concept"], "--prompt", facts["prompt"]]
        if mask := facts.get("mask"):
            line += ["--mask", mask["name"]]
        elif box := facts.get("box"):
            line += ["--box", ",".join(map(str, box))]
        for name, option in declared(cls).items():
            value = {**told, "count": 1, "seed": facts["seed"]}.get(name, option.default)
            if value != option.default:
                line += _said(option.flag, value)
        return shlex.join(str(word) for word in line)
    except (KeyError, TypeError, AttributeError):
        return None


def _said(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, "x".join(map(str, value)) if isinstance(value, list) else str(value)]
