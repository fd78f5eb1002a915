"""The training objective, Eq. 1 and the noise it is asked about."""

from __future__ import annotations

import pytest
import torch

from cidm_cli.method.objective import denoising_loss, noised, target

GENERATOR = torch.Generator().manual_seed(3)
CLEAN, NOISE, OTHER = (torch.randn(2, 3, 4, 5, generator=GENERATOR, dtype=torch.float64) for _ in range(3))
SIGNAL = torch.tensor([0.9, 0.25], dtype=torch.float64)


def cells() -> list[tuple[int, int, int, int]]:
    return [(b, c, y, x) for b in range(2) for c in range(3) for y in range(4) for x in range(5)]


def test_each_picture_is_noised_by_its_own_signal_share() -> None:
    out = noised("epsilon", CLEAN, NOISE, SIGNAL)
    for b, *cell in cells():
        at = (b, *cell)
        kept = float(SIGNAL[b])
        assert float(out[at]) == pytest.approx(
            kept**0.5 * float(CLEAN[at]) + (1 - kept) ** 0.5 * float(NOISE[at])
        )


def test_full_signal_is_the_clean_picture_and_none_is_the_noise() -> None:
    out = noised("epsilon", CLEAN, NOISE, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert torch.equal(out[0], CLEAN[0])
    assert torch.equal(out[1], NOISE[1])


def test_an_epsilon_base_is_asked_for_the_noise() -> None:
    assert torch.equal(target("epsilon", CLEAN, NOISE, SIGNAL), NOISE)


def test_a_v_base_is_asked_for_v_cell_by_cell() -> None:
    out = target("v_prediction", CLEAN, NOISE, SIGNAL)
    for b, *cell in cells():
        at = (b, *cell)
        kept = float(SIGNAL[b])
        assert float(out[at]) == pytest.approx(
            kept**0.5 * float(NOISE[at]) - (1 - kept) ** 0.5 * float(CLEAN[at])
        )


def test_clean_picture_and_noise_can_be_told_from_the_noised_one_and_v() -> None:
    """z_0 = √ᾱ z_t - √(1-ᾱ) v, and ε = √(1-ᾱ) z_t + √ᾱ v: noised and target agree on signs and shares."""
    z_t, v = noised("epsilon", CLEAN, NOISE, SIGNAL), target("v_prediction", CLEAN, NOISE, SIGNAL)
    kept, lost = SIGNAL.sqrt().view(2, 1, 1, 1), (1 - SIGNAL).sqrt().view(2, 1, 1, 1)
    torch.testing.assert_close(kept * z_t - lost * v, CLEAN)
    torch.testing.assert_close(lost * z_t + kept * v, NOISE)


def test_an_unknown_prediction_type_is_not_taken_for_epsilon() -> None:
    with pytest.raises(ValueError, match="sample"):
        target("sample", CLEAN, NOISE, SIGNAL)


def test_the_loss_is_the_mean_square_over_all_elements() -> None:
    by_hand = sum((float(OTHER[at]) - float(NOISE[at])) ** 2 for at in cells()) / len(cells())
    assert float(denoising_loss(OTHER, NOISE)) == pytest.approx(by_hand)


def test_the_masked_loss_averages_each_picture_over_its_own_weights() -> None:
    mask = torch.rand(2, 1, 4, 5, generator=GENERATOR, dtype=torch.float64)
    mask[1] *= 0.01
    total = 0.0
    for b in range(2):
        weighted = [
            (float(mask[b, 0, y, x]), (float(OTHER[b, c, y, x]) - float(NOISE[b, c, y, x])) ** 2)
            for c in range(3) for y in range(4) for x in range(5)
        ]  # fmt: skip
        total += sum(w * e for w, e in weighted) / sum(w for w, _ in weighted) / 2
    assert float(denoising_loss(OTHER, NOISE, mask)) == pytest.approx(total)


def test_a_mask_of_ones_changes_nothing() -> None:
    ones = torch.ones(2, 1, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(denoising_loss(OTHER, NOISE, ones), denoising_loss(OTHER, NOISE))


def test_what_the_mask_hides_neither_counts_nor_pulls() -> None:
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.float64)
    mask[..., :2] = 1
    prediction = OTHER.clone().requires_grad_()
    denoising_loss(prediction, NOISE, mask).backward()
    assert prediction.grad is not None
    assert not prediction.grad[..., 2:].any()
    assert prediction.grad[..., :2].all()


def test_a_mask_that_hides_everything_gives_no_loss_and_no_nan() -> None:
    assert float(denoising_loss(OTHER, NOISE, torch.zeros(2, 1, 4, 5, dtype=torch.float64))) == 0.0


@pytest.mark.parametrize("masked", [False, True])
def test_the_losss_gradient_is_what_finite_differences_give(masked: bool) -> None:
    mask = torch.rand(2, 1, 4, 5, generator=GENERATOR, dtype=torch.float64) if masked else None
    prediction = OTHER.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: denoising_loss(p, NOISE, mask), (prediction,))
