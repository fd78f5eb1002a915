"""What a drawing looks like before it is done: small, and at most a tenth of the time goes into it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from PIL import Image

from ..models import sampling
from ..models.base import Base

Look = Callable[[Image.Image], None]
"""Sees an unfinished picture."""

CELLS = 32
"""Of the latents' longer side; more are averaged away before they are decoded."""
REST = 9
"""Times that a look took, to wait until the next."""


def looking(base: Base, look: Look | None) -> Callable[[torch.Tensor], None]:
    """Sees latents [batch, channels, h, w] at every step, and shows the first of them now and then.

    Nothing is decoded where nobody looks, nor where the VAE would have to come from main memory each time.
    """
    if look is None or base.offload:
        return lambda latents: None
    due = 0.0

    def see(latents: torch.Tensor) -> None:
        nonlocal due
        began = time.monotonic()
        if began < due:
            return
        shrink = max(1, -(-max(latents.shape[-2:]) // CELLS))
        (image,) = sampling.decode(base, torch.nn.functional.avg_pool2d(latents[:1], shrink))
        look(image)
        now = time.monotonic()
        due = now + REST * (now - began)

    return see
