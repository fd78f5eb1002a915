"""What a user may set for drawing over given images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le

from .declared import Asked, Group, Held, Share, spelled
from .draw import DrawOptions, PromptOptions, Size

_LINES = {
    "count": "Images of each given one.",
    "seed": "Seed of the first image of each given one; the next ones count up.",
    "steps": "Sampling steps at strength 1; a lower strength takes that share of them.",
    "batch": "Images drawn at once.",
}
Reading = Annotated[Asked, Held(PromptOptions, without=("seeds",))]
Drawn = Annotated[Asked, Held(DrawOptions, without=("size",), lines=_LINES)]


@dataclass(frozen=True, kw_only=True)
class StylizeOptions:
    """Settings of a style transfer."""

    strength: Annotated[Share, Group("Style transfer")] = 0.7
    """How much changes, from 0 (the image as it is) to 1 (a new image)."""
    invert: bool = True
    """Start from noise that DDIM inversion finds: keeps far more of the image, and takes half more time."""
    size: Size | None = None
    """Width and height in pixels; else the base's own number of pixels, in the image's aspect ratio."""
    read: Reading = field(default_factory=dict)
    """How its prompts are read, as asked."""
    draw: Drawn = field(default_factory=dict)
    """How it is drawn, as asked."""


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """Settings of an edit."""

    strength: Annotated[Share, Group("Editing")] = 1.0
    """How much of the part changes, from 0 (as it is) to 1 (a new drawing)."""
    feather: Annotated[float, Ge(0), Le(0.5)] = 0.1
    """Width of the part's soft edge, which lies inside it, as a share of its shorter side: 0 to 0.5."""
    crop: bool = True
    """Draw a crop around the part, enlarged to the base's own size, not the whole image."""
    size: Size | None = None
    """Width and height in pixels to draw at; else the base's own. The result has the image's own size."""
    read: Reading = field(default_factory=dict)
    """How its prompts are read, as asked."""
    draw: Drawn = field(default_factory=dict)
    """How it is drawn, as asked."""


def each(options: StylizeOptions | EditOptions) -> int:
    """How many images are drawn of each given one."""
    count: int = spelled(DrawOptions, options.draw)["count"]
    return count
