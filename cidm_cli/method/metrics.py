"""The figures of an evaluation (method.md, rows 19 and 20), from embeddings of unit length.

| symbol | here | shape |
|---|---|---|
| N | samples: pictures drawn of one concept | |
| M | references: pictures the concept was taught with | |
| d | width of the judge's embedding | |
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

LEAST_GAIN = 0.01
"""Cosine by which a concept's own LoRA must beat the base before a share of that gain means anything."""


def image_alignment(samples: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """IA — mean cosine of each sample [N, d] to all references [M, d]; [N]. A concept's IA is its mean."""
    return (samples @ references.T).mean(1)


def text_alignment(samples: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """TA — cosine of each sample [N, d] to the text it was drawn from [N, d]; [N]."""
    return (samples * texts).sum(1)


def clip_score(cosines: torch.Tensor) -> torch.Tensor:
    """CLIPScore — 2.5 · max(cosine, 0) (Hessel et al. 2021), the form of TA in the published code; like ``cosines``."""
    return 2.5 * cosines.clamp_min(0)


def nearest(samples: torch.Tensor, references: Sequence[torch.Tensor]) -> torch.Tensor:
    """Which concept's references each sample [N, d] is nearest to by mean cosine: indices [N].

    ``references`` holds [M_i, d] for each concept; the first of equals counts.
    """
    similar = torch.stack([image_alignment(samples, one) for one in references], dim=1)
    return similar.argmax(1)


def counts(indices: torch.Tensor, concepts: int) -> list[int]:
    """How many samples fell to each of ``concepts``: one row of the confusion matrix."""
    return torch.bincount(indices, minlength=concepts).tolist()


def confusion(row: Sequence[int], own: int) -> float:
    """Share of samples nearest to another concept than ``own``, from a row of the confusion matrix."""
    return 1 - row[own] / sum(row)


def forgetting(history: Sequence[float]) -> float:
    """forgetting_i = best IA since learned - final IA; ``history`` from the concept's own task to the last."""
    return max(history) - history[-1]


def retention(final: float, base: float, single: float) -> float | None:
    """retention_i = (IA_final - IA_base) / (IA_single - IA_base).

    None where the concept's own LoRA gains less than LEAST_GAIN: then there is nothing to retain.
    """
    gain = single - base
    return (final - base) / gain if gain >= LEAST_GAIN else None


def standard_error(values: torch.Tensor, groups: int) -> float:
    """Standard error of the mean of ``values`` [N] that come in ``groups`` runs of equal length, one a prompt.

    Pictures of one prompt resemble each other: the prompts are the independent draws, not the pictures. Zero for
    a single group, where nothing can be said.
    """
    means = values.view(groups, -1).mean(1)
    return float(means.std() / groups**0.5) if groups > 1 else 0.0
