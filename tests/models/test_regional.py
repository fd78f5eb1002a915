"""Regional attention: each cell attends to what it should, and to nothing else, against query-by-query arithmetic."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

import tiny
from cidm_cli.models.attention import layer_contexts, lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.lora import merged
from cidm_cli.models.regional import Rows, Source, arranged, cached, grids, predict

T = torch.tensor(500)


def many_heads_unet() -> UNet2DConditionModel:
    """In the form of SDXL: heads that differ from level to level, several blocks in one, linear projections."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return UNet2DConditionModel(
            sample_size=8, block_out_channels=(16, 32, 48), layers_per_block=1, norm_num_groups=8,
            attention_head_dim=[2, 4, 6], cross_attention_dim=tiny.TEXT_WIDTH, use_linear_projection=True,
            transformer_layers_per_block=[1, 1, 2],
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip


def biased_unet() -> UNet2DConditionModel:
    """The tiny one, with biases where a UNet may have them and ours has none."""
    unet = tiny.unet()
    generator = torch.Generator().manual_seed(9)
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_k", "attn2.to_v")):
            module.bias = nn.Parameter(torch.randn(len(module.weight), generator=generator))
    return unet.requires_grad_(False).eval()


UNETS: dict[str, Callable[[], UNet2DConditionModel]] = {
    "tiny": tiny.unet, "many heads": many_heads_unet, "with biases": biased_unet,
}  # fmt: skip


def source(base: Base, seed: int, sites: Sequence[str] = ()) -> Source:
    """A text, and low-rank weights on some sites; seeds that differ by 3 give equal ranks."""
    generator = torch.Generator().manual_seed(seed)
    layers = len(base.layers)
    contexts = [torch.randn(6, tiny.TEXT_WIDTH, generator=generator) for _ in range(layers)]
    shapes = base.shapes
    rank = 1 + seed % 3
    return Source(
        contexts,
        {
            site: (
                0.1 * torch.randn(shapes[site][0], rank, generator=generator),
                torch.randn(rank, shapes[site][1], generator=generator),
            )
            for site in sites
        },
    )


def some_weights(grid: tuple[int, int]) -> torch.Tensor:
    """Two patches in three rows: one in the second and third, in part; one in the third, where they meet, in part."""
    width, height = grid
    out = torch.zeros(2, 3, height, width)
    out[0, 1, :, : (width + 1) // 2] = 1
    out[0, 2, : (height + 1) // 2] = 0.25
    out[1, 2, 0, 0] = 0.5
    return out


ROWS = Rows((0, 1, 0), (2, 3), some_weights)


def latents(rows: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 4, size[1], size[0], generator=torch.Generator().manual_seed(seed))


@contextmanager
def heard(base: Base, names: Sequence[str]) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """What goes into each named module, and what comes out."""
    calls: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def listen(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
            calls[name] = (args[0].clone(), out.clone())

        return base.denoiser.get_submodule(name).register_forward_hook(hook)

    handles = [listen(name) for name in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def weight_of(base: Base, site: str, told: Source) -> torch.Tensor:
    weight = base.denoiser.get_submodule(site).weight
    if site not in told.factors:
        return weight
    up, down = told.factors[site]
    return weight + up @ down


def one_query(base: Base, layer: str, given: torch.Tensor, told: Source) -> torch.Tensor:
    """What a cell's features become when it attends to a source, with the source's weights merged."""
    attn = base.denoiser.get_submodule(layer)
    context = told.contexts[base.layers.index(layer)]

    def project(leaf: str, value: torch.Tensor) -> torch.Tensor:
        bias = base.denoiser.get_submodule(f"{layer}.{leaf}").bias
        out = value @ weight_of(base, f"{layer}.{leaf}", told).T
        return out if bias is None else out + bias

    query, keys, values = project("to_q", given), project("to_k", context), project("to_v", context)
    width = len(query) // attn.heads
    heads = []
    for head in range(attn.heads):
        part = slice(head * width, (head + 1) * width)
        scores = torch.stack([key[part] @ query[part] for key in keys]) / math.sqrt(width)
        heads.append(sum(w * value[part] for w, value in zip(scores.softmax(0), values, strict=True)))
    return project("to_out.0", torch.cat(heads))


@pytest.mark.parametrize("size", [(8, 8), (10, 7), (5, 12)], ids=str)
@pytest.mark.parametrize("kind", UNETS)
def test_every_query_attends_to_what_its_cell_says(base: Base, kind: str, size: tuple[int, int]) -> None:
    """Against one query at a time, each with its source's weights merged; where sources meet, by their shares."""
    mine = replace(base, denoiser=UNETS[kind]())
    sites = lora_sites(mine.denoiser)
    sources = [
        source(mine, 1),
        source(mine, 2, sites),
        source(mine, 3, sites[::2]),
        source(mine, 4, sites[1:]),
    ]
    layers = mine.layers
    with heard(mine, layers) as calls, torch.no_grad():
        predict(mine, latents(3, size), T, arranged(mine, cached(mine, sources), ROWS, size))
    by_cells = {w * h: (w, h) for w, h in grids(mine.denoiser, size)}
    assert set(calls) == set(layers)
    for layer, (given, out) in calls.items():
        width, _ = grid = by_cells[given.shape[1]]
        weights = some_weights(grid)
        for row in range(3):
            count = given.shape[1]
            for cell in {0, 1, width - 1, width, count // 2, count - 1}:
                y, x = divmod(cell, width)
                shares = {2: float(weights[0, row, y, x]), 3: float(weights[1, row, y, x])}
                whole = ROWS.whole[row]
                shares[whole] = shares.get(whole, 0) + 1 - sum(shares.values())
                wanted = sum(
                    share * one_query(mine, layer, given[row, cell], sources[number])
                    for number, share in shares.items()
                    if share
                )
                torch.testing.assert_close(out[row, cell], wanted, rtol=1e-3, atol=1e-4)


EVERYWHERE: dict[str, Callable[[int], Rows]] = {
    "as a row's own": lambda number: Rows((number,), (), some_weights),
    "as a patch over all cells": lambda number: Rows(
        (0,), (number,), lambda grid: torch.ones(1, 1, grid[1], grid[0])
    ),
}


@pytest.mark.parametrize("way", EVERYWHERE)
@pytest.mark.parametrize("targets", ["attn2", "attn1+attn2", "all that a LoRA may change"])
def test_a_source_everywhere_is_the_unet_with_its_weights_merged(base: Base, targets: str, way: str) -> None:
    """So a layout can draw what a prompt draws; what else is in the cache does not matter."""
    sites = list(base.shapes) if " " in targets else lora_sites(base.denoiser, targets)
    sources = [source(base, 1, sites), source(base, 5, sites), source(base, 6, sites[1:])]
    rows = arranged(base, cached(base, sources), EVERYWHERE[way](1), (9, 8))
    with torch.no_grad():
        found = predict(base, latents(1, (9, 8)), T, rows)
    told = sources[1]
    deltas = {site: up @ down for site, (up, down) in told.factors.items()}
    contexts = [context[None] for context in told.contexts]
    with merged(base.denoiser, deltas), layer_contexts(base.denoiser, contexts), torch.no_grad():
        wanted = base.denoiser(latents(1, (9, 8)), T, contexts[0]).sample
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=3e-4)
    with torch.no_grad():
        frozen = base.denoiser(latents(1, (9, 8)), T, contexts[0]).sample
    assert (frozen - wanted).abs().max() > 0.01, "the weights matter"


def test_other_layers_change_cell_by_cell(base: Base) -> None:
    """Self-attention and what surrounds it: each cell's input goes through the weights of its sources, by shares."""
    sites = [site for site in base.shapes if ".attn2." not in site]
    sources = [
        source(base, 1),
        source(base, 2, sites),
        source(base, 3, sites[::2]),
        source(base, 4, sites[1:]),
    ]
    size = (10, 6)
    with heard(base, sites) as calls, torch.no_grad():
        predict(base, latents(3, size), T, arranged(base, cached(base, sources), ROWS, size))
    for site, (given, out) in calls.items():
        if given.ndim == 4:
            grid = (given.shape[3], given.shape[2])
            given, out = (value.flatten(2).transpose(1, 2) for value in (given, out))
        else:
            grid = {w * h: (w, h) for w, h in grids(base.denoiser, size)}[given.shape[1]]
        weights = some_weights(grid).flatten(2)
        module = base.denoiser.get_submodule(site)
        for row in range(3):
            for cell in (0, 1, grid[0] - 1, given.shape[1] - 1):
                shares = {2: float(weights[0, row, cell]), 3: float(weights[1, row, cell])}
                shares[ROWS.whole[row]] = 1 - sum(shares.values())
                wanted = sum(
                    share * (weight_of_flat(module, site, sources[n]) @ given[row, cell])
                    for n, share in shares.items()
                )
                if module.bias is not None:
                    wanted = wanted + module.bias
                torch.testing.assert_close(out[row, cell], wanted, rtol=1e-3, atol=1e-4)


def weight_of_flat(module: nn.Module, site: str, told: Source) -> torch.Tensor:
    weight = module.weight.flatten(1)
    if site not in told.factors:
        return weight
    up, down = told.factors[site]
    return weight + up @ down


def test_what_is_drawn_in_a_patch_cannot_be_seen_outside_it_in_its_layer(base: Base) -> None:
    """Another text and other weights in a region: not a bit of the layer's output outside changes, or in other rows.

    The weights have equal ranks: otherwise all are rounded differently.
    """
    sites = lora_sites(base.denoiser)
    sources = [source(base, n, sites) for n in range(4)]
    others = [*sources[:2], source(base, 14, sites), source(base, 15, sites)]
    (first, *_), size = base.layers, (8, 6)
    outs = []
    for some in (sources, others):
        with heard(base, [first]) as calls, torch.no_grad():
            predict(base, latents(3, size), T, arranged(base, cached(base, some), ROWS, size))
        outs.append(calls[first][1].unflatten(1, (6, 8)))
    held = some_weights(size).sum(0) > 0
    same = (outs[0] == outs[1]).all(-1)
    assert same[~held].all()
    assert not same[held].any()


def test_what_the_whole_prompt_draws_cannot_be_seen_in_a_patch_in_its_layer(base: Base) -> None:
    sites = lora_sites(base.denoiser)
    sources = [source(base, n, sites) for n in range(4)]
    others = [source(base, 9, sites), source(base, 10, sites), *sources[2:]]
    (first, *_), size = base.layers, (8, 6)
    outs = []
    for some in (sources, others):
        with heard(base, [first]) as calls, torch.no_grad():
            predict(base, latents(3, size), T, arranged(base, cached(base, some), ROWS, size))
        outs.append(calls[first][1].unflatten(1, (6, 8)))
    alone = some_weights(size).sum(0) == 1
    assert alone.any()
    assert torch.equal(outs[0][alone], outs[1][alone])


def test_keys_and_values_are_computed_once_and_not_at_every_step(base: Base) -> None:
    calls: dict[str, int] = {}
    layers = base.layers
    handles = [
        base.denoiser.get_submodule(f"{layer}.{leaf}").register_forward_hook(
            lambda _m, _i, _o, name=f"{layer}.{leaf}": calls.__setitem__(name, calls.get(name, 0) + 1)
        )
        for layer in layers
        for leaf in ("to_k", "to_v")
    ]
    try:
        rows = arranged(base, cached(base, [source(base, n) for n in range(4)]), ROWS, (8, 8))
        with torch.no_grad():
            for step in (900, 500, 100):
                predict(base, latents(3, (8, 8)), torch.tensor(step), rows)
    finally:
        for handle in handles:
            handle.remove()
    assert calls == {f"{layer}.{leaf}": 1 for layer in layers for leaf in ("to_k", "to_v")}


def test_a_layer_takes_no_more_operations_for_eight_regions_than_for_one(base: Base) -> None:
    """Starting operations is what costs on a small base: their number must not grow with the regions."""

    def operations(regions: int) -> int:
        def weights(grid: tuple[int, int]) -> torch.Tensor:
            out = torch.zeros(regions, 1, grid[1], grid[0])
            for cell in range(grid[0]):
                out[cell % regions, 0, :, cell] = 1
            return out

        sources = [source(base, 3, lora_sites(base.denoiser)) for _ in range(regions + 1)]
        rows = Rows((0,), tuple(range(1, regions + 1)), weights)
        ready = arranged(base, cached(base, sources), rows, (32, 32))
        with (
            torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen,
            torch.no_grad(),
        ):
            predict(base, latents(1, (32, 32)), T, ready)
        return len(seen.events())

    assert operations(8) == operations(1)


@pytest.mark.parametrize("goes", [True, False], ids=["after drawing", "after an error"])
def test_the_unet_is_left_as_it_was(base: Base, goes: bool) -> None:
    sites = lora_sites(base.denoiser, "attn1+attn2")
    rows = arranged(base, cached(base, [source(base, n, sites) for n in range(4)]), ROWS, (8, 8))
    before = dict(base.denoiser.attn_processors)
    weights = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    if goes:
        predict(base, latents(3, (8, 8)), T, rows)
    else:
        with pytest.raises(RuntimeError):
            predict(base, torch.zeros(3, 5, 8, 8), T, rows)
    assert dict(base.denoiser.attn_processors) == before
    assert not any(module._forward_hooks for module in base.denoiser.modules())
    assert all(tensor.equal(weights[name]) for name, tensor in base.denoiser.state_dict().items())


def test_patches_that_hold_no_cell_change_nothing(base: Base) -> None:
    sources = [source(base, n, lora_sites(base.denoiser)) for n in range(4)]
    cache = cached(base, sources)
    nothing = replace(ROWS, weights=lambda grid: torch.zeros(2, 3, grid[1], grid[0]))
    with torch.no_grad():
        found = predict(base, latents(3, (8, 8)), T, arranged(base, cache, nothing, (8, 8)))
        wanted = predict(
            base, latents(3, (8, 8)), T, arranged(base, cache, replace(ROWS, patches=()), (8, 8))
        )
    assert torch.equal(found, wanted)


def test_half_precision_draws_the_same_but_for_rounding(base: Base) -> None:
    half = replace(base, compute=torch.bfloat16)
    sources = [source(base, n, lora_sites(base.denoiser, "attn1+attn2")) for n in range(4)]
    found = []
    for some in (base, half):
        rows = arranged(some, cached(some, sources), ROWS, (8, 8))
        with torch.no_grad(), some.autocast():
            found.append(predict(some, latents(3, (8, 8)), T, rows))
    assert found[1].dtype == torch.float32
    assert (found[0] - found[1]).abs().max() < 0.1 * found[0].abs().max()
    assert not torch.equal(*found)


@pytest.mark.parametrize(
    ("size", "levels"),
    [((64, 64), [(64, 64), (32, 32), (16, 16)]), ((9, 5), [(9, 5), (5, 3), (3, 2)])],
)
def test_an_odd_side_is_halved_to_the_larger_half_as_the_unet_does(
    base: Base, size: tuple[int, int], levels: list[tuple[int, int]]
) -> None:
    assert grids(base.denoiser, size) == levels


def test_sources_do_not_change(base: Base) -> None:
    sources = [source(base, n, lora_sites(base.denoiser)) for n in range(4)]
    kept: Sequence[Mapping[str, Any]] = [copy.deepcopy(dict(s.factors)) for s in sources]
    predict(base, latents(3, (8, 8)), T, arranged(base, cached(base, sources), ROWS, (8, 8)))
    for told, before in zip(sources, kept, strict=True):
        assert all(
            torch.equal(a, b)
            for site in before
            for a, b in zip(told.factors[site], before[site], strict=True)
        )
