"""Concept consolidation as printed: its R1 and R2, Eq. 6 and Eq. 7, and why it is not the default."""

from __future__ import annotations

import pytest
import torch

from cidm_cli.method.consolidation import Factors
from cidm_cli.method.literal import (
    LiteralConsolidation,
    descended,
    literal_energy,
    literal_gradients,
    literal_overlap,
)

SHAPES = {"q": (5, 5), "k": (5, 4), "out": (3, 6)}
RATE = 0.02


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def concept(seed: int, rank: int = 2) -> dict[str, Factors]:
    return {
        site: (random(height, rank, seed=100 * seed + n), random(rank, width, seed=100 * seed + n + 50))
        for n, (site, (height, width)) in enumerate(SHAPES.items())
    }


OLDER: list[tuple[dict[str, Factors], float]] = [
    (concept(1), 1.0),
    ({site: pair for site, pair in concept(2).items() if site != "out"}, 0.5),
]
NEW, SCALE = concept(9), 0.75
DELTAS, OWN, SHARED = random(3, 5, 4, seed=1), random(3, 5, 5, seed=2), random(5, 4, seed=3)


def consolidation(older: list[tuple[dict[str, Factors], float]] = OLDER) -> LiteralConsolidation:
    return LiteralConsolidation(older, SHAPES, rate=RATE, device="cpu")


def owners(site: str) -> list[tuple[Factors, float]]:
    return [(factors[site], scale) for factors, scale in OLDER if site in factors]


def dense(pair: Factors, scale: float) -> torch.Tensor:
    return scale * pair[0] @ pair[1]


def total(deltas: torch.Tensor, own: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """R2 of one site, concept by concept."""
    return torch.stack([(d - h @ shared).square().sum() for d, h in zip(deltas, own, strict=True)]).sum()


def test_r1_is_the_mean_absolute_entry_of_up_times_up_transposed() -> None:
    older, up = random(2, 4, 3), random(4, 3, seed=1)
    by_hand = 0.0
    for one in older:
        for row in one:
            for other in up:
                by_hand += abs(sum(float(row[k]) * float(other[k]) for k in range(3))) / 16
    assert float(literal_overlap(older, up)) == pytest.approx(by_hand)


def test_r1_punishes_the_size_of_orthogonal_weights_and_so_does_not_measure_overlap() -> None:
    basis = torch.linalg.qr(random(6, 6)).Q
    older, apart = basis[None, :, :2], basis[:, 2:4]
    assert literal_overlap(older, apart) > 0.01
    torch.testing.assert_close(literal_overlap(older, apart / 10), literal_overlap(older, apart) / 10)


def test_r2_is_the_squared_distance_entry_by_entry() -> None:
    energy = literal_energy(DELTAS, OWN, SHARED)
    for concept_number in range(3):
        by_hand = 0.0
        for row in range(5):
            for column in range(4):
                product = sum(float(OWN[concept_number, row, k]) * float(SHARED[k, column]) for k in range(5))
                by_hand += (float(DELTAS[concept_number, row, column]) - product) ** 2
        assert float(energy[concept_number]) == pytest.approx(by_hand)


def test_a_free_dense_h_makes_r2_vanish_whatever_the_concept_is() -> None:
    """Why the default bounds the rank of what is shared: W_* with a wide row space constrains nothing."""
    for delta in DELTAS:
        H = torch.linalg.lstsq(SHARED.T, delta.T).solution.T
        assert float(literal_energy(delta, H, SHARED)) < 1e-20


def test_gradients_of_eq_6_are_what_autograd_and_finite_differences_give() -> None:
    own, shared = OWN.clone().requires_grad_(), SHARED.clone().requires_grad_()
    wanted = torch.autograd.grad(total(DELTAS, own, shared), (own, shared))
    for mine, theirs in zip(literal_gradients(DELTAS, OWN, SHARED), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.autograd.gradcheck(lambda h, w: literal_energy(DELTAS, h, w), (own, shared))


def test_the_gradient_of_what_is_shared_sums_over_every_concept() -> None:
    _, whole = literal_gradients(DELTAS, OWN, SHARED)
    parts = [literal_gradients(DELTAS[i : i + 1], OWN[i : i + 1], SHARED)[1] for i in range(3)]
    torch.testing.assert_close(whole, parts[0] + parts[1] + parts[2])


def test_step_two_descends_and_with_the_printed_sign_it_would_ascend() -> None:
    start = total(DELTAS, OWN, SHARED)
    assert total(DELTAS, *descended(DELTAS, OWN, SHARED, 1e-3)) < start
    assert total(DELTAS, *descended(DELTAS, OWN, SHARED, -1e-3)) > start


def test_every_h_starts_as_the_identity_and_w_as_the_older_concepts_mean() -> None:
    state = consolidation().state()
    for number, (site, (height, _)) in enumerate(SHAPES.items()):
        here = owners(site)
        mean = sum(dense(pair, scale) for pair, scale in here) / len(here)
        torch.testing.assert_close(state[f"shared.{number}"], mean)
        eye = torch.eye(height, dtype=torch.float64)
        assert torch.equal(state[f"own.{number}"], eye.expand(len(here) + 1, -1, -1))


def test_terms_are_the_mean_over_pairs_and_the_sum_over_sites() -> None:
    terms = consolidation()
    terms.stepped(1, concept(8), SCALE)
    state, out = terms.state(), terms.terms(NEW, SCALE)
    pairs, energy = [], 0.0
    for number, (site, (up, down)) in enumerate(NEW.items()):
        pairs += [float((older @ up.T).abs().mean()) for (older, _), _ in owners(site)]
        left = dense((up, down), SCALE) - state[f"own.{number}"][-1] @ state[f"shared.{number}"]
        energy += float(left.square().sum())
    assert float(out.overlap) == pytest.approx(sum(pairs) / len(pairs))
    assert float(out.unshared) == pytest.approx(energy)


def test_gradients_of_the_terms_are_what_finite_differences_give() -> None:
    terms, names = consolidation(), list(NEW)
    flat = [factor.clone().requires_grad_() for pair in NEW.values() for factor in pair]

    def both(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = terms.terms(dict(zip(names, zip(given[::2], given[1::2], strict=True), strict=True)), SCALE)
        return out.overlap, out.unshared

    assert torch.autograd.gradcheck(both, flat)


def test_each_step_takes_one_gradient_step_with_all_concepts() -> None:
    terms = consolidation()
    before = terms.state()
    terms.stepped(1, NEW, SCALE)
    after = terms.state()
    for number, site in enumerate(SHAPES):
        deltas = torch.stack([dense(pair, scale) for pair, scale in [*owners(site), (NEW[site], SCALE)]])
        own, shared = before[f"own.{number}"], before[f"shared.{number}"]
        rest = deltas - own @ shared
        torch.testing.assert_close(after[f"own.{number}"], own + RATE * 2 * rest @ shared.T)
        torch.testing.assert_close(after[f"shared.{number}"], shared + RATE * 2 * (own.mT @ rest).sum(0))


def test_steps_bring_the_concepts_closer_to_what_they_share() -> None:
    terms = consolidation()
    energies = []
    for step in range(1, 60):
        energies.append(float(terms.terms(NEW, SCALE).unshared))
        terms.stepped(step, NEW, SCALE)
    assert energies[-1] < 0.1 * energies[0]


def test_a_concept_at_zero_has_finite_gradients() -> None:
    start = {
        site: (torch.zeros_like(up).requires_grad_(), down.clone().requires_grad_())
        for site, (up, down) in NEW.items()
    }
    out = consolidation().terms(start, SCALE)
    (out.overlap + out.unshared).backward()
    assert out.overlap.item() == 0.0
    assert all(f.grad is not None and torch.isfinite(f.grad).all() for pair in start.values() for f in pair)


def test_a_training_resumed_goes_on_to_the_same_bytes() -> None:
    at_once, first, second = consolidation(), consolidation(), consolidation()
    for step in range(1, 7):
        at_once.stepped(step, NEW, SCALE)
    for step in range(1, 4):
        first.stepped(step, NEW, SCALE)
    second.restore(first.state())
    for step in range(4, 7):
        second.stepped(step, NEW, SCALE)
    assert second.terms(NEW, SCALE) == at_once.terms(NEW, SCALE) != first.terms(NEW, SCALE)
    with pytest.raises(ValueError, match="other concepts"):
        second.restore(consolidation(OLDER[:1]).state())


def test_memory_grows_with_every_concept() -> None:
    """Why it is not the default; the counted bytes are H's, W's and the factors'."""
    wanted = 0
    for site, (height, width) in SHAPES.items():
        count = len(owners(site))
        wanted += 8 * ((count + 1) * height**2 + height * width + count * 2 * (height + width))
    assert consolidation().memory() == wanted


def test_concepts_of_different_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="one rank"):
        consolidation([*OLDER, (concept(3, rank=4), 1.0)])


def test_without_older_concepts_there_is_nothing_to_consolidate() -> None:
    with pytest.raises(ValueError, match="at least one older concept"):
        consolidation([])
