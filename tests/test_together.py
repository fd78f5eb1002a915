"""Concepts drawn together: what the figures of the table are, and their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.together import Row, figures, jackknife


def row(group: int, together: float, alone: float, base: float = 0.1) -> Row:
    return {"group": group, "concept": "dog", "clip": {"all": together, "alone": alone, "base": base}}


def test_the_jackknife_of_a_mean_over_single_rows_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=20)
    mean, error = jackknife(lambda t: float(t.mean()), values, np.arange(20))
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(20))


def test_rows_of_one_group_are_left_out_together() -> None:
    values = np.random.default_rng(1).normal(size=10)
    _, single = jackknife(lambda t: float(t.mean()), values, np.arange(10))
    _, doubled = jackknife(lambda t: float(t.mean()), np.repeat(values, 2), np.repeat(np.arange(10), 2))
    assert doubled == pytest.approx(single)


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
