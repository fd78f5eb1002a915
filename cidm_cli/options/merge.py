"""What a user may set for merging concepts into one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt

from .declared import Count, Group, Seed, Weight

MergeMethod = Literal["fuse", "rank-space", "ewa", "mean", "sum", "svd", "ties", "dare"]
MERGE_METHODS = get_args(MergeMethod)
"""What ``--method`` of merging may be; docs/merging.md says what each does."""
LOOKING = ("fuse", "rank-space")
"""Those that look at the features of the concepts' prompts."""
SUMS = ("ewa", "mean", "sum")
"""Those whose file is a weighted sum of the concepts' weights, exactly where ``--rank`` does not shorten it."""


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """Settings of a merge."""

    method: Annotated[MergeMethod, Group("Merging")] = "fuse"
    """How concepts are merged."""
    rank: Count | None = None
    """Rank of the file, at most; its best approximation is taken."""
    aggregation: Literal["named", "sharp", "official", "paper"] = "sharp"
    """Weights that ewa gives the concepts for its prompt."""
    power: Weight = 0.0
    """Exponent of the similarities where the aggregation is sharp or official; 0 takes 16 or 4."""
    density: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Share of each weight's entries that ties and dare keep."""
    preserve: Weight = 0.1
    """How much fuse and rank-space preserve prompts without a concept, compared with the concepts' own prompts."""
    templates: Annotated[int, Ge(1), Le(12)] = 12
    """Prompts of each concept whose text features fuse and rank-space look at, 1 to 12."""
    drawings: Count = 4
    """Images of each concept whose image features fuse and rank-space look at."""
    steps: Count = 10
    """Sampling steps of those images, and of those that --analyze draws."""
    samples: Count = 2
    """Images of each concept that --analyze draws."""
    seed: Seed = 0
    """Seed of everything drawn at random."""
