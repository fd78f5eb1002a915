"""Elastic weight aggregation, Eq. 3, and the forms that stay sharp."""

from __future__ import annotations

import math

import pytest
import torch

from cidm_cli.method.aggregation import (
    FORMS,
    official_weights,
    paper_weights,
    sharp_weights,
    similarities,
)

GENERATOR = torch.Generator().manual_seed(11)
LAYERS, TOKENS, WIDTH = 3, 6, 5
PROMPT = torch.randn(LAYERS, TOKENS, WIDTH, generator=GENERATOR)
COUNTED = [False, True, True, False, True, False]
CONCEPTS = [torch.randn(LAYERS, n, WIDTH, generator=GENERATOR) for n in (2, 1, 3, 2)]
M = torch.tensor([[0.9, 0.3, -0.2, 0.6], [0.1, 0.5, 0.7, 0.2]])


def dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))


def by_hand(layer: int, concept: torch.Tensor, form: str) -> float:
    rows = [PROMPT[layer, k] for k in range(TOKENS) if COUNTED[k]]
    own = list(concept[layer])
    if form == "paper":
        average = sum(own[1:], own[0]) / len(own)
        return max(dot(row, average) for row in rows)
    return sum(max(cosine(row, token) for row in rows) for token in own) / len(own)


@pytest.mark.parametrize("form", FORMS)
def test_each_similarity_is_what_the_equation_says_token_by_token(form: str) -> None:
    out = similarities(PROMPT, COUNTED, CONCEPTS, form=form)
    assert out.shape == (LAYERS, len(CONCEPTS))
    for layer in range(LAYERS):
        for i, concept in enumerate(CONCEPTS):
            assert float(out[layer, i]) == pytest.approx(by_hand(layer, concept, form), abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_one_layer_by_itself_is_what_it_is_among_all(form: str) -> None:
    out = similarities(PROMPT, COUNTED, CONCEPTS, form=form)
    alone = similarities(PROMPT[1], torch.tensor(COUNTED), [c[1] for c in CONCEPTS], form=form)
    torch.testing.assert_close(alone, out[1])


@pytest.mark.parametrize("form", FORMS)
def test_tokens_that_all_layers_share_are_the_same_for_each(form: str) -> None:
    shared = [concept[:1] for concept in CONCEPTS]
    out = similarities(PROMPT, COUNTED, shared, form=form)
    repeated = similarities(PROMPT, COUNTED, [c.repeat(LAYERS, 1, 1) for c in shared], form=form)
    assert torch.equal(out, repeated)


@pytest.mark.parametrize("form", FORMS)
def test_special_and_padding_positions_do_not_count(form: str) -> None:
    other = PROMPT.clone()
    other[:, [not counted for counted in COUNTED]] = 100.0
    out = similarities(other, COUNTED, CONCEPTS, form=form)
    assert torch.equal(out, similarities(PROMPT, COUNTED, CONCEPTS, form=form))


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_concepts_changes_no_concepts_similarity(form: str) -> None:
    out = similarities(PROMPT, COUNTED, CONCEPTS, form=form)
    order = [2, 0, 3, 1]
    turned = similarities(PROMPT, COUNTED, [CONCEPTS[i] for i in order], form=form)
    torch.testing.assert_close(turned, out[:, order])


@pytest.mark.parametrize("form", FORMS)
def test_another_concept_changes_no_concepts_similarity(form: str) -> None:
    out = similarities(PROMPT, COUNTED, CONCEPTS, form=form)
    fewer = similarities(PROMPT, COUNTED, CONCEPTS[:2], form=form)
    torch.testing.assert_close(fewer, out[:, :2])


def test_a_concept_that_stands_in_the_prompt_has_cosine_similarity_one() -> None:
    concept = 3 * PROMPT[:, [4, 1]]
    out = similarities(PROMPT, COUNTED, [concept], form="official")
    torch.testing.assert_close(out, torch.ones(LAYERS, 1))


def test_the_two_forms_differ_in_where_they_average() -> None:
    """Two opposite tokens: averaged first they cancel, averaged last each is found in the prompt."""
    prompt = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    opposite = [torch.tensor([[1.0, 0.0], [-1.0, 0.0]])]
    assert float(similarities(prompt, [True, True], opposite, form="paper")) == 0
    assert float(similarities(prompt, [True, True], opposite, form="official")) == 1


@pytest.mark.parametrize("form", FORMS)
def test_without_tokens_there_is_no_similarity_and_no_nan(form: str) -> None:
    empty = torch.zeros(LAYERS, 0, WIDTH)
    out = similarities(PROMPT, COUNTED, [empty, CONCEPTS[0]], form=form)
    assert not out[:, 0].any()
    torch.testing.assert_close(out[:, 1:], similarities(PROMPT, COUNTED, CONCEPTS[:1], form=form))
    assert not similarities(PROMPT, [False] * TOKENS, CONCEPTS, form=form).any()
    assert similarities(PROMPT, COUNTED, [], form=form).shape == (LAYERS, 0)
    assert similarities(torch.zeros_like(PROMPT), COUNTED, CONCEPTS, form=form).isfinite().all()


def test_an_unknown_form_is_not_taken_for_another() -> None:
    with pytest.raises(ValueError, match="code"):
        similarities(PROMPT, COUNTED, CONCEPTS, form="code")


def test_papers_weights_are_squares_over_the_norm_of_the_squares() -> None:
    out = paper_weights(M)
    for row, wanted in zip(out, M, strict=True):
        squares = [float(m) ** 2 for m in wanted]
        norm = math.sqrt(sum(s * s for s in squares))
        assert row.tolist() == pytest.approx([s / norm for s in squares], abs=1e-6)


@pytest.mark.parametrize("power", [1, 4, 7.5])
def test_official_weights_are_powers_over_their_sum(power: float) -> None:
    out = official_weights(M, power)
    for row, wanted in zip(out, M, strict=True):
        powers = [max(float(m), 0.0) ** power for m in wanted]
        assert row.tolist() == pytest.approx([p / sum(powers) for p in powers], abs=1e-6)
    torch.testing.assert_close(official_weights(M), official_weights(M, 4))


def test_official_weights_dilute_a_named_concept_and_sharp_ones_do_not() -> None:
    for others in (1, 9, 99):
        values = torch.cat([torch.ones(1), torch.full((others,), 0.9)])
        named = torch.tensor([True] + [False] * others)
        assert float(official_weights(values)[0]) == pytest.approx(1 / (1 + others * 0.9**4))
        assert float(sharp_weights(values, named, 4)[0]) == 1


@pytest.mark.parametrize("power", [0.5, 4, 50, math.inf])
@pytest.mark.parametrize("others", [0, 1, 30, 300])
def test_a_named_concept_keeps_exactly_one_and_all_others_together_at_most_that(
    power: float, others: int
) -> None:
    values = torch.rand(LAYERS, 2 + others, generator=torch.Generator().manual_seed(others))
    named = torch.tensor([False, True] + [False] * others)
    out = sharp_weights(values, named, power)
    assert (out[:, 1] == 1).all()
    assert (out >= 0).all()
    assert (out[:, ~named].sum(-1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("power", [1, 4, 9])
@pytest.mark.parametrize("chosen", [[], [3], [0, 2]])
def test_sharp_weights_share_by_powers_one_by_one(power: float, chosen: list[int]) -> None:
    named = torch.tensor([i in chosen for i in range(4)])
    out = sharp_weights(M, named, power)
    for row, values in zip(out.tolist(), M.tolist(), strict=True):
        powers = [max(values[i], 0.0) ** power for i in range(4)]
        total = len(chosen) + sum(powers[i] for i in range(4) if i not in chosen)
        for i in range(4):
            assert row[i] == pytest.approx(1.0 if i in chosen else powers[i] / max(1, total), abs=1e-6)


@pytest.mark.parametrize("chosen", [[], [1], [0, 3]])
def test_the_limit_of_a_large_power_is_named_only(chosen: list[int]) -> None:
    named = torch.tensor([i in chosen for i in range(4)])
    only = named.float().expand_as(M)
    assert torch.equal(sharp_weights(M, named, math.inf), only)
    torch.testing.assert_close(sharp_weights(M, named, 400), only)
    assert only[0].tolist() == [float(i in chosen) for i in range(4)]


def test_the_limit_of_a_large_power_is_the_nearest_concept_in_the_official_form() -> None:
    assert official_weights(M, 1000).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]


def test_rounding_above_one_does_not_blow_up_in_the_limit() -> None:
    out = sharp_weights(torch.tensor([1.0000001, 0.5]), torch.tensor([False, False]), math.inf)
    assert out.tolist() == [1, 0]


def test_weights_follow_their_concepts_in_any_order() -> None:
    order = [3, 1, 0, 2]
    named = torch.tensor([True, False, False, True])
    for weights in (paper_weights, official_weights):
        torch.testing.assert_close(weights(M[:, order]), weights(M)[:, order])
    turned = sharp_weights(M[:, order], named[order], 4)
    torch.testing.assert_close(turned, sharp_weights(M, named, 4)[:, order])


def test_nothing_similar_gives_weights_of_zero_and_no_nan() -> None:
    zeros, nobody = torch.zeros(2, 3), torch.zeros(3, dtype=torch.bool)
    assert torch.equal(paper_weights(zeros), zeros)
    assert torch.equal(official_weights(zeros), zeros)
    assert torch.equal(official_weights(zeros - 1), zeros)
    assert torch.equal(sharp_weights(zeros, nobody, 4), zeros)
    assert torch.equal(sharp_weights(zeros, nobody, math.inf), zeros)
    none = torch.zeros(2, 0)
    assert paper_weights(none).shape == official_weights(none).shape == (2, 0)


def test_small_similarities_do_not_vanish_under_a_large_power() -> None:
    tiny = torch.tensor([1e-12, 2e-12])
    assert official_weights(tiny, 8).tolist() == pytest.approx([1 / 257, 256 / 257])
    assert paper_weights(tiny).tolist() == pytest.approx([1 / math.sqrt(17), 4 / math.sqrt(17)])
