"""Style transfer's start and editing's blending, against plain loops."""

from __future__ import annotations

import itertools

import pytest
import torch

from cidm_cli.method.editing import blended, first_step, less_clean, noise_in, noised, varied

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


LEVELS = ((1.0, 0.0), (0.96, 0.28), (0.8, 0.6), (0.28, 0.96))


def told(kind: str, clean: torch.Tensor, noise: torch.Tensor, signal: float, spread: float) -> torch.Tensor:
    return noise if kind == "epsilon" else signal * noise - spread * clean


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_going_backwards_keeps_the_predicted_picture_and_noise_at_every_level(kind: str) -> None:
    """A prediction that is right of both stays so up to the noisiest level, where the noise is found again."""
    latents = GIVEN
    for at, to in itertools.pairwise(LEVELS):
        latents = less_clean(latents, told(kind, GIVEN, DRAWN, *at), kind, at, to)
        torch.testing.assert_close(latents, to[0] * GIVEN + to[1] * DRAWN, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(noise_in(latents, GIVEN, *LEVELS[-1]), DRAWN, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_step_backwards_undoes_ddims_step_forwards(kind: str) -> None:
    prediction = torch.randn(GIVEN.shape, generator=torch.Generator().manual_seed(9))
    near, far = LEVELS[1], LEVELS[2]
    latents = less_clean(GIVEN, prediction, kind, near, far)
    # Forwards: what the prediction makes of the nearer latents, mixed anew at the nearer level.
    noise = prediction if kind == "epsilon" else near[1] * GIVEN + near[0] * prediction
    clean = (latents - far[1] * noise) / far[0]
    torch.testing.assert_close(near[0] * clean + near[1] * noise, GIVEN, rtol=1e-4, atol=1e-5)


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        less_clean(GIVEN, DRAWN, "sample", LEVELS[1], LEVELS[2])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_varied_noise_is_near_and_of_the_same_variance(share: float) -> None:
    one, other = (torch.randn(100_000, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    out = varied(one, other, share)
    assert float(out.std()) == pytest.approx(1, abs=0.02)
    assert float((out * one).mean()) == pytest.approx((1 - share**2) ** 0.5, abs=0.02)
    assert float((out * other).mean()) == pytest.approx(share, abs=0.02)


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
