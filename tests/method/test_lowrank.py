"""Low-rank weights and their weighted sum."""

from __future__ import annotations

import pytest
import torch

from cidm_cli.method.lowrank import delta, free, weighted_sum

GENERATOR = torch.Generator().manual_seed(5)
UP, DOWN = torch.randn(6, 2, generator=GENERATOR), torch.randn(2, 4, generator=GENERATOR)
DELTAS = [torch.randn(6, 4, generator=GENERATOR) for _ in range(3)]


def test_delta_is_scale_times_up_times_down_entry_by_entry() -> None:
    out = delta(UP, DOWN, 0.75)
    assert out.shape == (6, 4)
    for row in range(6):
        for column in range(4):
            by_hand = 0.75 * sum(float(UP[row, k]) * float(DOWN[k, column]) for k in range(2))
            assert float(out[row, column]) == pytest.approx(by_hand, abs=1e-6)


def test_delta_of_half_precision_factors_is_multiplied_in_float32() -> None:
    out = delta(UP.half(), DOWN.half(), 1.0)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, UP.half().float() @ DOWN.half().float())


def test_deltas_gradients_are_what_finite_differences_give() -> None:
    up, down, pull = UP.clone().requires_grad_(), DOWN.clone().requires_grad_(), DELTAS[0]
    (delta(up, down, 0.75) * pull).sum().backward()
    step = 0.5  # the product is linear in each factor: any step is exact but for rounding
    for factor, grad in ((UP, up.grad), (DOWN, down.grad)):
        assert grad is not None
        for row in range(factor.shape[0]):
            for column in range(factor.shape[1]):
                nudge = torch.zeros_like(factor)
                nudge[row, column] = step
                sides = [
                    (
                        delta(UP + sign * nudge, DOWN, 0.75)
                        if factor is UP
                        else delta(UP, DOWN + sign * nudge, 0.75)
                    )
                    for sign in (1, -1)
                ]
                slope = ((sides[0] - sides[1]) * pull).sum() / (2 * step)
                torch.testing.assert_close(grad[row, column], slope, rtol=1e-4, atol=1e-4)


def test_weighted_sum_is_taken_entry_by_entry() -> None:
    out = weighted_sum(DELTAS, [0.5, -2.0, 3.0])
    for row in range(6):
        for column in range(4):
            one, two, three = (float(d[row, column]) for d in DELTAS)
            assert float(out[row, column]) == pytest.approx(0.5 * one - 2.0 * two + 3.0 * three, abs=1e-5)


def test_one_concept_at_weight_one_comes_back_unchanged_to_the_bit() -> None:
    assert torch.equal(weighted_sum(DELTAS[:1], [1.0]), DELTAS[0])


def test_concepts_at_weight_zero_leave_the_named_one_unchanged_to_the_bit() -> None:
    assert torch.equal(weighted_sum(DELTAS, [1.0, 0.0, 0.0]), DELTAS[0])


def test_the_deltas_themselves_are_not_changed() -> None:
    before = [d.clone() for d in DELTAS]
    weighted_sum(DELTAS, [2.0, 3.0, 4.0])
    assert all(torch.equal(a, b) for a, b in zip(before, DELTAS, strict=True))


def test_a_missing_weight_is_refused_and_not_left_out() -> None:
    with pytest.raises(ValueError, match="shorter"):
        weighted_sum(DELTAS, [1.0, 1.0])


def test_each_concept_takes_of_the_room_what_it_adds() -> None:
    up, other = torch.randn(9, 3, generator=GENERATOR), torch.randn(9, 2, generator=GENERATOR)
    assert free([up]) == 6
    assert free([up, other]) == 4
    assert free([up, other, up[:, :1] + up[:, 1:2], torch.zeros(9, 2)]) == 4
    assert free([torch.randn(9, 4, generator=GENERATOR) for _ in range(5)]) == 0
