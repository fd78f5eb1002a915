"""PEFT's layers on the UNet: there while a concept trains, and nowhere afterwards."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch

import tiny
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.lora import adapter, merged

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
GIVEN = torch.randn(2, tiny.TOKENS, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(base: Base) -> torch.Tensor:
    return base.denoiser(LATENTS, 500, GIVEN).sample


@pytest.mark.parametrize("targets", ["attn2", "attn1+attn2"])
@pytest.mark.parametrize("raises", [False, True])
def test_afterwards_the_unet_is_as_it_was(base: Base, targets: str, raises: bool) -> None:
    before = {name: value.clone() for name, value in base.denoiser.state_dict().items()}
    modules, attributes = dict(base.denoiser.named_modules()), set(vars(base.denoiser))
    processors, modes = base.denoiser.attn_processors, [m.training for m in base.denoiser.modules()]
    plain = run(base)
    try:
        with adapter(base.denoiser, lora_sites(base.denoiser, targets), rank=2, scale=1.0, seed=0) as factors:
            for up, _ in factors.values():
                up.data.fill_(1.0)
            assert not torch.equal(run(base), plain)
            if raises:
                raise InterruptedError
    except InterruptedError:
        assert raises
    after = base.denoiser.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    now = dict(base.denoiser.named_modules())
    assert list(now) == list(modules)
    assert all(now[name] is module for name, module in modules.items())
    assert set(vars(base.denoiser)) == attributes
    assert base.denoiser.attn_processors == processors
    assert [m.training for m in base.denoiser.modules()] == modes
    assert not any(parameter.requires_grad for parameter in base.denoiser.parameters())
    assert torch.equal(run(base), plain)


def test_it_can_be_put_on_again_and_again(base: Base) -> None:
    sites = lora_sites(base.denoiser)
    with adapter(base.denoiser, sites, rank=2, scale=1.0, seed=3) as factors:
        first = {site: down.detach().clone() for site, (_, down) in factors.items()}
    with adapter(base.denoiser, sites, rank=2, scale=1.0, seed=3) as factors:
        assert all(torch.equal(factors[site][1], first[site]) for site in sites)


def test_it_starts_as_identity(base: Base) -> None:
    plain = run(base)
    with adapter(base.denoiser, lora_sites(base.denoiser), rank=4, scale=1.0, seed=0) as factors:
        assert not any(up.any() for up, _ in factors.values())
        assert all(down.any() for _, down in factors.values())
        assert torch.equal(run(base), plain)


def test_factors_come_in_site_order_and_are_all_that_trains(base: Base) -> None:
    sites = lora_sites(base.denoiser)
    with adapter(base.denoiser, sites, rank=3, scale=1.0, seed=0) as factors:
        assert tuple(factors) == sites
        for site, (up, down) in factors.items():
            layer = base.denoiser.get_submodule(site)
            assert up.shape == (layer.out_features, 3)
            assert down.shape == (3, layer.in_features)
            assert up.dtype == down.dtype == torch.float32
        ours = {id(factor) for pair in factors.values() for factor in pair}
        assert {id(p) for p in base.denoiser.parameters() if p.requires_grad} == ours


def test_gradients_reach_every_factor(base: Base) -> None:
    with adapter(base.denoiser, lora_sites(base.denoiser), rank=2, scale=1.0, seed=0) as factors:
        for up, _ in factors.values():
            up.data.fill_(0.01)
        base.denoiser(LATENTS, 500, GIVEN).sample.square().mean().backward()
        for site, pair in factors.items():
            assert all(factor.grad is not None and factor.grad.any() for factor in pair), site


def test_the_draw_depends_on_seed_and_site_and_on_nothing_else(base: Base) -> None:
    sites = lora_sites(base.denoiser)
    down: list[list[torch.Tensor]] = []
    for seed in (0, 0, 1):
        torch.rand(1)
        state = torch.random.get_rng_state()
        with adapter(base.denoiser, sites, rank=2, scale=1.0, seed=seed) as factors:
            down.append([pair[1].detach().clone() for pair in factors.values()])
        assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(down[0], down[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(down[0], down[2], strict=True))
    alike = [(a, b) for a, b in combinations(down[0], 2) if a.shape == b.shape]
    assert alike
    assert not any(torch.equal(a, b) for a, b in alike)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_what_trains_is_what_is_merged_later(base: Base, scale: float) -> None:
    """The output with the layers in place is the output with scale * up @ down added to the weights."""
    sites = lora_sites(base.denoiser)
    generator = torch.Generator().manual_seed(2)
    plain = run(base)
    with adapter(base.denoiser, sites, rank=2, scale=scale, seed=0) as factors:
        for up, _ in factors.values():
            up.data.copy_(torch.randn(up.shape, generator=generator))
        trained = run(base)
        deltas = {site: scale * (up @ down).detach() for site, (up, down) in factors.items()}
    with merged(base.denoiser, deltas):
        torch.testing.assert_close(run(base), trained, rtol=1e-5, atol=1e-5)
    assert (trained - plain).abs().max() > 1e-2


def test_on_a_unet_in_half_precision_the_factors_are_float32_and_learn(base: Base) -> None:
    """Updates are far smaller than what half precision can tell apart."""
    unet = copy.deepcopy(base.denoiser).to(torch.bfloat16)
    with adapter(unet, lora_sites(unet), rank=2, scale=1.0, seed=0) as factors:
        with torch.autocast("cpu", torch.bfloat16):
            unet(LATENTS, 500, GIVEN).sample.float().square().mean().backward()
        for up, down in factors.values():
            assert up.dtype == down.dtype == torch.float32
            assert up.grad is not None
            assert up.grad.dtype == torch.float32
            assert up.grad.abs().sum() > 0
    assert {p.dtype for p in unet.parameters()} == {torch.bfloat16}
