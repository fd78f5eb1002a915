"""Cross-attention layers, LoRA sites, a context for each layer, weights swapped in."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import tiny
from cidm_cli.models.attention import cross_attention_layers, layer_contexts, lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.lora import merged

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
GIVEN = torch.randn(2, tiny.TOKENS, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(1))


def contexts(count: int) -> list[torch.Tensor]:
    """As many different ones, of a length that ``GIVEN`` does not have."""
    return [
        torch.randn(2, 5 + n, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(10 + n))
        for n in range(count)
    ]


@torch.no_grad()
def run(base: Base) -> torch.Tensor:
    return base.denoiser(LATENTS, 500, GIVEN).sample


@contextmanager
def heard(base: Base, projection: str) -> Iterator[dict[str, torch.Tensor]]:
    """What a projection of every cross-attention layer is fed, by layer, in the order of the calls."""
    calls: dict[str, torch.Tensor] = {}

    def listen(name: str) -> torch.utils.hooks.RemovableHandle:
        module = base.denoiser.get_submodule(f"{name}.{projection}")
        return module.register_forward_pre_hook(lambda _m, args: calls.__setitem__(name, args[0].clone()))

    handles = [listen(name) for name, _ in base.denoiser.named_modules() if name.endswith("attn2")]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def test_layers_are_counted_in_the_order_in_which_a_forward_pass_meets_them(base: Base) -> None:
    layers = base.layers
    with heard(base, "to_q") as calls:
        run(base)
    assert layers == tuple(calls)
    stages = [name.split("_", 1)[0] for name in layers]
    assert stages == ["down"] * 2 + ["mid"] + ["up"] * 4


def test_sites_are_the_four_projections_of_each_layer_in_forward_order(base: Base) -> None:
    sites = lora_sites(base.denoiser)
    expected = [
        f"{layer}.{projection}"
        for layer in base.layers
        for projection in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    assert sites == tuple(expected)
    assert all(type(base.denoiser.get_submodule(site)) is nn.Linear for site in sites)


def test_targets_may_add_the_self_attention_of_each_layer(base: Base) -> None:
    sites = lora_sites(base.denoiser, "attn1+attn2")
    assert len(sites) == 2 * len(lora_sites(base.denoiser))
    assert set(lora_sites(base.denoiser)) < set(sites)
    assert sites[0].endswith(".attn1.to_q")
    assert sites[4].endswith(".attn2.to_q")


def test_stable_diffusion_1_5_has_16_layers_and_64_sites() -> None:
    with torch.device("meta"):
        unet = tiny.sd15_unet()
    layers = cross_attention_layers(unet)
    assert len(layers) == 16
    assert [name.split("_", 1)[0] for name in layers] == ["down"] * 6 + ["mid"] + ["up"] * 9
    assert layers[0] == "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    assert layers[15] == "up_blocks.3.attentions.2.transformer_blocks.0.attn2"
    assert len(lora_sites(unet)) == 64
    assert len(lora_sites(unet, "attn1+attn2")) == 128


@pytest.mark.parametrize("projection", ["to_k", "to_v"])
def test_each_layer_attends_to_its_own_context(base: Base, projection: str) -> None:
    layers = base.layers
    wanted = contexts(len(layers))
    with layer_contexts(base.denoiser, wanted), heard(base, projection) as calls:
        run(base)
    for name, context in zip(layers, wanted, strict=True):
        assert torch.equal(calls[name], context), name


def test_the_same_context_for_all_layers_is_the_ordinary_call(base: Base) -> None:
    plain = run(base)
    with layer_contexts(base.denoiser, [GIVEN] * 7), torch.no_grad():
        assert torch.equal(base.denoiser(LATENTS, 500, torch.zeros_like(GIVEN)).sample, plain)


def test_a_layers_context_is_heard_in_the_output(base: Base) -> None:
    """Were a layer's context to go elsewhere, or nowhere, changing it alone would change nothing."""
    same = [GIVEN] * 7
    plain = run(base)
    for layer in range(7):
        with layer_contexts(base.denoiser, [*same[:layer], GIVEN.flip(0), *same[layer + 1 :]]):
            assert not torch.equal(run(base), plain), layer


@pytest.mark.parametrize("raises", [False, True])
def test_contexts_are_gone_afterwards(base: Base, raises: bool) -> None:
    plain = run(base)
    try:
        with layer_contexts(base.denoiser, contexts(7)):
            run(base)
            if raises:
                raise InterruptedError
    except InterruptedError:
        assert raises
    assert torch.equal(run(base), plain)


@pytest.mark.parametrize("count", [6, 8])
def test_a_wrong_number_of_contexts_is_refused_before_anything_changes(base: Base, count: int) -> None:
    plain = run(base)
    with (
        pytest.raises(ValueError, match=f"{count} contexts for 7"),
        layer_contexts(base.denoiser, contexts(count)),
    ):
        pass
    assert torch.equal(run(base), plain)


def random_deltas(base: Base) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    weights = {site: base.denoiser.get_submodule(site).weight for site in lora_sites(base.denoiser)}
    return {site: torch.randn(weight.shape, generator=generator) for site, weight in weights.items()}


def test_while_merged_each_weight_has_its_delta_added(base: Base) -> None:
    deltas = random_deltas(base)
    before = {site: base.denoiser.get_submodule(site).weight.clone() for site in deltas}
    plain = run(base)
    with merged(base.denoiser, deltas):
        for site, delta in deltas.items():
            assert torch.equal(base.denoiser.get_submodule(site).weight, before[site] + delta)
        assert not torch.equal(run(base), plain)


@pytest.mark.parametrize("raises", [False, True])
def test_after_merging_every_weight_is_as_before_to_the_bit(base: Base, raises: bool) -> None:
    before = {name: value.clone() for name, value in base.denoiser.state_dict().items()}
    # Adding and taking away again would not do: at this size float32 loses the weight's own digits.
    deltas = {site: delta * 1e6 for site, delta in random_deltas(base).items()}
    try:
        with merged(base.denoiser, deltas):
            if raises:
                raise InterruptedError
    except InterruptedError:
        assert raises
    after = base.denoiser.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_delta_that_does_not_fit_leaves_no_other_merged(base: Base) -> None:
    before = {name: value.clone() for name, value in base.denoiser.state_dict().items()}
    good, bad = lora_sites(base.denoiser)[:2]
    deltas = {good: torch.ones_like(base.denoiser.get_submodule(good).weight), bad: torch.ones(3, 3)}
    with pytest.raises(RuntimeError), merged(base.denoiser, deltas):
        pass
    assert all(torch.equal(value, before[name]) for name, value in base.denoiser.state_dict().items())


def test_weights_kept_in_half_are_rounded_once(base: Base) -> None:
    unet = copy.deepcopy(base.denoiser).to(torch.bfloat16)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    deltas = {site: delta / 100 for site, delta in random_deltas(base).items()}
    with merged(unet, deltas):
        for site, delta in deltas.items():
            wanted = (before[f"{site}.weight"].float() + delta).to(torch.bfloat16)
            assert torch.equal(unet.get_submodule(site).weight, wanted)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_no_more_than_one_delta_is_held_at_a_time_and_none_while_merged(base: Base) -> None:
    """All of SDXL's in float32 would be more than the UNet itself in half."""
    made: list[weakref.ref[torch.Tensor]] = []

    class Fresh(dict[str, torch.Tensor]):
        def __getitem__(self, site: str) -> torch.Tensor:
            assert not any(ref() is not None for ref in made)
            delta = super().__getitem__(site).clone()
            made.append(weakref.ref(delta))
            return delta

    given = Fresh(random_deltas(base))
    held = weakref.ref(given)
    with merged(base.denoiser, given):
        del given
        assert len(made) == len(lora_sites(base.denoiser))
        assert not any(ref() is not None for ref in made)
        assert held() is None


def test_merges_may_be_nested_and_undone_one_by_one(base: Base) -> None:
    site = lora_sites(base.denoiser)[0]
    layer = base.denoiser.get_submodule(site)
    before, one = layer.weight.clone(), torch.ones_like(layer.weight)
    with merged(base.denoiser, {site: one}):
        with merged(base.denoiser, {site: 2 * one}):
            assert torch.equal(layer.weight, before + one + 2 * one)
        assert torch.equal(layer.weight, before + one)
    assert torch.equal(layer.weight, before)
