"""Gram matrices of what the UNet's layers are fed."""

from __future__ import annotations

import pytest
import torch

import tiny
from cidm_cli.models.attention import layer_contexts, lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.features import Gram, feature_source, recorded, sees_text, text_gram

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def contexts(count: int) -> list[torch.Tensor]:
    return [
        torch.randn(2, 5, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(n)) for n in range(count)
    ]


def test_a_gram_matrix_is_the_sum_over_rows_in_double_precision() -> None:
    pieces = [torch.randn(2, 3, 4), torch.randn(5, 4)]
    gram = Gram(4)
    for piece in pieces:
        gram.add(piece)
    rows = torch.cat([piece.reshape(-1, 4) for piece in pieces]).double()
    torch.testing.assert_close(gram.total, sum(torch.outer(row, row) for row in rows))
    torch.testing.assert_close(gram.mean(), gram.total / 11)
    assert gram.mean().dtype == torch.float64


def test_no_rows_have_a_mean_of_zero_and_not_nan() -> None:
    assert not Gram(4).mean().any()


@torch.no_grad()
def test_what_is_recorded_is_what_each_layer_is_fed_over_all_calls(base: Base) -> None:
    sites = lora_sites(base.denoiser, "attn1+attn2")
    given = contexts(len(base.layers))
    inputs: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    handles = [
        base.denoiser.get_submodule(site).register_forward_pre_hook(
            lambda _m, args, site=site: inputs[site].append(args[0].reshape(-1, args[0].shape[-1]).double())
        )
        for site in sites
    ]
    with layer_contexts(base.denoiser, given), recorded(base.denoiser, dict.fromkeys(sites)) as grams:
        for t in (900, 100):
            base.denoiser(LATENTS, t, given[0])
    for handle in handles:
        handle.remove()
    for site in sites:
        rows = torch.cat(inputs[site])
        torch.testing.assert_close(grams[site].mean(), rows.T @ rows / len(rows))


@torch.no_grad()
def test_a_layer_is_fed_what_its_source_is_fed_and_texts_are_told_apart(base: Base) -> None:
    sites = lora_sites(base.denoiser, "attn1+attn2")
    layers = base.layers
    given = contexts(len(layers))
    with layer_contexts(base.denoiser, given), recorded(base.denoiser, dict.fromkeys(sites)) as grams:
        base.denoiser(LATENTS, 500, given[0])
    for site in sites:
        assert feature_source(site) in sites
        assert torch.equal(grams[site].total, grams[feature_source(site)].total), site
    assert len({feature_source(site) for site in sites}) == 5 * len(layers)
    of_text = [site for site in sites if sees_text(site)]
    assert of_text == [f"{layer}.to_{x}" for layer in layers for x in "kv"]
    for site in of_text:
        layer = layers.index(site.rpartition(".")[0])
        torch.testing.assert_close(grams[site].mean(), text_gram(given[layer]))


@torch.no_grad()
def test_afterwards_nothing_is_recorded_also_after_an_error(base: Base) -> None:
    sites = lora_sites(base.denoiser)
    with pytest.raises(ZeroDivisionError), recorded(base.denoiser, dict.fromkeys(sites)) as grams:
        raise ZeroDivisionError
    base.denoiser(LATENTS, 500, torch.zeros(2, 5, tiny.TEXT_WIDTH))
    assert {gram.rows for gram in grams.values()} == {0}
