"""Texts, low-rank weights and regions for bases whose text and picture are one sequence."""

from __future__ import annotations

import torch

from cidm_cli.models import text
from cidm_cli.models.base import Base
from cidm_cli.models.family import Rows, Source

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
TIME = torch.tensor(600.0)


def words(base: Base, prompt: str) -> torch.Tensor:
    return text.encode(base, [text.tokenize(base, [prompt])], {})[0]


def factors(base: Base, seed: int, rank: int = 2, targets: str = "") -> Factors:
    """Low-rank weights at every site, or at those of ``targets``."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {site: base.shapes[site] for site in (base.sites(targets) if targets else base.shapes)}
    return {
        site: (
            0.3 * torch.randn(out, rank, generator=generator),
            0.3 * torch.randn(rank, width, generator=generator),
        )
        for site, (out, width) in shapes.items()
    }


def products(given: Factors) -> dict[str, torch.Tensor]:
    return {site: up @ down for site, (up, down) in given.items()}


def noise(base: Base, seed: int, rows: int = 1, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Latents of pictures of a size (width, height), as large as the base's own."""
    width, height = (side // base.factor for side in size or (base.pixels, base.pixels))
    shape = (rows, base.architecture.channels(base), height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sources(base: Base, *prompts: str, targets: str = "") -> list[Source]:
    """Each prompt with low-rank weights of its own, as ``factors`` gives them."""
    return [
        Source([words(base, prompt)[0]], factors(base, 40 + n, 1 + n, targets))
        for n, prompt in enumerate(prompts)
    ]


def halves(grid: tuple[int, int]) -> torch.Tensor:
    """Of two patches in one row, the left half and the right."""
    out = torch.zeros(2, 1, grid[1], grid[0])
    out[0, :, :, : grid[0] // 2] = out[1, :, :, grid[0] // 2 :] = 1
    return out


def drawn(base: Base, given: list[Source], rows: Rows, latents: torch.Tensor) -> torch.Tensor:
    """What is predicted for rows of latents, each by its sources."""
    height, width = latents.shape[-2:]
    arranged = base.regions.arranged(base, base.regions.cached(base, given), rows, (width, height))
    return base.regions.predict(base, latents, TIME, arranged)
