"""Overlap of subspaces, and the room that is left."""

from __future__ import annotations

import math

import pytest
import torch

from cidm_cli.method.interference import basis, free, overlap

GENERATOR = torch.Generator().manual_seed(2)
UP = torch.randn(9, 3, generator=GENERATOR)
OTHER = torch.randn(9, 2, generator=GENERATOR)


def test_a_basis_spans_the_columns_and_is_orthonormal() -> None:
    U = basis(UP)
    torch.testing.assert_close(U.T @ U, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(U @ (U.T @ UP.double()), UP.double())


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_basis_is_no_larger_than_what_is_spanned(rank: int) -> None:
    flat = UP[:, :rank] @ torch.randn(rank, 4, generator=GENERATOR)
    assert basis(flat).shape == (9, rank)


def test_overlap_is_the_mean_squared_cosine_of_the_principal_angles() -> None:
    angle = 0.7
    one = torch.eye(4, dtype=torch.float64)[:, :2]
    other = torch.zeros(4, 2, dtype=torch.float64)
    other[0, 0], other[2, 0] = math.cos(angle), math.sin(angle)
    other[3, 1] = 1
    assert overlap(one, other) == pytest.approx(math.cos(angle) ** 2 / 2)


def test_overlap_runs_from_orthogonal_to_contained_and_knows_no_order_scale_or_mixing() -> None:
    whole = torch.linalg.qr(torch.randn(9, 9, generator=GENERATOR))[0]
    assert overlap(basis(whole[:, :3]), basis(whole[:, 3:5])) == pytest.approx(0, abs=1e-9)
    assert overlap(basis(whole[:, :3]), basis(whole[:, 1:2])) == pytest.approx(1)
    mixed = UP @ torch.randn(3, 3, generator=GENERATOR) * 100
    value = overlap(basis(UP), basis(OTHER))
    assert 0 < value < 1
    assert overlap(basis(mixed), basis(OTHER)) == pytest.approx(value, rel=1e-4)
    assert overlap(basis(OTHER), basis(UP)) == pytest.approx(value)


def test_overlap_with_nothing_is_nothing() -> None:
    assert overlap(basis(torch.zeros(9, 2)), basis(UP)) == 0


def test_each_concept_takes_of_the_room_what_it_adds() -> None:
    assert free([UP]) == 6
    assert free([UP, OTHER]) == 4
    assert free([UP, OTHER, UP[:, :1] + UP[:, 1:2], torch.zeros(9, 2)]) == 4
    assert free([torch.randn(9, 4, generator=GENERATOR) for _ in range(5)]) == 0
