"""Style transfer: given pictures drawn anew under a style's prompt, from as much noise as their structure may lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image

from cidm_registry import Record, Registry

from ..data import Given, place
from ..data.patches import fitting_size
from ..edit_options import StylizeOptions, drawing
from ..models.base import Base
from ..options import resolve_draw
from .redrawing import Picture, Stroke, Work, check_prompt, facts, make_brush

PROMPT = "a {}"
"""The start of the captions that styles are learned with, "a painting of a house"; what is shown, nobody knows."""


@dataclass(frozen=True)
class Task:
    """Pictures to give a style."""

    pictures: tuple[Given, ...]
    record: Record
    """The style."""
    prompt: str
    """Names it."""
    options: StylizeOptions


def plan(
    registry: Registry, pictures: Sequence[Given], style: str, prompt: str | None, options: StylizeOptions
) -> Task:
    """Refuses what cannot be drawn before any model is loaded.

    Raises:
        CidmError: NOT_FOUND for an unknown style, USAGE for options or a prompt that cannot be used.
    """
    chosen, record = check_prompt(registry, style, prompt, PROMPT)
    resolve_draw(drawing(options), registry.base.kind, 64)
    return Task(tuple(pictures), record, chosen, options)


def prepare(
    registry: Registry, base: Base, task: Task, on_note: Callable[[str], None] = lambda note: None
) -> Work:
    """All that ``paint`` needs: ``count`` pictures of each given one, in order.

    Raises:
        CidmError: USAGE for a size or a prompt that this base cannot draw.
    """
    brush = make_brush(registry, base, task.prompt, task.options, on_note)
    seeds = range(task.options.seed, task.options.seed + task.options.count)

    def finished(given: Given, seed: int, image: Image.Image) -> Picture:
        told = facts(
            registry, base, brush, "stylize", task.record.name, given, seed, task.options, image.size
        )
        return Picture(image, given, told)

    strokes = []
    for given in task.pictures:
        size = task.options.size or fitting_size(given.image.size, base.pixels, base.multiple)
        image = place(given.image, size, crop=1.0, shift=(0.0, 0.0), mirror=False)
        for seed in seeds:
            strokes.append(Stroke(image, seed, partial(finished, given, seed)))
    return Work(brush, tuple(strokes), task.options.strength, task.options.invert)
