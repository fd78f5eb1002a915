"""What a user may set for drawing, and what each base takes where nothing is set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .prompts import parse_prompt
from .values import filled, usage


@dataclass(frozen=True)
class DrawOptions:
    """Settings of drawing; None takes the base's own default."""

    count: int = field(default=1, metadata={"short": "-n"})
    """Pictures of each prompt."""
    seed: int = 0
    """Seed of the first picture; the next ones count up."""
    steps: int | None = None
    """Denoising steps."""
    guidance: float | None = None
    """Classifier-free guidance scale."""
    size: tuple[int, int] | None = None
    """Width and height in pixels."""
    sampler: str = "dpm++"
    """Sampler: dpm++, ddim, euler, unipc or heun."""
    negative: str = ""
    """What the picture should not show."""
    method: str = "auto"
    """How concepts are put together: auto, named, sharp, official, paper, mean, sum, latest, lora-c or lora-switch."""
    power: float = 0.0
    """Exponent of the similarities where the method is sharp or official; 0 takes 16 or 4."""
    batch: int = 4
    """Pictures drawn at once, also of several prompts where they have the same weights and settings."""


DRAW_METHODS = (
    "auto", "named", "sharp", "official", "paper", "mean", "sum", "latest", "lora-c", "lora-switch",
)  # fmt: skip
"""What ``--method`` of drawing may be; docs/aggregation.md says what each does."""
ONE_AT_A_TIME = ("lora-c", "lora-switch")
"""Methods of drawing that never merge: one concept's LoRA at a time is in the weights."""

# Defaults that depend on the base's family: the paper's for SD-1.5 and SDXL, which it trains and draws alike
# (arXiv 2410.17594, section 4.1), measured ones for the small base.
DRAW_DEFAULTS: dict[str, dict[str, Any]] = {
    "mini": {"steps": 20, "guidance": 4.0},
    "sd15": {"steps": 50, "guidance": 7.5},
    "sdxl": {"steps": 50, "guidance": 7.5},
}
POWERS = {"sharp": 16.0, "official": 4.0}
"""Exponents where none is given: one that leaves unnamed concepts next to nothing, and the published code's."""


def resolve_draw(options: DrawOptions, kind: str, pixels: int) -> DrawOptions:
    """The options with every None filled in for the base's family; ``pixels`` is the base's own picture side.

    Raises:
        CidmError: USAGE, naming the option, for a value that cannot be drawn with.
    """
    whole = filled(options, {**DRAW_DEFAULTS[kind], "size": (pixels, pixels)})
    for name in ("count", "steps", "batch"):
        if getattr(whole, name) < 1:
            raise usage(name, getattr(whole, name), "must be at least 1")
    if whole.steps > 1000:
        raise usage("steps", whole.steps, "must be at most 1000, the steps a base was trained on")
    parse_prompt(whole.negative, "the negative prompt")
    if not 0 <= whole.guidance <= 100:
        raise usage("guidance", whole.guidance, "must be from 0 to 100")
    if not 0 <= whole.seed <= 2**63 - whole.count:
        raise usage("seed", whole.seed, "must be from 0 to 2^63 - 1, the last picture's, too")
    if whole.method not in DRAW_METHODS:
        raise usage("method", whole.method, f"must be one of {', '.join(DRAW_METHODS)}")
    if whole.power and whole.method not in POWERS:
        raise usage("power", whole.power, f"has no meaning with --method {whole.method}")
    if not 0 <= whole.power < float("inf"):
        raise usage("power", whole.power, "must not be negative")
    if whole.sampler not in ("dpm++", "ddim", "euler", "unipc", "heun"):
        raise usage("sampler", whole.sampler, "must be dpm++, ddim, euler, unipc or heun")
    return whole
