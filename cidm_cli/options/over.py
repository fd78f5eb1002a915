"""What a user may set for drawing over given pictures. The line under each field is its help on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..errors import CidmError, ExitCode
from .draw import DrawOptions


@dataclass(frozen=True)
class StylizeOptions:
    """Settings of a style transfer; None takes the base's own default."""

    strength: float = 0.7
    """How much is drawn anew, from 0 (the picture as it is) to 1 (nothing of it is kept)."""
    invert: bool = True
    """Start from noise found in the picture by denoising backwards, which keeps far more of it for half more time."""
    count: int = field(default=1, metadata={"short": "-n"})
    """Pictures of each given one."""
    seed: int = 0
    """Seed of the first picture of each given one; the next ones count up."""
    steps: int | None = None
    """Denoising steps at strength 1; of them, the share that strength says is taken."""
    guidance: float | None = None
    """Classifier-free guidance scale."""
    size: tuple[int, int] | None = None
    """Width and height in pixels; else as many pixels as the base is used to, in the picture's shape."""
    sampler: str = "dpm++"
    """Sampler: dpm++, ddim, euler, unipc or heun."""
    negative: str = ""
    """What the picture should not show."""
    method: str = "auto"
    """How concepts are put together, as for generate."""
    power: float = 0.0
    """Exponent of the similarities, as for generate; 0 is the method's own."""
    batch: int = 4
    """Pictures drawn at once."""


@dataclass(frozen=True)
class EditOptions:
    """Settings of an edit; None takes the base's own default."""

    strength: float = 1.0
    """How much of the part is drawn anew, from 0 (as it is) to 1 (nothing of it is kept)."""
    feather: float = 0.1
    """Width of the part's soft edge, which lies inside it, as a share of its shorter side: 0 to 0.5."""
    crop: bool = True
    """Draw the part and what is around it enlarged to the base's own size, not the whole picture."""
    count: int = field(default=1, metadata={"short": "-n"})
    """Pictures of each given one."""
    seed: int = 0
    """Seed of the first picture of each given one; the next ones count up."""
    steps: int | None = None
    """Denoising steps at strength 1; of them, the share that strength says is taken."""
    guidance: float | None = None
    """Classifier-free guidance scale."""
    size: tuple[int, int] | None = None
    """Width and height in pixels that is drawn at; else what the base is used to. The result has the picture's own."""
    sampler: str = "dpm++"
    """Sampler: dpm++, ddim, euler, unipc or heun."""
    negative: str = ""
    """What the part should not show."""
    method: str = "auto"
    """How concepts are put together, as for generate."""
    power: float = 0.0
    """Exponent of the similarities, as for generate; 0 is the method's own."""
    batch: int = 4
    """Pictures drawn at once."""


def check(options: StylizeOptions | EditOptions) -> None:
    """Refuses what cannot be drawn; ``resolve_draw`` looks at the rest.

    Raises:
        CidmError: USAGE, naming the option.
    """
    if not 0 <= options.strength <= 1:
        raise CidmError(f"--strength {options.strength:g}: must be from 0 to 1", code=ExitCode.USAGE)
    if isinstance(options, EditOptions) and not 0 <= options.feather <= 0.5:
        raise CidmError(f"--feather {options.feather:g}: must be from 0 to 0.5", code=ExitCode.USAGE)


def drawing(options: StylizeOptions | EditOptions) -> DrawOptions:
    """The part that says how pictures are drawn."""
    return DrawOptions(**{each.name: getattr(options, each.name) for each in fields(DrawOptions)})
