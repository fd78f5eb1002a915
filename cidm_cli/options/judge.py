"""What a user may set for an evaluation. The line under each field is its help on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import CidmError, ExitCode
from .draw import DrawOptions


@dataclass(frozen=True)
class EvalOptions:
    """Settings of an evaluation; None takes the base's own default."""

    samples: int = field(default=4, metadata={"short": "-n"})
    """Pictures of each prompt."""
    limit_prompts: int | None = None
    """Only this many prompts of each set, from its start."""
    every_task: bool = False
    """Judge every concept after every task, not only after its own and at the end."""
    method: str = "auto"
    """How concepts are put together, as for generate."""
    power: float = 0.0
    """Exponent of the similarities, as for generate; 0 is the method's own."""
    steps: int | None = None
    """Denoising steps."""
    guidance: float | None = None
    """Classifier-free guidance scale."""
    sampler: str = "dpm++"
    """Sampler: dpm++, ddim, euler, unipc or heun."""
    negative: str = ""
    """What the pictures should not show."""
    seed: int = 0
    """Seed of each prompt's first picture; the next ones count up."""
    batch: int = 4
    """Pictures drawn at once."""
    clip: str | None = None
    """CLIP that judges: a folder or hub name, NAME@REVISION for one of its revisions."""
    dino: str | None = None
    """Second judge, self-supervised: a folder or hub name, or none for no second judge."""
    save: bool = True
    """Keep the scores in the concepts' records."""


def check(options: EvalOptions) -> None:
    """Refuses what cannot be evaluated; ``resolve_draw`` looks at the rest.

    Raises:
        CidmError: USAGE, naming the option.
    """
    for name in ("samples", "limit_prompts"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise CidmError(f"--{name.replace('_', '-')} {value}: must be at least 1", code=ExitCode.USAGE)
    if options.clip is not None and options.clip.lower() == "none":
        raise CidmError(
            "--clip none: text alignment needs a CLIP", "give a folder or a hub name", ExitCode.USAGE
        )


def drawing(options: EvalOptions) -> DrawOptions:
    """The part that says how the pictures are drawn."""
    return DrawOptions(
        count=options.samples, seed=options.seed, steps=options.steps, guidance=options.guidance,
        sampler=options.sampler, negative=options.negative, method=options.method, power=options.power,
        batch=options.batch,
    )  # fmt: skip
