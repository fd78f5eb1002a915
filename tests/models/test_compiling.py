"""Compiled blocks: the same predictions, nothing compiled again for a prompt or a layout, no stale weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models import compiling, regional
from cidm_cli.models.base import Base, load
from cidm_cli.models.lora import merged
from cidm_cli.models.prediction import predict


@pytest.fixture
def fast(tiny_base: Path) -> Iterator[Base]:
    """The tiny base, its blocks compiled by what shows and lifts weights as the real compiler does."""
    torch._dynamo.reset()
    base = load(tiny_base, device=torch.device("cpu"), compute=torch.float32)
    yield compiling.compiled(base, backend="aot_eager")
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def predicted(base: Base, seed: int, rows: int = 2) -> torch.Tensor:
    contexts = [noise(rows, 24, 32, seed=seed + n) for n in range(len(base.layers))]
    return predict(base, noise(rows, 4, 8, 8, seed=0), torch.tensor(5), contexts)


def test_other_texts_and_other_weights_are_seen_and_compile_nothing_again(base: Base, fast: Base) -> None:
    torch.testing.assert_close(predicted(fast, 0), predicted(base, 0))
    compiled = graphs()
    assert compiled > 5, "blocks are compiled"
    assert not torch.equal(predicted(fast, 1), predicted(fast, 0))
    torch.testing.assert_close(predicted(fast, 1), predicted(base, 1))
    for seed in (1, 2):
        # In self-attention and feed-forward layers, too, which are compiled.
        deltas = {
            site: 0.3 * noise(*shape, seed=seed + number)
            for number, (site, shape) in enumerate(base.shapes.items())
        }
        with merged(fast.denoiser, deltas), merged(base.denoiser, deltas):
            torch.testing.assert_close(predicted(fast, 0), predicted(base, 0), rtol=1e-3, atol=1e-3)
            assert not torch.allclose(predicted(fast, 0), predicted(base, 1), atol=0.1)
    torch.testing.assert_close(predicted(fast, 0), predicted(base, 0))
    assert graphs() == compiled


@torch.no_grad()
def drawn_in_regions(base: Base, width: int, site: str, seed: int) -> torch.Tensor:
    """Half of the picture from another source, which changes one layer."""
    layers = base.layers
    out, into = base.shapes[site]
    factors = {site: (noise(out, 2, seed=seed), noise(2, into, seed=seed + 1))}
    sources = [
        regional.Source([noise(24, 32, seed=seed + 9 * n + k) for n in range(len(layers))], own)
        for k, own in enumerate(({}, factors))
    ]

    def weights(grid: tuple[int, int]) -> torch.Tensor:
        share = torch.zeros(1, 2, grid[1], grid[0])
        share[:, 1, :, : max(1, grid[0] * width // 8)] = 1
        return share

    rows = regional.arranged(
        base, regional.cached(base, sources), regional.Rows((0, 0), (1,), weights), (8, 8)
    )
    return regional.predict(base, noise(2, 4, 8, 8, seed=0), torch.tensor(5), rows)


def test_layouts_are_drawn_with_compiled_blocks_whatever_their_regions(base: Base, fast: Base) -> None:
    predicted(fast, 0)
    compiled = graphs()
    own = base.layers[0]
    within = next(site for site in base.shapes if site.endswith("attn1.to_q"))
    for width, site in ((4, f"{own}.to_q"), (2, f"{own}.to_out.0"), (4, within), (6, within)):
        given = drawn_in_regions(fast, width, site, seed=width)
        torch.testing.assert_close(
            given, drawn_in_regions(base, width, site, seed=width), rtol=1e-3, atol=1e-3
        )
    assert graphs() == compiled


def test_compiled_code_is_used_for_layouts_but_where_blocks_are_listened_to(
    fast: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fast.layers[0]
    within = next(site for site in fast.shapes if site.endswith("attn1.to_q"))
    stances: list[str] = []
    real = torch.compiler.set_stance

    def noted(stance: str) -> object:
        stances.append(stance)
        return real(stance)

    monkeypatch.setattr(torch.compiler, "set_stance", noted)
    drawn_in_regions(fast, 4, f"{own}.to_q", seed=1)
    assert stances == []
    drawn_in_regions(fast, 4, within, seed=1)
    assert stances == ["force_eager"]


def test_where_torch_cannot_compile_it_is_said_before_anything_is_drawn(base: Base) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("no working C++ compiler found")

    forward = {name: module.forward for name, module in base.denoiser.named_modules()}
    with pytest.raises(CidmError, match="--compile: torch cannot compile here") as caught:
        compiling.compiled(base, backend=broken)  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.USAGE
    assert forward == {name: module.forward for name, module in base.denoiser.named_modules()}
