"""How far pictures of equal prompts and seeds are from each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cidm_cli.judge.encoders import Judges


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


def looked_at(judges: Judges, pictures: Sequence[Image.Image]) -> list[str]:
    """Keys, by content, under which the judges know these pictures from now on."""
    by_key = {hashlib.sha256(one.tobytes()).hexdigest(): one for one in pictures}
    judges.look(list(by_key), by_key.__getitem__, lambda done: None)
    return [hashlib.sha256(one.tobytes()).hexdigest() for one in pictures]
