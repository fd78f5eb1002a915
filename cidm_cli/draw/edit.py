"""Editing: a part of given pictures drawn anew under a concept's prompt; what is outside it keeps every bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from PIL import Image

from cidm_registry import Registry

from ..models.base import Base
from .over import Picture, Stroke, Work, facts, make_brush
from .over_jobs import EditTask, Part
from .patches import Box, feathered, fitting_size, pasted, touched, window_around

CONTEXT = 1.5
"""Side of the square that is drawn, over the longer side of the part: what is around it is seen, and fits in."""


def prepare(
    registry: Registry, base: Base, task: EditTask, on_note: Callable[[str], None] = lambda note: None
) -> Work:
    """All that ``paint`` needs: ``count`` pictures of each given one, in order.

    Raises:
        CidmError: USAGE for a size or a prompt that this base cannot draw.
    """
    brush = make_brush(registry, base, task.prompt, task.options, on_note)
    seeds = range(brush.options.seed, brush.options.seed + brush.options.count)
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
