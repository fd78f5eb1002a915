"""What a user may set for drawing over given pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le

from .declared import Asked, Group, Held, Share, spelled
from .draw import DrawOptions, PromptOptions, Size

_LINES = {
    "count": "Pictures of each given one.",
    "seed": "Seed of the first picture of each given one; the next ones count up.",
    "steps": "Denoising steps at strength 1; of them, the share that strength says is taken.",
    "batch": "Pictures drawn at once.",
}
Reading = Annotated[Asked, Held(PromptOptions, without=("seeds",))]
Drawn = Annotated[Asked, Held(DrawOptions, without=("size",), lines=_LINES)]


@dataclass(frozen=True, kw_only=True)
class StylizeOptions:
    """Settings of a style transfer."""

    strength: Annotated[Share, Group("Style transfer")] = 0.7
    """How much is drawn anew, from 0 (the picture as it is) to 1 (nothing of it is kept)."""
    invert: bool = True
    """Start from noise found in the picture by denoising backwards, which keeps far more of it for half more time."""
    size: Size | None = None
    """Width and height in pixels; else as many pixels as the base is used to, in the picture's shape."""
    read: Reading = field(default_factory=dict)
    """How its prompts are read, as asked."""
    draw: Drawn = field(default_factory=dict)
    """How it is drawn, as asked."""


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """Settings of an edit."""

    strength: Annotated[Share, Group("Editing")] = 1.0
    """How much of the part is drawn anew, from 0 (as it is) to 1 (nothing of it is kept)."""
    feather: Annotated[float, Ge(0), Le(0.5)] = 0.1
    """Width of the part's soft edge, which lies inside it, as a share of its shorter side: 0 to 0.5."""
    crop: bool = True
    """Draw the part and what is around it enlarged to the base's own size, not the whole picture."""
    size: Size | None = None
    """Width and height in pixels that is drawn at; else what the base is used to. The result has the picture's own."""
    read: Reading = field(default_factory=dict)
    """How its prompts are read, as asked."""
    draw: Drawn = field(default_factory=dict)
    """How it is drawn, as asked."""


def each(options: StylizeOptions | EditOptions) -> int:
    """How many pictures are drawn of each given one."""
    count: int = spelled(DrawOptions, options.draw)["count"]
    return count
