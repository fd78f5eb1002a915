"""Concepts drawn together: what the figures of the table are, and their errors."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.together import Row, figures, judged


def row(group: int, together: float, alone: float, base: float = 0.1) -> Row:
    seen = {"all": together, "alone": alone, "base": base, "confused": 0.25}
    return {"group": group, "concept": f"dog{group}", "clip": seen}


def test_a_training_that_weakens_its_concepts_gains_against_itself_alone_and_not_against_a_plain_one() -> (
    None
):
    plain = [row(g, together=0.4, alone=0.5) for g in range(4)]
    weak = [row(g, together=0.4, alone=0.4) for g in range(4)]
    found = figures(weak, plain, plain, "clip")
    assert found["of_own"][0] == pytest.approx(1.0)
    assert found["of_plain"][0] == pytest.approx(0.75)
    assert found["behind"] == pytest.approx((0.0, 0.0))
    assert found["ia"] == pytest.approx((0.4, 0.0))
    assert found["confusion"] == pytest.approx((0.25, 0.0))


def test_a_concept_is_confused_where_its_likeliest_part_is_likelier_another() -> None:
    likeness = {
        "dog": np.array([[0.1, 0.6], [0.5, 0.2], [0.3, 0.4]]),
        # Likelier than the dog in the first picture, but elsewhere; in the third, where the dog is likeliest.
        "cat": np.array([[0.9, 0.5], [0.4, 0.1], [0.0, 0.1]]),
        "duck": np.array([[0.0, 0.1], [0.0, 0.1], [0.0, 0.7]]),
    }
    seen = judged(likeness, "dog")
    assert seen.ia == pytest.approx(0.5)
    assert seen.confused == pytest.approx(1 / 3)
