"""Attention that never holds a table of pixels by pixels, or by words: everywhere but in a training on a CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.utils._python_dispatch import TorchDispatchMode

from cidm_cli.models import regional, text
from cidm_cli.models.base import Base
from cidm_cli.models.prediction import predict
from cidm_cli.models.sampling import decode


class Heard(TorchDispatchMode):
    """Counts the operations that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))

    @property
    def fused(self) -> int:
        return sum(n for name, n in self.counts.items() if name.startswith("_scaled_dot_product"))

    @property
    def tables(self) -> int:
        return sum(n for name, n in self.counts.items() if "softmax" in name)


@pytest.fixture(params=["base", "sdxl"])
def either(request: pytest.FixtureRequest) -> Base:
    return request.getfixturevalue(request.param)


def whole(base: Base, rows: int) -> torch.Tensor | None:
    return torch.zeros(rows, 40) if base.family.name == "sdxl" else None


@torch.no_grad()
def test_a_prompt_is_drawn_by_fused_attention_alone(either: Base) -> None:
    layers = either.layers
    tokens = text.tokenize(either, ["a photo of a dog"])
    with Heard() as encoding:
        contexts = text.encode(either, [tokens], {}, layers=len(layers))
    assert (encoding.fused > 0, encoding.tables) == (True, 0)
    assert all(isinstance(one, AttnProcessor2_0) for one in either.denoiser.attn_processors.values())
    with Heard() as drawing:
        predict(either, torch.zeros(1, 4, 8, 8), torch.tensor(5), contexts, whole(either, 1))
    assert (drawing.fused, drawing.tables) == (2 * len(layers), 0)
    with Heard() as decoding:
        decode(either, torch.zeros(1, 4, 8, 8))
    assert (decoding.fused > 0, decoding.tables) == (True, 0)


@torch.no_grad()
def test_regions_are_drawn_by_fused_attention_alone(either: Base) -> None:
    layers = either.layers
    width = either.denoiser.config.cross_attention_dim
    pooled = whole(either, 1)
    sources = [
        regional.Source([torch.randn(24, width) for _ in layers], {}, None if pooled is None else pooled[0])
        for _ in range(2)
    ]

    def weights(grid: tuple[int, int]) -> torch.Tensor:
        share = torch.zeros(1, 2, grid[1], grid[0])
        share[:, 1, :, : max(1, grid[0] // 2)] = 1
        return share

    rows = regional.Rows((0, 0), (1,), weights)
    arranged = regional.arranged(either, regional.cached(either, sources), rows, (8, 8))
    with Heard() as drawing:
        regional.predict(either, torch.zeros(2, 4, 8, 8), torch.tensor(5), arranged)
    # Within the picture once a layer; to text once for the rows and once for the patches.
    assert (drawing.fused, drawing.tables) == (3 * len(layers), 0)
