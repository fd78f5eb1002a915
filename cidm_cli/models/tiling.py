"""Large pictures through the VAE in tiles that overlap, and batches one picture after another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from .base import Base

LEAST = 8
"""Side of the smallest tile, in latent cells: a smaller one would be all overlap."""


@contextmanager
def tiled(base: Base, size: tuple[int, int]) -> Iterator[None]:
    """While open, the VAE takes pictures of a width and height in tiles, if they are of more pixels than
    ``base.whole``; else it is as it was.

    Tiles have the base's own side, or that of the largest square that is taken as a whole, whichever is smaller. They
    overlap by a quarter and are blended there. A tile sees nothing of the others: colours of large even areas may
    differ a little from one to the next.
    """
    vae = base.vae
    if size[0] * size[1] <= base.whole:
        yield
        return
    names = ("use_tiling", "use_slicing", "tile_sample_min_size", "tile_latent_min_size")
    before = {name: getattr(vae, name) for name in names}
    # A cell of the denoiser may be several of the VAE's.
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    cells = max(min(base.pixels, math.isqrt(base.whole)) // factor, LEAST)
    vae.use_tiling = vae.use_slicing = True
    vae.tile_sample_min_size, vae.tile_latent_min_size = cells * factor, cells
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)
