"""Attention that keeps concepts of one text apart, against merged weights and plain arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
from cidm_cli.method.routing import routed, token_parts
from cidm_cli.models.attention import cross_attention_layers, layer_contexts, lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.family import Own, Routing, Rows, Source
from cidm_cli.models.lora import merged
from cidm_cli.models.routing import arranged, cached, predict

T = torch.tensor(500)
WORDS = torch.tensor([[0.0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]])
LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def text(base: Base, sites: tuple[str, ...], seed: int = 1, words: torch.Tensor = WORDS) -> Source:
    """A text of six rows in which two concepts with weights of these sites stand."""
    generator = torch.Generator().manual_seed(0)
    factors = [
        {
            site: (
                0.1 * torch.randn(base.shapes[site][0], rank, generator=generator),
                torch.randn(rank, base.shapes[site][1], generator=generator),
            )
            for site in sites
        }
        for rank in (2, 3)
    ]
    generator.manual_seed(seed)
    contexts = [torch.randn(6, tiny.TEXT_WIDTH, generator=generator) for _ in base.layers]
    own = tuple(Own(*one) for one in zip(factors, words, token_parts(words), strict=True))
    return Source(contexts, {}, None, own)


def drawn(base: Base, source: Source, routing: Routing | None = None) -> torch.Tensor:
    rows = arranged(base, cached(base, [source]), Rows((0, 0), (), torch.zeros, routing), (8, 8))
    with torch.no_grad():
        return predict(base, LATENTS, T, rows)


def with_merged(base: Base, source: Source, *concepts: int) -> torch.Tensor:
    """What the UNet predicts with some concepts' weights in it."""
    deltas = {
        site: sum(
            (source.own[k].factors[site][0] @ source.own[k].factors[site][1] for k in concepts),
            torch.zeros(base.shapes[site]),
        )
        for site in source.own[0].factors
    }
    contexts = [context[None].expand(2, -1, -1) for context in source.contexts]
    with merged(base.denoiser, deltas), layer_contexts(base.denoiser, contexts), torch.no_grad():
        return base.denoiser(LATENTS, T, contexts[0]).sample


@pytest.mark.parametrize("targets", ["attn2", "attn1+attn2", "all that a LoRA may change"])
def test_concepts_that_act_everywhere_are_the_unet_with_all_merged(base: Base, targets: str) -> None:
    sites = tuple(base.shapes) if " " in targets else lora_sites(base.denoiser, targets)
    source = text(base, sites)
    everywhere = replace(source, own=tuple(replace(one, rows=torch.ones(6)) for one in source.own))
    wanted = with_merged(base, source, 0, 1)
    torch.testing.assert_close(drawn(base, everywhere), wanted, rtol=1e-3, atol=3e-4)
    all_cells = Routing((0, 1), lambda maps: (torch.ones_like(maps), torch.zeros_like(maps)))
    torch.testing.assert_close(drawn(base, everywhere, all_cells), wanted, rtol=1e-3, atol=3e-4)
    assert (with_merged(base, source, 0) - wanted).abs().max() > 0.01, "the weights matter"


def test_keys_and_values_are_changed_in_each_concepts_rows(base: Base) -> None:
    source = text(base, lora_sites(base.denoiser))
    cache = cached(base, [source])
    for layer, name in enumerate(cross_attention_layers(base.denoiser)):
        for leaf, found in (("to_k", cache.texts[name].keys), ("to_v", cache.texts[name].values)):
            pairs = [one.factors[f"{name}.{leaf}"] for one in source.own]
            wanted = routed(
                source.contexts[layer], base.denoiser.get_submodule(f"{name}.{leaf}").weight,
                [up @ down for up, down in pairs], token_parts(WORDS),
            )  # fmt: skip
            torch.testing.assert_close(found[0].transpose(0, 1).flatten(1), wanted, rtol=1e-3, atol=1e-4)


def test_a_concept_that_gets_no_cell_is_not_drawn(base: Base) -> None:
    sites = tuple(s for s in lora_sites(base.denoiser) if s.endswith(("to_q", "to_out.0")))
    source = text(base, sites)
    first = torch.tensor([1.0, 0.0])[:, None, None]
    routing = Routing((0, 1), lambda maps: (first.expand_as(maps), torch.zeros_like(maps)))
    torch.testing.assert_close(
        drawn(base, source, routing), with_merged(base, source, 0), rtol=1e-3, atol=3e-4
    )


def test_a_row_follows_the_one_that_tells_it_and_attention_is_what_is_told(base: Base) -> None:
    seen = []

    def decide(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(maps)
        return torch.ones_like(maps), torch.zeros_like(maps)

    drawn(base, text(base, lora_sites(base.denoiser)), Routing((1, 1), decide))
    assert len(seen) == len(base.layers)
    for maps in seen:
        assert maps.shape[:2] == (2, 2)
        torch.testing.assert_close(maps[0], maps[1])
        # The mean over a concept's tokens: the first has one of six, the second two.
        assert ((maps[:, 0] + 2 * maps[:, 1]) < 1).all()
        assert (maps > 0).all()


def test_withheld_words_are_hardly_looked_at(base: Base) -> None:
    source = text(base, lora_sites(base.denoiser))
    nothing = Routing((0, 1), lambda maps: (torch.ones_like(maps), torch.full_like(maps, 1000.0)))
    contexts = [torch.where(WORDS.sum(0)[:, None] > 0, 1.0, context) for context in source.contexts]
    torch.testing.assert_close(
        drawn(base, source, nothing), drawn(base, replace(source, contexts=contexts), nothing), rtol=1e-3, atol=3e-4
    )  # fmt: skip
    assert (drawn(base, source) - drawn(base, replace(source, contexts=contexts))).abs().max() > 0.01
