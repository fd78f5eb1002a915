"""What a user may set for an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ..errors import CidmError, ExitCode
from .declared import Asked, Count, Group, Held, Short, settled
from .draw import DrawOptions

_LINES = {
    "seed": "Seed of each prompt's first image; the next ones count up.",
    "batch": "Images drawn at once.",
}


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Settings of an evaluation."""

    samples: Annotated[Count, Group("Evaluation"), Short("-n")] = 4
    """Images of each prompt."""
    limit_prompts: Count | None = None
    """Only this many prompts of each set, from its start."""
    every_task: bool = False
    """Judge every concept after every task, not only after its own and at the end."""
    clip: str | None = None
    """CLIP that judges: a folder or hub name, NAME@REVISION for one of its revisions."""
    dino: str | None = None
    """Second judge, self-supervised: a folder or hub name, or none for no second judge."""
    save: bool = True
    """Keep the scores in the concepts' records."""
    draw: Annotated[Asked, Held(DrawOptions, without=("count", "size"), lines=_LINES)] = field(
        default_factory=dict
    )
    """How the images are drawn, as asked: what is open may be a layout's to say."""

    @property
    def drawn(self) -> Asked:
        """How the images are drawn, as asked, and how many."""
        return {"count": self.samples, **self.draw}


def resolve_eval(asked: Asked) -> EvalOptions:
    """What was asked for, with the defaults of what is not the drawing's.

    Raises:
        CidmError: USAGE, naming the option, for a value that cannot be judged with.
    """
    whole = settled(EvalOptions, asked)
    if whole.clip is not None and whole.clip.lower() == "none":
        raise CidmError(
            "--clip none: text alignment needs a CLIP", "give a folder or a hub name", ExitCode.USAGE
        )
    return whole
