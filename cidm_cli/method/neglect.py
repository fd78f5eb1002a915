"""The figures of concept neglect (method.md (c)): is each region's concept the one found in its box?

A crop is the part of a drawn picture inside a region's box, enlarged to what a judge looks at. All embeddings are of
unit length.

| symbol | here | shape |
|---|---|---|
| N | crops: the same box in several pictures | |
| M_i | references: pictures that concept i was taught with | |
| d | width of the judge's embedding | |
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean

import torch

from .metrics import image_alignment, retention


def likeness(crops: torch.Tensor, references: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean cosine of each crop [N, d] to the references [M_i, d] of each concept i; [N, concepts]."""
    return torch.stack([image_alignment(crops, one) for one in references], dim=1)


def present(similar: torch.Tensor, own: int, level: float, excused: Collection[int] = ()) -> torch.Tensor:
    """Presence — whether the concept ``own`` is the one found in each crop; bool [N].

    It must be likelier than every other concept, and likelier than where nothing was learned.

    Args:
        similar: ``likeness`` of the crops to all concepts there are [N, concepts].
        level: mean likeness to ``own`` of the crops in which the base drew the bare class noun.
        excused: concepts that belong into the crop as well, and are no mistake there.
    """
    others = [index for index in range(similar.shape[1]) if index != own and index not in excused]
    best = similar[:, others].amax(1) if others else torch.full((len(similar),), -torch.inf)
    return (similar[:, own] > best) & (similar[:, own] > level)


def taken(similar: torch.Tensor, own: int, others: Collection[int]) -> torch.Tensor:
    """Leakage into boxes — whether a concept of another box is likelier in this crop than its own; bool [N].

    Args:
        similar: ``likeness`` of the crops to all concepts [N, concepts].
        others: the concepts of the layout's other boxes.
    """
    if not others:
        return torch.zeros(len(similar), dtype=torch.bool)
    return similar[:, list(others)].amax(1) > similar[:, own]


def background_gain(
    crops: torch.Tensor, plain: torch.Tensor, references: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Leakage into the background — IA that a picture's background gains by the layout's concepts; [N].

    Mean over the concepts of the likeness of ``crops`` [N, d] less that of ``plain`` [N, d]: the same part of the
    same picture with bare class nouns in the concepts' places. 0 where no concept shows outside its box.
    """
    return (likeness(crops, references) - likeness(plain, references)).mean(1)


def identity_ratio(identity: Sequence[float], alone: Sequence[float]) -> float:
    """Identity in the boxes over what the same concepts reach alone there, as a ratio of means over the boxes."""
    return sum(identity) / sum(alone)


def kept(identity: Sequence[float], base: Sequence[float], alone: Sequence[float]) -> float | None:
    """The same with the base's level taken off: retention of the means over the boxes.

    Raw cosines all lie close together; this is the stricter figure. None where the concepts gain too little alone.
    """
    return retention(fmean(identity), fmean(base), fmean(alone))
