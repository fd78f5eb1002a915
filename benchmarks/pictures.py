"""How far pictures of equal prompts and seeds are from each other, and from a concept's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cidm_cli.judge.encoders import Judges
from cidm_cli.method import metrics


def apart(judges: Judges, one: Sequence[Image.Image], other: Sequence[Image.Image]) -> dict[str, float]:
    """Mean distance of pictures, pair by pair: 1 - cosine by each judge, and ``pixels``, of 255."""
    out = {
        "pixels": float(
            np.mean(
                [np.abs(np.asarray(a, float) - np.asarray(b)).mean() for a, b in zip(one, other, strict=True)]
            )
        )
    }
    keys = [looked_at(judges, some) for some in (one, other)]
    for name in judges.names:
        before, after = (judges.pictures(name, own) for own in keys)
        out[name] = float(1 - (before * after).sum(-1).mean())
    return out


def likeness(judges: Judges, pictures: Sequence[Image.Image], own: Sequence[Image.Image]) -> dict[str, float]:
    """IA by judge: mean cosine of pictures to a concept's own."""
    drawn, known = looked_at(judges, pictures), looked_at(judges, own)
    return {
        name: float(
            metrics.image_alignment(judges.pictures(name, drawn), judges.pictures(name, known)).mean()
        )
        for name in judges.names
    }


def looked_at(judges: Judges, pictures: Sequence[Image.Image]) -> list[str]:
    """Keys, by content, under which the judges know these pictures from now on."""
    by_key = {hashlib.sha256(one.tobytes()).hexdigest(): one for one in pictures}
    judges.look(list(by_key), by_key.__getitem__, lambda done: None)
    return [hashlib.sha256(one.tobytes()).hexdigest() for one in pictures]
