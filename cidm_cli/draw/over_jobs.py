"""What is to be drawn over given pictures, refused before any model is loaded where it cannot be. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..files.given import Given
from ..options.draw import resolve_draw
from ..options.over import EditOptions, StylizeOptions, drawing
from ..options.prompts import parse_prompt
from .jobs import Job, check, find
from .patches import Box, box_mask, parse_box, pixel_box

STYLE_PROMPT = "a {}"
"""The start of the captions that styles are learned with, "a painting of a house"; what is shown, nobody knows."""
OBJECT_PROMPT = "a photo of a {}"


@dataclass(frozen=True)
class StyleTask:
    """Pictures to give a style."""

    pictures: tuple[Given, ...]
    record: Record
    """The style."""
    prompt: str
    """Names it."""
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
    """Names it."""
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
    options = resolve_draw(drawing(asked), registry.base.kind, 64)
    record = find(registry, name)
    chosen = default.format(f"<{record.name}>") if prompt is None else prompt
    check(registry, [Job(chosen, options)])
    if record.key not in map(canonical_key, parse_prompt(chosen).names):
        raise CidmError(
            f"prompt {chosen!r}: does not name the concept",
            hint=f'write <{record.name}> in it, for instance "{default.format(f"<{record.name}>")}"',
            code=ExitCode.USAGE,
        )
    return chosen, record


def _masked(given: Given, mask: Given) -> Part:
    if mask.image.size != given.image.size:
        raise CidmError(
            f"{mask.path} is {mask.image.width} x {mask.image.height} pixels but {given.path} is "
            f"{given.image.width} x {given.image.height}",
            hint="save the mask in the picture's size",
            code=ExitCode.INVALID,
        )
    box = mask.image.getbbox()
    assert box is not None, "a mask that is all black was refused"
    return Part(given, mask.image, box)
