"""What the baselines add to Eq. 1, entry by entry."""

from __future__ import annotations

import pytest
import torch

from cidm_cli.method.baselines import (
    accumulated,
    anchored,
    distillation,
    fisher_diagonal,
    self_regularisation,
)

GENERATOR = torch.Generator().manual_seed(11)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


THETA, ANCHOR = [random(3, 2), random(2, 4)], [random(3, 2), random(2, 4)]
FISHER = [random(3, 2).square(), random(2, 4).square()]
FACTORS = {"one": (random(3, 2), random(2, 4)), "two": (random(5, 1), random(1, 2))}
OLDER = {"one": random(3, 4), "two": random(5, 2)}


# EWC


def test_the_fisher_information_is_the_mean_of_squares_and_not_the_square_of_the_mean() -> None:
    draws = [[random(3, 2), random(4)] for _ in range(5)]
    out = fisher_diagonal(iter(draws))
    for number, tensor in enumerate(out):
        for place in range(tensor.numel()):
            squares = [float(draw[number].flatten()[place]) ** 2 for draw in draws]
            assert float(tensor.flatten()[place]) == pytest.approx(sum(squares) / 5)


def test_opposite_gradients_do_not_cancel_in_the_fisher_information() -> None:
    gradient = random(3)
    torch.testing.assert_close(fisher_diagonal([[gradient], [-gradient]])[0], gradient.square())


def test_a_fisher_information_of_no_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="draw"):
        fisher_diagonal([])


def test_the_fisher_information_of_all_concepts_is_their_sum() -> None:
    assert all(a.equal(b) for a, b in zip(accumulated([], FISHER), FISHER, strict=True))
    both = accumulated(FISHER, [f * 2 for f in FISHER])
    for total, one in zip(both, FISHER, strict=True):
        torch.testing.assert_close(total, one * 3)


def test_a_fisher_information_of_fewer_layers_is_not_silently_cut() -> None:
    with pytest.raises(ValueError, match="argument"):
        accumulated(FISHER[:1], FISHER)
    with pytest.raises(ValueError, match="argument"):
        anchored(THETA, ANCHOR, FISHER[:1])


def test_ewc_is_half_the_weighted_squared_distance_number_by_number() -> None:
    total = 0.0
    for theta, anchor, fisher in zip(THETA, ANCHOR, FISHER, strict=True):
        for t, a, f in zip(theta.flatten(), anchor.flatten(), fisher.flatten(), strict=True):
            total += float(f) * (float(t) - float(a)) ** 2 / 2
    assert float(anchored(THETA, ANCHOR, FISHER)) == pytest.approx(total)


def test_ewc_is_nothing_where_theta_has_not_moved_or_does_not_matter() -> None:
    assert float(anchored(THETA, THETA, FISHER)) == 0
    assert float(anchored(THETA, ANCHOR, [torch.zeros_like(f) for f in FISHER])) == 0


def test_ewcs_gradient_is_what_finite_differences_give() -> None:
    inputs = [t.clone().requires_grad_() for t in THETA]
    assert torch.autograd.gradcheck(lambda *theta: anchored(theta, ANCHOR, FISHER), inputs)


# LwF


def test_distillation_is_the_mean_square_over_all_elements() -> None:
    now, before = random(2, 3, 2, 2), random(2, 3, 2, 2)
    pairs = zip(now.flatten(), before.flatten(), strict=True)
    by_hand = sum((float(a) - float(b)) ** 2 for a, b in pairs) / now.numel()
    assert float(distillation(now, before)) == pytest.approx(by_hand)


def test_distillation_pulls_the_new_model_and_never_the_old_one() -> None:
    now, before = random(2, 3).requires_grad_(), random(2, 3).requires_grad_()
    distillation(now, before).backward()
    assert now.grad is not None
    assert now.grad.abs().sum() > 0
    assert before.grad is None
    assert torch.autograd.gradcheck(lambda n: distillation(n, before), (now,))


# C-LoRA


def test_self_regularisation_is_summed_over_entries_and_averaged_over_sites() -> None:
    total = 0.0
    for site, (up, down) in FACTORS.items():
        for row in range(up.shape[0]):
            for column in range(down.shape[1]):
                product = sum(float(up[row, k]) * float(down[k, column]) for k in range(up.shape[1]))
                total += (abs(float(OLDER[site][row, column])) * 0.5 * product) ** 2
    assert float(self_regularisation(FACTORS, OLDER, 0.5)) == pytest.approx(total / 2)


def test_self_regularisation_neither_counts_nor_pulls_where_older_weights_are_zero() -> None:
    up, down = random(3, 2).requires_grad_(), random(2, 4).requires_grad_()
    older = random(3, 4)
    older[1:] = 0
    self_regularisation({"one": (up, down)}, {"one": older}, 1.0).backward()
    assert up.grad is not None
    assert up.grad[0].abs().sum() > 0
    assert up.grad[1:].abs().sum() == 0
    assert float(self_regularisation({"one": FACTORS["one"]}, {"one": older * 0}, 1.0)) == 0


def test_a_site_no_older_concept_has_counts_as_zero_in_the_mean() -> None:
    both = self_regularisation(FACTORS, {"one": OLDER["one"]}, 1.0)
    alone = self_regularisation({"one": FACTORS["one"]}, OLDER, 1.0)
    torch.testing.assert_close(both, alone / 2)
    with pytest.raises(ValueError, match="sites"):
        self_regularisation(FACTORS, {"three": OLDER["one"]}, 1.0)


def test_self_regularisations_gradient_is_what_finite_differences_give() -> None:
    up, down = (t.clone().requires_grad_() for t in FACTORS["one"])
    assert torch.autograd.gradcheck(lambda u, d: self_regularisation({"one": (u, d)}, OLDER, 0.5), (up, down))
