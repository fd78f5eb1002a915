"""Style transfer: given pictures drawn anew under a style's prompt, from as much noise as their structure may lose."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PIL import Image

from cidm_registry import Registry

from ..data import place
from ..files.given import Given
from ..models.base import Base
from .over import Picture, Stroke, Work, facts, make_brush
from .over_jobs import StyleTask
from .patches import fitting_size


def prepare(
    registry: Registry, base: Base, task: StyleTask, on_note: Callable[[str], None] = lambda note: None
) -> Work:
    """All that ``paint`` needs: ``count`` pictures of each given one, in order.

    Raises:
        CidmError: USAGE for a size or a prompt that this base cannot draw.
    """
    brush = make_brush(registry, base, task.prompt, task.options, on_note)
    seeds = range(brush.options.seed, brush.options.seed + brush.options.count)

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
