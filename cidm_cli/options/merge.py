"""What a user may set for merging concepts into one file."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CidmError, ExitCode

MERGE_METHODS = ("fuse", "ewa", "mean", "sum", "svd", "ties", "dare")
"""What ``--method`` of merging may be; docs/merging.md says what each does."""
SUMS = ("ewa", "mean", "sum")
"""Those whose file is a weighted sum of the concepts' weights, exactly where ``--rank`` does not shorten it."""
AGGREGATIONS = ("named", "sharp", "official", "paper")


@dataclass(frozen=True)
class MergeOptions:
    """Settings of a merge; None takes what the method needs."""

    method: str = "fuse"
    """How concepts are made one: fuse, ewa, mean, sum, svd, ties or dare."""
    rank: int | None = None
    """Rank of the file, at most; its best approximation is taken."""
    aggregation: str = "sharp"
    """Weights that ewa gives the concepts for its prompt: named, sharp, official or paper."""
    power: float = 0.0
    """Exponent of the similarities where the aggregation is sharp or official; 0 takes 16 or 4."""
    density: float = 0.5
    """Share of each weight's entries that ties and dare keep."""
    preserve: float = 0.1
    """How much fuse leaves alone what prompts without a concept do, against one concept's own prompts."""
    templates: int = 12
    """Prompts of each concept whose text features fuse looks at, 1 to 12."""
    drawings: int = 4
    """Pictures of each concept whose image features fuse looks at."""
    steps: int = 10
    """Denoising steps of those pictures, and of those that --analyze draws."""
    samples: int = 2
    """Pictures of each concept that --analyze draws."""
    seed: int = 0
    """Seed of everything drawn at random."""


def check_merge(options: MergeOptions) -> None:
    """Refuses settings that cannot be merged with.

    Raises:
        CidmError: USAGE, naming the option.
    """
    if options.method not in MERGE_METHODS:
        raise _usage("method", options.method, f"must be one of {', '.join(MERGE_METHODS)}")
    if options.aggregation not in AGGREGATIONS:
        raise _usage("aggregation", options.aggregation, f"must be one of {', '.join(AGGREGATIONS)}")
    for name in ("rank", "drawings", "steps", "samples"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise _usage(name, getattr(options, name), "must be at least 1")
    if not 1 <= options.templates <= 12:
        raise _usage("templates", options.templates, "must be from 1 to 12")
    if not 0 < options.density < 1:
        raise _usage("density", options.density, "must be above 0 and below 1")
    if not 0 <= options.preserve < float("inf"):
        raise _usage("preserve", options.preserve, "must not be negative")
    if not 0 <= options.power < float("inf"):
        raise _usage("power", options.power, "must not be negative")
    if not 0 <= options.seed < 2**32:
        raise _usage("seed", options.seed, "must be from 0 to 4294967295")


def _usage(name: str, value: object, rule: str) -> CidmError:
    return CidmError(f"--{name} {value}: {rule}", code=ExitCode.USAGE)
