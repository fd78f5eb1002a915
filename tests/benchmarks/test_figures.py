"""The figures of the tables and their intervals, on numbers that can be counted by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.figures import difference, jackknife, share, student, table


def test_the_jackknife_of_a_mean_over_single_rows_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=20)
    mean, error = jackknife(lambda t: float(t.mean()), values, np.eye(20, dtype=bool))
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(20))


def test_rows_of_one_concept_are_left_out_together() -> None:
    values = np.random.default_rng(1).normal(size=10)
    _, single = jackknife(lambda t: float(t.mean()), values, np.eye(10, dtype=bool))
    both = np.repeat(np.eye(10, dtype=bool), 2, axis=1)
    _, doubled = jackknife(lambda t: float(t.mean()), np.repeat(values, 2), both)
    assert doubled == pytest.approx(single)


@pytest.mark.parametrize(("freedom", "printed"), [(1, 12.706), (3, 3.182), (9, 2.262), (30, 2.042)])
def test_intervals_reach_as_far_as_students_t(freedom: int, printed: float) -> None:
    assert student(freedom) == pytest.approx(printed, rel=0.02)


def test_a_difference_is_taken_in_pairs_so_that_what_concepts_have_in_common_is_no_error() -> None:
    own = {"dog": 0.9, "cat": 0.5, "duck": 0.1}
    found = difference({name: value + 0.02 for name, value in own.items()}, own)
    assert found["value"] == pytest.approx(0.02)
    assert found["high"] - found["low"] < 1e-9


def test_a_share_is_of_what_lies_above_the_floor_and_none_where_that_is_nothing() -> None:
    floor, whole = {"dog": 0.2, "cat": 0.4}, {"dog": 0.6, "cat": 0.8}
    half = share({"dog": 0.4, "cat": 0.6}, floor, whole)
    assert half is not None
    assert half["value"] == pytest.approx(0.5)
    assert share(floor, floor, {"dog": 0.201, "cat": 0.401}) is None


def evaluation(*ia: float, forgetting: float | None = 0.0) -> dict[str, Any]:
    """Of a dog, a cat …, by one judge; the base has 0.1."""
    cell = {"ta": 0.3, "confusion": {"clip": 0.25}}
    return {
        "concepts": [
            {
                "key": name, "base": {**cell, "ia": {"clip": 0.1}},
                "states": {"1": {**cell, "ia": {"clip": -1.0}}, "10": {**cell, "ia": {"clip": value}}},
                "forgetting": {"clip": forgetting if name == "dog" else 0.0},
            }
            for name, value in zip(("dog", "cat"), ia, strict=True)
        ]
    }  # fmt: skip


def test_a_table_has_the_base_and_says_what_is_kept_above_it_and_above_the_tokens() -> None:
    found = {
        "named": [evaluation(0.6, 0.6), evaluation(0.5, 0.7)],
        "tokens": [evaluation(0.4, 0.4, forgetting=None)] * 2,
        "mine": [evaluation(0.5, 0.5)] * 2,
    }
    rows = table(found, named="named", tokens="tokens", default="mine")
    assert list(rows) == ["base", *found]

    def value(row: str, figure: str) -> float:
        return float(rows[row][figure]["clip"]["value"])

    assert value("mine", "ia") == pytest.approx(0.5), "of the last state"
    assert value("mine", "retention") == pytest.approx((0.5 - 0.1) / (0.6 - 0.1))
    assert value("mine", "above_tokens") == pytest.approx((0.5 - 0.4) / (0.6 - 0.4))
    assert value("named", "beside_default") == pytest.approx(0.1)
    assert value("base", "retention") == pytest.approx(0)
    assert value("tokens", "above_tokens") == pytest.approx(0)
    assert value("mine", "forgetting") == 0
    assert rows["tokens"]["forgetting"] == {}, "not known of every concept"
