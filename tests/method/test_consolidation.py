"""Concept consolidation: R1 and R2 of Eq. 2, the exact step (ii), and what a training holds of older concepts."""

from __future__ import annotations

import pytest
import torch

from cidm_cli.method.consolidation import (
    FAINT,
    SLIGHT,
    Consolidation,
    Factors,
    compressed,
    directions,
    energy_rows,
    owners,
    shared_basis,
    subspace_overlap,
    unshared_energy,
)

SHAPES = {"q": (9, 9), "k": (9, 6), "v": (9, 6), "out": (7, 12)}
RANK = 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def concept(seed: int, shapes: dict[str, tuple[int, int]] = SHAPES, rank: int = RANK) -> dict[str, Factors]:
    generator = seeded(1000 + seed)
    return {
        site: (
            torch.randn(height, rank, generator=generator, dtype=torch.float64),
            torch.randn(rank, width, generator=generator, dtype=torch.float64),
        )
        for site, (height, width) in shapes.items()
    }


def without(factors: dict[str, Factors], *sites: str) -> dict[str, Factors]:
    return {site: pair for site, pair in factors.items() if site not in sites}


OLDER: list[tuple[dict[str, Factors], float]] = [
    (concept(1), 1.0),
    (without(concept(2, rank=3), "out"), 0.5),
    (without(concept(3), "q", "out"), 2.0),
]
NEW, SCALE = concept(9), 0.75


def consolidation(
    older: list[tuple[dict[str, Factors], float]] = OLDER,
    shapes: dict[str, tuple[int, int]] = SHAPES,
    shared_rank: int = 3,
    refresh_every: int = 5,
) -> Consolidation:
    return Consolidation(older, shapes, shared_rank=shared_rank, refresh_every=refresh_every, device="cpu")


def required(factors: dict[str, Factors]) -> dict[str, Factors]:
    """Copies that take gradients."""
    return {
        site: (u.clone().requires_grad_(), d.clone().requires_grad_()) for site, (u, d) in factors.items()
    }


def projection(matrix: torch.Tensor) -> torch.Tensor:
    """Onto the column space of a dense matrix, faint directions in part."""
    gram = matrix.T @ matrix
    floor = FAINT**2 + SLIGHT * matrix.square().sum()
    return matrix @ torch.linalg.inv(gram + floor * torch.eye(len(gram))) @ matrix.T


def overlap_by_hand(older: list[tuple[dict[str, Factors], float]], new: dict[str, Factors]) -> float:
    """Mean over pairs, from dense matrices."""
    pairs = []
    for site, pair in new.items():
        own = projection(dense(pair, SCALE))
        for factors, scale in older:
            if site in factors:
                other = projection(dense(factors[site], scale))
                pairs.append(float((own * other).sum()) / pair[0].shape[1])
    return sum(pairs) / len(pairs)


def dense(pair: Factors, scale: float) -> torch.Tensor:
    return scale * pair[0] @ pair[1]


def stacked(site: str, with_new: bool, older: list[tuple[dict[str, Factors], float]] = OLDER) -> torch.Tensor:
    """Every ΔW_i of a site on top of each other: its right singular vectors are those of S."""
    matrices = [dense(factors[site], scale) for factors, scale in older if site in factors]
    return torch.cat(matrices + ([dense(NEW[site], SCALE)] if with_new else []))


def unshared_by_hand(with_new: bool, shared_rank: int = 3) -> float:
    """The new concept's R2, mean over sites, by singular value decompositions of dense matrices."""
    energies = []
    for site in NEW:
        matrix = stacked(site, with_new)
        rank = min(shared_rank, sum(f[site][0].shape[1] for f, _ in OLDER if site in f))
        basis = torch.linalg.svd(matrix, full_matrices=False).Vh[:rank]
        rest = dense(NEW[site], SCALE) - dense(NEW[site], SCALE) @ basis.T @ basis
        energies.append(float(rest.square().sum()))
    return sum(energies) / len(energies)


# R1


def test_r1_is_the_mean_over_pairs_of_what_two_projections_share() -> None:
    overlap = consolidation().terms(NEW, SCALE).overlap
    assert float(overlap) == pytest.approx(overlap_by_hand(OLDER, NEW), rel=1e-9)


def test_r1_of_a_hundred_compressed_concepts_is_that_of_each_by_itself() -> None:
    many = [(concept(seed), 1.0) for seed in range(20, 120)]
    overlap = consolidation(many).terms(NEW, SCALE).overlap
    assert float(overlap) == pytest.approx(overlap_by_hand(many, NEW), rel=1e-9)


def overlap_of(one: torch.Tensor, other: torch.Tensor, down: torch.Tensor, scale: float = 1.0) -> float:
    """R1 of columns ``other`` against ``one``, ``down`` under both."""
    return float(subspace_overlap(directions(one, down, scale), other, down, scale))


def test_r1_is_the_mean_squared_cosine_of_the_principal_angles() -> None:
    one, other = random(9, 3), random(9, 3, seed=1)
    cosines = torch.linalg.svdvals(torch.linalg.qr(one).Q.T @ torch.linalg.qr(other).Q)
    assert overlap_of(one, other, random(3, 6, seed=2), 1e3) == pytest.approx(
        float(cosines.square().mean()), rel=1e-3
    )


def test_r1_is_zero_between_orthogonal_column_spaces_and_one_within_the_same() -> None:
    basis = torch.linalg.qr(random(8, 8)).Q
    turn, down = torch.linalg.qr(random(3, 3)).Q, 1e3 * torch.eye(3, 5).double()
    assert overlap_of(basis[:, :3], basis[:, 3:6], down) == pytest.approx(0, abs=1e-12)
    assert overlap_of(basis[:, :3], basis[:, :3] @ turn, down) == pytest.approx(1, abs=1e-3)


def test_columns_that_are_nearly_one_do_not_hide_what_lies_between_them() -> None:
    """Each is 99 % outside, and two of the three directions that they span are all within."""
    older, axes = torch.eye(9).double()[:, 1:4], torch.eye(9).double()
    up = axes[:, :1] + 0.1 * older
    cosines = (older.T @ (up / up.norm(dim=0))).square().sum() / 3
    assert float(cosines) == pytest.approx(0.0099, abs=1e-4)
    assert overlap_of(older, up, 1e3 * torch.eye(3, 5).double()) == pytest.approx(2 / 3, abs=5e-3)


@pytest.mark.parametrize("strength", [1e-3, 1e-2, 1.0])
def test_r1_is_the_same_however_the_weight_is_factored(strength: float) -> None:
    """Also where a direction is as faint as FAINT, in value and in the gradient of the weight."""
    terms, found = consolidation(), []
    for seed in range(4):
        turn = random(RANK, RANK, seed=seed) if seed else torch.eye(RANK).double()
        new = {s: (strength * u @ turn, torch.linalg.inv(turn) @ d) for s, (u, d) in NEW.items()}
        tied = required(new)
        value = terms.terms(tied, SCALE).overlap
        value.backward()
        grads = [(u.grad @ turn.T, torch.linalg.inv(turn).T @ d.grad) for u, d in tied.values()]  # type: ignore[operator]
        older = [
            ({s: (u @ turn, torch.linalg.inv(turn) @ d) for s, (u, d) in f.items()}, scale)
            for f, scale in (OLDER[0], OLDER[2])
        ]
        found.append((value.detach(), grads, consolidation(older).terms(new, SCALE).overlap))
    for value, grads, among in found[1:]:
        torch.testing.assert_close(value, found[0][0])
        torch.testing.assert_close(among, found[0][2])
        torch.testing.assert_close(grads, found[0][1], rtol=1e-6, atol=1e-9)


def test_r1_in_float32_is_the_same_however_the_weight_is_factored() -> None:
    columns = directions(random(64, 4), random(4, 32, seed=1), 1.0).float()[None]
    up, down = 0.1 * random(64, 4, seed=2).float()[None], 0.1 * random(4, 32, seed=3).float()[None]
    wanted = subspace_overlap(columns.double(), up.double(), down.double(), 1.0)
    for seed in range(4, 8):
        turn = random(4, 4, seed=seed)
        found = subspace_overlap(columns, (up @ turn.float()), turn.inverse().float() @ down, 1.0)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-5)


def test_r1_does_not_change_with_the_length_of_columns_or_the_scale() -> None:
    terms = consolidation()
    longer = {site: (up * torch.tensor([3.0, 40.0]), down) for site, (up, down) in NEW.items()}
    torch.testing.assert_close(
        terms.terms(longer, 9.0).overlap, terms.terms(NEW, SCALE).overlap, rtol=1e-2, atol=0
    )


def test_a_new_concept_at_zero_has_no_overlap_no_energy_and_finite_gradients() -> None:
    start = required({site: (torch.zeros_like(up), down) for site, (up, down) in NEW.items()})
    terms = consolidation().terms(start, SCALE)
    assert terms.overlap.item() == terms.unshared.item() == 0.0
    (terms.overlap + terms.unshared).backward()
    for pair in start.values():
        for factor in pair:
            assert factor.grad is not None
            assert not factor.grad.any()


@pytest.mark.parametrize("kind", ["apart", "nearly collinear", "collinear", "one is zero"])
def test_the_gradient_of_r1_stays_bounded_however_faint_or_alike_columns_are(kind: str) -> None:
    columns, down = directions(random(9, 4), random(4, 6, seed=2), 1.0)[None], random(1, 3, 6, seed=3)
    up = random(1, 9, 3, seed=1)
    if kind != "apart":
        other = {"nearly collinear": up[..., 0] + 1e-9 * up[..., 1], "collinear": up[..., 0]}
        up[..., 1] = other.get(kind, torch.zeros_like(up[..., 0]))
    bound = torch.linalg.matrix_norm(columns, 2) ** 2 * torch.linalg.matrix_norm(down, 2) / (1.73 * FAINT)
    for length in (0.0, 1e-12, 1e-6, 1e-3, FAINT, 1.0):
        for precision in (torch.float64, torch.float32):
            tied = (length * up).to(precision).requires_grad_()
            subspace_overlap(columns.to(precision), tied, down.to(precision), 1.0).sum().backward()
            assert tied.grad is not None
            assert torch.isfinite(tied.grad).all()
            assert tied.grad.norm() <= bound


def test_an_older_concept_that_never_left_zero_overlaps_with_nothing() -> None:
    empty = {site: (torch.zeros_like(up), down) for site, (up, down) in NEW.items()}
    terms = consolidation([(empty, 1.0)]).terms(NEW, SCALE)
    assert terms.overlap.item() == 0.0
    # Nothing is shared either: all of the new concept lies outside.
    whole = sum(float(dense(pair, SCALE).square().sum()) for pair in NEW.values()) / len(NEW)
    assert terms.unshared.item() == pytest.approx(whole)


def test_descending_r1_makes_the_column_spaces_orthogonal_and_not_the_weights_small() -> None:
    shapes = {"q": (16, 5)}
    terms = consolidation([(concept(1, shapes), 1.0)], shapes)
    up = random(16, 2, seed=5).requires_grad_()
    before = up.detach().norm()
    for _ in range(300):
        (gradient,) = torch.autograd.grad(terms.terms({"q": (up, random(2, 5))}, 1.0).overlap, up)
        up = (up - gradient).detach().requires_grad_()
    assert terms.terms({"q": (up, random(2, 5))}, 1.0).overlap < 1e-3
    assert up.norm() >= before


# R2


def test_r2_is_the_squared_distance_to_the_shared_rows_entry_by_entry() -> None:
    up, down = random(2, 5, 3, seed=1), random(2, 3, 6, seed=2)
    basis = torch.linalg.qr(random(2, 6, 2, seed=3)).Q.mT
    energy = unshared_energy(up, down, basis, 0.5)
    for site in range(2):
        matrix = 0.5 * up[site] @ down[site]
        total = 0.0
        for row in matrix:
            for column in range(6):
                shared = sum(float(row @ v) * float(v[column]) for v in basis[site])
                total += (float(row[column]) - shared) ** 2
        assert float(energy[site]) == pytest.approx(total)


def test_r2_is_what_the_best_dense_projection_h_leaves() -> None:
    up, down = random(1, 5, 3, seed=1), random(1, 3, 6, seed=2)
    basis = torch.linalg.qr(random(1, 6, 2, seed=3)).Q.mT
    matrix = (0.5 * up @ down)[0]
    H = torch.linalg.lstsq(basis[0].T, matrix.T).solution.T
    left = (matrix - H @ basis[0]).square().sum()
    torch.testing.assert_close(unshared_energy(up, down, basis, 0.5)[0], left)


def test_r2_is_all_of_the_energy_where_no_row_is_shared_and_none_where_all_are() -> None:
    up, down = random(1, 5, 3, seed=1), random(1, 3, 6, seed=2)
    nothing, everything = torch.zeros(1, 2, 6).double(), torch.eye(6).double()[None]
    whole = (0.5 * up @ down).square().sum((-2, -1))
    torch.testing.assert_close(unshared_energy(up, down, nothing, 0.5), whole)
    torch.testing.assert_close(unshared_energy(up, down, everything, 0.5), torch.zeros_like(whole))


def test_r2_of_a_training_is_the_mean_over_sites_before_and_after_a_refresh() -> None:
    terms = consolidation()
    assert float(terms.terms(NEW, SCALE).unshared) == pytest.approx(unshared_by_hand(with_new=False))
    terms.stepped(5, NEW, SCALE)
    assert float(terms.terms(NEW, SCALE).unshared) == pytest.approx(unshared_by_hand(with_new=True))
    assert unshared_by_hand(with_new=True) < 0.9 * unshared_by_hand(with_new=False)


def test_without_shared_rows_r1_is_the_same_and_nothing_is_held_or_computed_for_r2() -> None:
    whole, one = consolidation(), consolidation(shared_rank=0)
    one.stepped(5, NEW, SCALE)
    terms = one.terms(NEW, SCALE)
    assert terms.overlap == whole.terms(NEW, SCALE).overlap
    assert terms.unshared == 0
    assert one.state() == {}
    columns = 0
    for site, here in owners(OLDER, SHAPES).items():
        height = SHAPES[site][0]
        columns += height * min(sum(up.shape[1] for (up, _), _ in here), height)
    assert one.memory() == 8 * columns < whole.memory()


# Step (ii)


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5), (6, 6)])
def test_the_shared_basis_spans_the_first_right_singular_vectors(height: int, width: int) -> None:
    rows = random(3, height, width)
    for rank in range(1, min(height, width) + 1):
        basis = shared_basis(rows, rank)
        exact = torch.linalg.svd(rows, full_matrices=False).Vh[:, :rank]
        torch.testing.assert_close(basis.mT @ basis, exact.mT @ exact)
        torch.testing.assert_close(basis @ basis.mT, torch.eye(rank).double().expand(3, -1, -1))


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5)])
def test_no_other_basis_leaves_less(height: int, width: int) -> None:
    rows = random(1, height, width)

    def left(basis: torch.Tensor) -> float:
        return float((rows - rows @ basis.mT @ basis).square().sum())

    best = shared_basis(rows, 2)
    tail = torch.linalg.svdvals(rows)[0, 2:].square().sum()
    assert left(best) == pytest.approx(float(tail))
    for seed in range(200):
        size = 10.0 ** -(seed % 5)  # far from the best one, and close by
        other = torch.linalg.qr((best + size * random(1, 2, width, seed=seed)).mT).Q.mT
        assert left(other) > left(best)


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5)])
def test_rows_of_a_basis_that_nothing_spans_are_zero_and_not_arbitrary(height: int, width: int) -> None:
    rows = (random(height, 2) @ random(2, width, seed=1))[None]
    basis = shared_basis(rows, 4)
    torch.testing.assert_close(
        basis @ basis.mT, torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0]).double())[None]
    )
    torch.testing.assert_close(rows @ basis.mT @ basis, rows)
    assert not shared_basis(torch.zeros(1, height, width), 3).any()


def test_singular_values_of_very_different_size_do_not_spoil_the_basis() -> None:
    sizes = torch.tensor([1e3, 1.0, 1e-2, 1e-4], dtype=torch.float64)
    rows = (sizes[:, None] * torch.linalg.qr(random(9, 4)).Q.T)[None]
    basis = shared_basis(rows, 3)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(3).double()[None])
    torch.testing.assert_close(rows[:, :3] @ basis.mT @ basis, rows[:, :3], rtol=1e-6, atol=1e-9)


def test_energy_rows_have_the_gram_matrix_of_the_weight() -> None:
    for height in (7, 2):  # more and fewer outputs than ranks
        up, down = random(2, height, 3, seed=1), random(2, 3, 6, seed=2)
        rows = energy_rows(up, down, 0.5)
        assert rows.shape == (2, min(height, 3), 6)
        torch.testing.assert_close(rows.mT @ rows, (0.5 * up @ down).mT @ (0.5 * up @ down))


def test_a_refresh_finds_the_best_basis_of_all_concepts_as_they_now_are() -> None:
    """Against the dense ΔW_i of a hundred concepts, so that compressing them must have lost nothing."""
    shapes = {"k": (9, 6), "out": (7, 12)}
    many = [(concept(seed, shapes), 1 / (1 + seed)) for seed in range(100)]
    new = without(NEW, "q", "v")
    terms = consolidation(many, shapes)
    terms.stepped(5, new, SCALE)
    for (site, pair), basis in zip(new.items(), terms.state().values(), strict=True):
        exact = torch.linalg.svd(stacked(site, with_new=True, older=many), full_matrices=False).Vh[:3]
        torch.testing.assert_close(basis[0].T @ basis[0], exact.T @ exact)
        assert not torch.allclose(dense(pair, SCALE), dense(pair, SCALE) @ exact.T @ exact)


def test_the_basis_moves_only_every_so_many_steps() -> None:
    terms = consolidation(refresh_every=5)
    start = terms.state()
    for step in (1, 2, 3, 4, 6, 7, 8, 9, 11):
        terms.stepped(step, NEW, SCALE)
        assert all(torch.equal(a, b) for a, b in zip(start.values(), terms.state().values(), strict=True))
    terms.stepped(10, NEW, SCALE)
    assert not any(torch.equal(a, b) for a, b in zip(start.values(), terms.state().values(), strict=True))


def test_a_basis_larger_than_the_older_concepts_does_not_hold_the_new_one_for_free() -> None:
    terms = consolidation([(concept(1), 1.0)], shared_rank=99)
    terms.stepped(5, NEW, SCALE)
    assert all(basis.shape[1] == RANK for basis in terms.state().values())
    assert float(terms.terms(NEW, SCALE).unshared) > 0.1


def test_a_refresh_leaves_no_trace_in_the_gradients() -> None:
    new = required(NEW)
    terms = consolidation()
    terms.stepped(5, new, SCALE)
    assert not any(basis.requires_grad for basis in terms.state().values())


# Gradients


def test_gradients_are_what_finite_differences_give() -> None:
    columns, basis = random(2, 7, 4), torch.linalg.qr(random(2, 6, 2, seed=3)).Q.mT
    up, down = random(2, 7, 3, seed=1).requires_grad_(), random(2, 3, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, d: subspace_overlap(columns, u, d, 0.5), (up, down))
    assert torch.autograd.gradcheck(lambda u, d: unshared_energy(u, d, basis, 0.5), (up, down))
    faint = (up.detach() * 1e-3).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: subspace_overlap(columns, u, down, 0.5), (faint,), eps=1e-8)


def test_gradients_of_a_training_reach_every_factor() -> None:
    terms = consolidation()
    names = list(NEW)
    flat = [factor.clone().requires_grad_() for pair in NEW.values() for factor in pair]

    def both(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = terms.terms(dict(zip(names, zip(given[::2], given[1::2], strict=True), strict=True)), SCALE)
        return out.overlap, out.unshared

    assert torch.autograd.gradcheck(both, flat)
    overlap, unshared = both(*flat)
    assert all(g is not None and g.any() for g in torch.autograd.grad(unshared, flat, retain_graph=True))
    assert all(g.any() for g in torch.autograd.grad(overlap, flat[::2]))


# What is held


def test_compressed_columns_keep_their_gram_matrix() -> None:
    for count in (3, 5, 40):
        columns = random(5, count)
        out = compressed(columns)
        assert out.shape == (5, min(5, count))
        torch.testing.assert_close(out @ out.T, columns @ columns.T)


def test_what_a_training_holds_stops_growing_once_the_layers_are_full() -> None:
    hundred, more = ([(concept(seed), 1.0) for seed in range(count)] for count in (100, 150))
    one = consolidation(OLDER[:1]).memory()
    assert consolidation(hundred).memory() == consolidation(more).memory() < 8 * one
    full = sum(8 * (out * out + width * width + 3 * width) for out, width in SHAPES.values())
    assert consolidation(hundred).memory() == full


def test_sites_of_equal_shape_are_one_product() -> None:
    assert len(consolidation([(concept(1), 1.0)]).state()) == len(set(SHAPES.values()))


def test_sites_that_no_older_concept_has_do_not_count() -> None:
    fewer = [(without(factors, "q"), scale) for factors, scale in OLDER]
    wide = consolidation(fewer).terms(NEW, SCALE)
    narrow = consolidation(fewer, without(SHAPES, "q")).terms(NEW, SCALE)
    assert wide == narrow
    nowhere = consolidation([({}, 1.0)]).terms(NEW, SCALE)
    assert nowhere.overlap.item() == nowhere.unshared.item() == 0.0


def test_sites_of_an_older_concept_that_are_not_trained_now_do_not_count() -> None:
    shapes = without(SHAPES, "q", "v")
    new = without(NEW, "q", "v")
    trimmed = [(without(factors, "q", "v"), scale) for factors, scale in OLDER]
    assert consolidation(OLDER, shapes).terms(new, SCALE) == consolidation(trimmed, shapes).terms(new, SCALE)


def test_older_concepts_in_half_precision_are_compared_in_float32() -> None:
    halves = [({site: (u.half(), d.half()) for site, (u, d) in f.items()}, scale) for f, scale in OLDER]
    single = {site: (up.float(), down.float()) for site, (up, down) in NEW.items()}
    terms = consolidation(halves)
    terms.stepped(5, single, SCALE)
    out = terms.terms(single, SCALE)
    assert out.overlap.dtype == out.unshared.dtype == torch.float32
    assert out.overlap.item() == pytest.approx(overlap_by_hand(OLDER, NEW), rel=1e-2)
    assert out.unshared.item() == pytest.approx(unshared_by_hand(with_new=True), rel=1e-2)


# Resuming


def trained(terms: Consolidation, factors: dict[str, Factors], first: int, last: int) -> dict[str, Factors]:
    """Plain gradient descent on both terms, in float32, step ``first`` to ``last``."""
    for step in range(first, last + 1):
        new = required(factors)
        out = terms.terms(new, SCALE)
        (out.overlap + 0.01 * out.unshared).backward()
        factors = {site: (u.detach() - 0.1 * u.grad, d.detach() - 0.1 * d.grad) for site, (u, d) in new.items()}  # type: ignore[operator]  # fmt: skip
        terms.stepped(step, factors, SCALE)
    return factors


def test_a_training_resumed_between_two_refreshes_goes_on_to_the_same_bytes() -> None:
    single = [({site: (u.float(), d.float()) for site, (u, d) in f.items()}, scale) for f, scale in OLDER]
    start = {site: (up.float(), down.float()) for site, (up, down) in NEW.items()}
    at_once = trained(consolidation(single), start, 1, 14)

    first = consolidation(single)
    halfway = trained(first, start, 1, 7)
    kept = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in first.state().items()
    }
    second = consolidation(single)
    second.restore(kept)
    resumed = trained(second, halfway, 8, 14)
    for site, pair in at_once.items():
        assert all(torch.equal(a, b) for a, b in zip(pair, resumed[site], strict=True))


def test_without_the_state_a_resumed_training_would_differ() -> None:
    first, second = consolidation(), consolidation()
    trained(first, NEW, 1, 7)
    assert first.terms(NEW, SCALE).unshared != second.terms(NEW, SCALE).unshared


def test_a_state_is_a_copy_and_restoring_copies_too() -> None:
    terms, other = consolidation(), consolidation()
    state = terms.state()
    other.restore(state)
    for tensor in state.values():
        tensor.zero_()
    assert terms.terms(NEW, SCALE) == other.terms(NEW, SCALE) == consolidation().terms(NEW, SCALE)


def test_a_state_of_other_concepts_or_settings_is_refused() -> None:
    for other in (consolidation(shared_rank=2), consolidation(OLDER[:1])):
        with pytest.raises(ValueError, match="other concepts or settings"):
            consolidation().restore(other.state())


# Refusals


def test_without_older_concepts_there_is_nothing_to_consolidate() -> None:
    with pytest.raises(ValueError, match="at least one older concept"):
        consolidation([])


def test_a_factor_that_does_not_fit_its_site_is_refused_by_name() -> None:
    up, down = OLDER[0][0]["k"]
    for wrong in ((up[1:], down), (up, down[:, 1:]), (up, down[1:])):
        with pytest.raises(ValueError, match=r"k: factors .* 9 by 6"):
            consolidation([({"k": wrong}, 1.0)])


@pytest.mark.parametrize(("setting", "value"), [("shared_rank", -1), ("refresh_every", 0)])
def test_a_setting_too_small_is_refused(setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{setting} {value}"):
        consolidation(**{setting: value})
