"""The judge that finds each concept and cuts it out, on likenesses small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.apart import cut_out, places, shared

LEFT, RIGHT, MIDDLE = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 1.0)


def test_places_lie_in_the_picture_and_what_two_share_is_of_the_smaller() -> None:
    assert all(0 <= x0 < x1 <= 1 + 1e-9 and 0 <= y0 < y1 <= 1 + 1e-9 for x0, y0, x1, y1 in places())
    assert shared(LEFT, RIGHT) == 0
    assert shared(LEFT, MIDDLE) == pytest.approx(0.5)
    assert shared((0, 0, 1, 1), LEFT) == pytest.approx(1)


def test_each_concept_is_cut_out_of_a_place_of_its_own() -> None:
    """Though both are likeliest in the middle."""
    seen = np.array([[[0.7, 0.3], [0.2, 0.6], [0.8, 0.75]]])
    assert cut_out(seen, (LEFT, RIGHT, MIDDLE), (0.1, 0.1)).tolist() == [[0.7, 0.6]]


def test_a_concept_that_another_is_likelier_than_or_that_nothing_shows_counts_nothing() -> None:
    twice = np.array([[[0.9, 0.5], [0.8, 0.7], [0.1, 0.1]]])
    assert cut_out(twice, (LEFT, RIGHT, MIDDLE), (0.1, 0.1)).tolist() == [[0.9, 0.0]], "the first one, twice"
    assert cut_out(twice, (LEFT, RIGHT, MIDDLE), (0.95, 0.1)).tolist() == [[0.0, 0.0]], "as like as any thing"
