"""Static merges of low-rank weights, against dense matrices and least squares."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from cidm_cli.method.fusion import concatenated, energy, fused, rank_axes, strayed, truncated

GENERATOR = torch.Generator().manual_seed(8)
OUT, IN = 7, 6


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


CONCEPTS = [(normal(OUT, r), normal(r, IN)) for r in (2, 1, 3)]
FEATURES = [normal(IN, n) for n in (9, 20, 4)]
REGULAR = normal(IN, 15)


def merge(
    features: Sequence[torch.Tensor],
    regular: torch.Tensor,
    concepts: Sequence[tuple[torch.Tensor, torch.Tensor]] = CONCEPTS,
    preserve: float = 0.0,
    **options: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    grams = [X @ X.T for X in features]
    seen = [down @ C for (_, down), C in zip(concepts, grams, strict=True)]
    width = features[0].shape[0]
    return fused(
        [up for up, _ in concepts], seen, sum(grams, torch.zeros(width, width)), regular, preserve, **options
    )


def least_squares(preserve: float, ridge: float) -> torch.Tensor:
    """D of the same objective by stacking every feature: no Gram matrix, no factor."""
    inputs = torch.cat(
        [*FEATURES, (len(CONCEPTS) * preserve) ** 0.5 * REGULAR, ridge**0.5 * torch.eye(IN)], 1
    )
    wanted = [up @ down @ X for (up, down), X in zip(CONCEPTS, FEATURES, strict=True)]
    outputs = torch.cat([*wanted, torch.zeros(OUT, REGULAR.shape[1] + IN)], 1)
    return torch.linalg.lstsq(inputs.T, outputs.T, driver="gelsd").solution.T


# Concatenation


def test_concatenated_factors_multiply_to_the_weighted_sum() -> None:
    up, down = concatenated([(*pair, w) for pair, w in zip(CONCEPTS, (1.0, -0.5, 2.0), strict=True)])
    assert up.shape == (OUT, 6)
    assert down.shape == (6, IN)
    products = [up @ down for up, down in CONCEPTS]
    torch.testing.assert_close(up @ down, products[0] - 0.5 * products[1] + 2 * products[2])


def test_one_concept_at_weight_one_comes_back_to_the_bit() -> None:
    up, down = concatenated([(*CONCEPTS[0], 1.0)])
    assert torch.equal(up, CONCEPTS[0][0])
    assert torch.equal(down, CONCEPTS[0][1])


# Fusion in closed form


@pytest.mark.parametrize("preserve", [0.0, 0.1, 5.0])
@pytest.mark.parametrize("ridge", [1e-9, 0.3])
def test_the_closed_form_is_the_least_squares_solution(preserve: float, ridge: float) -> None:
    regular = REGULAR @ REGULAR.T
    up, down = merge(FEATURES, regular, preserve=preserve, ridge=ridge)
    assert up.shape[1] == down.shape[0] == 6, "a LoRA of rank Σ r_i"
    total = sum((X @ X.T for X in FEATURES), len(CONCEPTS) * preserve * regular)
    expected = least_squares(preserve, ridge * float(total.trace()) / IN)
    torch.testing.assert_close(up @ down, expected, rtol=1e-6, atol=1e-8)


def test_one_concept_alone_comes_back_from_any_features_of_full_rank() -> None:
    for features in (
        FEATURES[0],
        1e-3 * FEATURES[1],
        FEATURES[0] * torch.tensor([[1], [9], [1], [1], [5], [1]]),
    ):
        up, down = merge([features], torch.zeros(IN, IN), CONCEPTS[:1], ridge=1e-12)
        torch.testing.assert_close(up @ down, CONCEPTS[0][0] @ CONCEPTS[0][1], rtol=1e-6, atol=1e-8)


def test_concepts_whose_features_are_orthogonal_each_get_all_of_theirs() -> None:
    basis = torch.linalg.qr(normal(IN, IN))[0]
    features = [basis[:, :3] @ normal(3, 8), basis[:, 3:5] @ normal(2, 8)]
    up, down = merge(features, torch.zeros(IN, IN), CONCEPTS[:2], ridge=1e-12)
    for (own_up, own_down), X in zip(CONCEPTS[:2], features, strict=True):
        torch.testing.assert_close(up @ down @ X, own_up @ own_down @ X, rtol=1e-6, atol=1e-8)


def test_what_no_feature_shows_is_left_as_it_was() -> None:
    basis = torch.linalg.qr(normal(IN, IN))[0]
    up, down = merge([basis[:, :3] @ normal(3, 8)], torch.zeros(IN, IN), CONCEPTS[:1])
    # With a ridge of 1e-6 the system has a condition of some 1e7, and rounding is magnified by as much.
    torch.testing.assert_close(
        up @ down @ basis[:, 3:], torch.zeros(OUT, 3, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_regular_features_are_left_alone_the_more_the_heavier_they_weigh() -> None:
    gram = REGULAR @ REGULAR.T
    moved = []
    for preserve in (0.0, 0.1, 1.0, 100.0):
        up, down = merge(FEATURES, gram, preserve=preserve)
        moved.append(float((up @ down @ REGULAR).norm()))
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 0.1 * moved[0]


@pytest.mark.parametrize("count", [10, 100])
def test_what_is_preserved_does_not_fade_with_the_number_of_concepts(count: int) -> None:
    """The same concept again and again: one weight serves them all, and leaves as much alone as one would."""
    gram = REGULAR @ REGULAR.T
    up, down = merge(FEATURES[:1], gram, CONCEPTS[:1], preserve=0.1)
    ups, downs = merge(FEATURES[:1] * count, gram, CONCEPTS[:1] * count, preserve=0.1)
    torch.testing.assert_close(ups @ downs, up @ down)
    free_up, free_down = merge(FEATURES[:1], gram, CONCEPTS[:1])
    assert (up @ down @ REGULAR).norm() < 0.9 * (free_up @ free_down @ REGULAR).norm()


def test_two_concepts_that_want_different_things_of_one_feature_meet_in_the_middle() -> None:
    x = normal(IN, 1)
    up, down = merge([x, x], torch.zeros(IN, IN), CONCEPTS[:2], ridge=1e-12)
    both = (CONCEPTS[0][0] @ CONCEPTS[0][1] + CONCEPTS[1][0] @ CONCEPTS[1][1]) / 2
    torch.testing.assert_close(up @ down @ x, both @ x, rtol=1e-6, atol=1e-8)


def test_a_concept_without_weights_here_still_has_its_features_left_alone() -> None:
    nothing = (torch.zeros(OUT, 0, dtype=torch.float64), torch.zeros(0, IN, dtype=torch.float64))
    basis = torch.linalg.qr(normal(IN, IN))[0]
    features = [basis[:, :4] @ normal(4, 9), basis[:, 3:] @ normal(3, 9)]
    alone = merge(features[:1], torch.zeros(IN, IN), CONCEPTS[:1])
    beside = merge(features, torch.zeros(IN, IN), [CONCEPTS[0], nothing])
    assert beside[0].shape[1] == 2
    assert (beside[0] @ beside[1] @ features[1]).norm() < 0.9 * (alone[0] @ alone[1] @ features[1]).norm()


def test_features_that_are_all_zero_give_no_weight_and_no_fault() -> None:
    up, down = merge([0 * normal(IN, 4)], torch.zeros(IN, IN), CONCEPTS[:1])
    assert not (up @ down).any()


def test_the_fused_factors_keep_the_precision_of_the_ups() -> None:
    concepts = [(up.float(), down) for up, down in CONCEPTS]
    up, down = merge(FEATURES, torch.zeros(IN, IN), concepts)
    assert up.dtype == down.dtype == torch.float32


# Rank-space


WIDE = 20
LOW = [(normal(OUT, r), normal(r, WIDE)) for r in (2, 1, 3)]
SHOWN = [normal(WIDE, n) for n in (30, 50, 25)]


def in_rank_space(
    concepts: Sequence[tuple[torch.Tensor, torch.Tensor]], regular: torch.Tensor, preserve: float
):  # type: ignore[no-untyped-def]
    """D by way of k × k statistics."""
    Q = rank_axes([down for _, down in concepts])
    up, down = merge(
        [Q @ X for X in SHOWN], Q @ regular @ Q.T, [(u, d @ Q.T) for u, d in concepts], preserve, ridge=1e-12
    )
    return up @ down @ Q


@pytest.mark.parametrize("preserve", [0.0, 0.3])
def test_rank_space_is_the_dense_least_squares_solution_over_all_products_of_the_factors(
    preserve: float,
) -> None:
    """Entry by entry of R in D = A R B, with no axes and no Gram matrix."""
    A, B = torch.cat([up for up, _ in LOW], 1), torch.cat([down for _, down in LOW])
    weight, extra = (len(LOW) * preserve) ** 0.5, normal(WIDE, 15)
    inputs = torch.cat([*SHOWN, weight * extra], 1)
    outputs = torch.cat([up @ down @ X for (up, down), X in zip(LOW, SHOWN, strict=True)], 1)
    outputs = torch.cat([outputs, torch.zeros(OUT, 15)], 1)
    design = torch.kron(A, (B @ inputs).T.contiguous())  # vec(A R B X), row by row
    R = torch.linalg.lstsq(design, outputs.reshape(-1, 1), driver="gelsd").solution.reshape(6, 6)
    torch.testing.assert_close(in_rank_space(LOW, extra @ extra.T, preserve), A @ R @ B, rtol=1e-6, atol=1e-8)


def test_rank_space_of_rows_that_span_the_input_is_the_dense_merge() -> None:
    many = [(normal(OUT, 4), normal(4, WIDE)) for _ in range(7)]
    shown = [SHOWN[k % 3] for k in range(7)]
    Q = rank_axes([down for _, down in many])
    assert Q.shape == (WIDE, WIDE)
    up, down = merge([Q @ X for X in shown], torch.zeros(WIDE, WIDE), [(u, d @ Q.T) for u, d in many])
    dense = merge(shown, torch.zeros(WIDE, WIDE), many)
    torch.testing.assert_close(up @ down @ Q, dense[0] @ dense[1], rtol=1e-6, atol=1e-8)


def test_axes_are_orthonormal_and_no_wider_than_the_concepts_together() -> None:
    Q = rank_axes([down for _, down in LOW])
    assert Q.shape == (6, WIDE)
    torch.testing.assert_close(Q @ Q.T, torch.eye(6, dtype=torch.float64))
    for _, down in LOW:
        torch.testing.assert_close(down @ Q.T @ Q, down)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_how_far_a_merge_strays_is_what_the_features_say(weight: float) -> None:
    grams = [X @ X.T for X in FEATURES]
    seen = [down @ C for (_, down), C in zip(CONCEPTS, grams, strict=True)]
    merged = concatenated([(*pair, weight) for pair in CONCEPTS])
    far, own = strayed(
        merged, [c[0] for c in CONCEPTS], [c[1] for c in CONCEPTS], seen,
        sum(grams, torch.zeros(IN, IN, dtype=torch.float64)),
    )  # fmt: skip
    D = merged[0] @ merged[1]
    by_hand = sum(
        float(((up @ down - D) @ X).square().sum()) for (up, down), X in zip(CONCEPTS, FEATURES, strict=True)
    )
    whole = sum(
        float((up @ down @ X).square().sum()) for (up, down), X in zip(CONCEPTS, FEATURES, strict=True)
    )
    assert far == pytest.approx(by_hand)
    assert own == pytest.approx(whole)


# Rank


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_truncation_is_the_singular_value_decomposition_of_the_product(rank: int) -> None:
    up, down = concatenated([(*pair, 1.0) for pair in CONCEPTS])
    short = truncated(up, down, rank)
    assert short[0].shape == (OUT, rank)
    assert short[1].shape == (rank, IN)
    U, values, Vt = torch.linalg.svd(up @ down)
    expected = U[:, :rank] @ torch.diag(values[:rank]) @ Vt[:rank]
    torch.testing.assert_close(short[0] @ short[1], expected)
    of_matrix = truncated(torch.eye(OUT, dtype=torch.float64), up @ down, rank)
    torch.testing.assert_close(of_matrix[0] @ of_matrix[1], expected)
    lost = 1 - energy(*short) / energy(up, down)
    assert lost == pytest.approx(float(values[rank:].square().sum() / values.square().sum()))


@pytest.mark.parametrize("columns", [2, 6, 12])
def test_a_rank_that_loses_nothing_gives_the_product_back(columns: int) -> None:
    """Also where the factors hold more columns than the matrix has rows."""
    up, down = normal(OUT, columns), normal(columns, IN)
    short = truncated(up, down, 50)
    assert short[0].shape[1] == min(columns, IN)
    torch.testing.assert_close(short[0] @ short[1], up @ down)


def test_weights_that_are_all_zero_are_truncated_to_zero() -> None:
    up, down = truncated(torch.zeros(OUT, 3), normal(3, IN).float(), 2)
    assert up.dtype == torch.float32
    assert not (up @ down).any()


def test_energy_is_the_squared_norm_of_the_product() -> None:
    up, down = CONCEPTS[2]
    assert energy(up.float(), down.float()) == pytest.approx(float((up @ down).square().sum()), rel=1e-5)
