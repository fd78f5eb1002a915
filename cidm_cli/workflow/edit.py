"""Editing: a part of given pictures drawn anew under a concept's prompt; what is outside it keeps every bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image

from cidm_registry import Record, Registry

from ..data import Given
from ..data.patches import (
    Box,
    box_mask,
    feathered,
    fitting_size,
    parse_box,
    pasted,
    pixel_box,
    touched,
    window_around,
)
from ..edit_options import EditOptions, drawing
from ..errors import CidmError, ExitCode
from ..models.base import Base
from ..options import resolve_draw
from .redrawing import Picture, Stroke, Work, check_prompt, facts, make_brush

PROMPT = "a photo of a {}"
CONTEXT = 1.5
"""Side of the square that is drawn, over the longer side of the part: what is around it is seen, and fits in."""


@dataclass(frozen=True)
class Part:
    """Which part of a picture is drawn anew."""

    given: Given
    mask: Image.Image
    """L, of the picture's size: 255 where it is."""
    box: Box
    """Around it, in pixels."""


@dataclass(frozen=True)
class Task:
    """Pictures to edit."""

    parts: tuple[Part, ...]
    mask: Given | None
    """The file it came from, if not from a box."""
    record: Record
    """The concept."""
    prompt: str
    """Names it."""
    options: EditOptions


def plan(
    registry: Registry,
    pictures: Sequence[Given],
    concept: str,
    prompt: str | None,
    options: EditOptions,
    *,
    box: str | None = None,
    mask: Given | None = None,
) -> Task:
    """Refuses what cannot be drawn before any model is loaded. One of ``box`` and ``mask`` must be there.

    Raises:
        CidmError: NOT_FOUND for an unknown concept; USAGE for a box, options or a prompt that cannot be used;
            INVALID for a mask of another size than a picture.
    """
    chosen, record = check_prompt(registry, concept, prompt, PROMPT)
    resolve_draw(drawing(options), registry.base.kind, 64)
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
    return Task(tuple(parts), mask, record, chosen, options)


def prepare(
    registry: Registry, base: Base, task: Task, on_note: Callable[[str], None] = lambda note: None
) -> Work:
    """All that ``paint`` needs: ``count`` pictures of each given one, in order.

    Raises:
        CidmError: USAGE for a size or a prompt that this base cannot draw.
    """
    brush = make_brush(registry, base, task.prompt, task.options, on_note)
    seeds = range(task.options.seed, task.options.seed + task.options.count)
    mask = None if task.mask is None else {"name": task.mask.path.name, "sha256": task.mask.sha256}

    def finished(part: Part, window: Box, seed: int, drawn: Image.Image) -> Picture:
        told = facts(
            registry, base, brush, "edit", task.record.name, part.given, seed, task.options, drawn.size
        )
        told |= {"box": list(part.box), "window": list(window), "mask": mask}
        return Picture(_put_back(part, window, drawn, task.options.feather), part.given, told)

    strokes = []
    for part in task.parts:
        whole = (0, 0, *part.given.image.size)
        window = window_around(part.box, part.given.image.size, CONTEXT) if task.options.crop else whole
        image, cells = _enlarged(base, part, window, task.options.size)
        for seed in seeds:
            strokes.append(Stroke(image, seed, partial(finished, part, window, seed), cells))
    return Work(brush, tuple(strokes), task.options.strength)


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


def _enlarged(
    base: Base, part: Part, window: Box, size: tuple[int, int] | None
) -> tuple[Image.Image, torch.Tensor]:
    """What is seen of a picture, at the size that is drawn, and its latent cells that are drawn anew."""
    extent = (window[2] - window[0], window[3] - window[1])
    size = size or fitting_size(extent, base.pixels, base.multiple)
    image = part.given.image.resize(size, Image.Resampling.LANCZOS, box=window, reducing_gap=3.0)
    cells = touched(part.mask.crop(window), (size[0] // base.factor, size[1] // base.factor))
    return image, torch.from_numpy(cells)[None]


def _put_back(part: Part, window: Box, drawn: Image.Image, feather: float) -> Image.Image:
    shorter = min(part.box[2] - part.box[0], part.box[3] - part.box[1])
    alpha = feathered(part.mask.crop(window), feather * shorter)
    patch = drawn.resize(alpha.size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return pasted(part.given.image, patch, alpha, window)
