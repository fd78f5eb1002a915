"""What is shown of an unfinished image: little, and seldom."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL.Image import Image

from cidm_cli.draw import looking
from cidm_cli.models.base import Base


def test_a_look_is_small_and_the_next_one_waits(base: Base) -> None:
    seen: list[Image] = []
    see = looking.looking(base, seen.append)
    latents = torch.randn(2, 4, 80, 40, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        see(latents)
    (image,) = seen
    assert image.size == (13 * base.factor, 26 * base.factor), "a third of each side, 32 cells at most"


def test_nothing_is_decoded_where_nobody_looks_or_the_vae_is_away(base: Base) -> None:
    def look(_: Image) -> None:
        raise AssertionError("nothing was to be shown")

    looking.looking(base, None)(torch.zeros(1))
    looking.looking(replace(base, offload=True), look)(torch.zeros(1))
