"""Style transfer's start and editing's blending, against plain loops."""

from __future__ import annotations

import pytest
import torch

from cidm_cli.method.editing import blended, first_step, noised

GENERATOR = torch.Generator().manual_seed(3)
GIVEN, DRAWN = (torch.randn(2, 3, 4, 5, generator=GENERATOR) for _ in range(2))
MASK = (torch.rand(2, 1, 4, 5, generator=GENERATOR) > 0.5).float()


def test_strength_0_takes_no_step_and_strength_1_all_of_them() -> None:
    for steps in (1, 2, 7, 20, 50):
        assert first_step(0.0, steps) == steps
        assert first_step(1.0, steps) == 0


def test_strength_is_the_share_of_steps_taken_to_the_nearest_step() -> None:
    for steps in (1, 3, 20, 50):
        for percent in range(101):
            taken = steps - first_step(percent / 100, steps)
            assert abs(taken - percent / 100 * steps) <= 0.5
    assert [20 - first_step(s, 20) for s in (0.3, 0.55, 0.7)] == [6, 11, 14], "no share is lost to rounding"


def test_more_strength_never_takes_fewer_steps() -> None:
    taken = [20 - first_step(k / 1000, 20) for k in range(1001)]
    assert taken == sorted(taken)


def test_noised_mixes_signal_and_noise_cell_by_cell() -> None:
    out = noised(GIVEN, DRAWN, 0.8, 3.5)
    for at in ((0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)):
        assert float(out[at]) == pytest.approx(0.8 * float(GIVEN[at]) + 3.5 * float(DRAWN[at]), rel=1e-5)
    assert torch.equal(noised(GIVEN, DRAWN, 1.0, 0.0), GIVEN)


def test_a_binary_mask_takes_each_cell_from_one_side_bit_for_bit() -> None:
    out = blended(DRAWN, GIVEN, MASK)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                wanted = (DRAWN if MASK[b, 0, y, x] else GIVEN)[b, :, y, x]
                assert torch.equal(out[b, :, y, x], wanted)
    assert 0 < int(MASK.sum()) < MASK.numel()


def test_a_soft_mask_mixes_in_proportion() -> None:
    out = blended(DRAWN, GIVEN, torch.full((2, 1, 4, 5), 0.25))
    torch.testing.assert_close(out, 0.25 * DRAWN + 0.75 * GIVEN)
