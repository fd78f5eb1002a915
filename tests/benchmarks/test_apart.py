"""The judge that finds each concept and cuts it out, on likenesses small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.apart import cut_out, pairs, places, shared, table
from cidm_cli.judge.tasks import load_tasks, tasks_folder

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


def test_look_alikes_have_one_class_noun_and_unlike_pairs_are_the_same_each_time() -> None:
    found = pairs(load_tasks(tasks_folder()), 4)
    assert [[task.name for task in pair] for pair in found["lookalike"]] == [["dog", "dog2"], ["cat", "cat2"]]
    assert len(found["unlike"]) == 4
    assert found == pairs(load_tasks(tasks_folder()), 4)
    assert all(one.class_noun != other.class_noun for one, other in found["unlike"])


def test_figures_of_pairs_are_shares_of_the_gain_alone_with_intervals_beside_named() -> None:
    seen = {"base": 0.1, "alone": 0.5, "confused": 0.25, "cut_alone": 0.4, "all_found": 0.5}
    rows = [
        {"pair": pair, "concept": concept, "method": method, "seconds": seconds,
         "clip": {**seen, "all": 0.1 + kept * 0.4, "cut": cut}}
        for pair in ("a+b", "c+d") for concept in pair.split("+")
        for method, seconds, kept, cut in (("named", 2.0, 0.5, 0.1), ("found", 3.0, 0.75, 0.3))
    ]  # fmt: skip
    found = table(rows, ["clip"])["found"]
    assert found["time_ratio"] == pytest.approx(1.5)
    values = {name: told["value"] for name, told in found["clip"].items()}
    expected = dict(kept=0.75, kept_beside=0.25, cut=0.75, cut_beside=0.5, confusion=0.25, all_found=0.5)
    assert values == pytest.approx(expected)
    assert found["clip"]["kept"]["low"] == pytest.approx(0.75), "all concepts alike"
    assert table(rows[:4], ["clip"])["found"]["clip"]["kept"] == {"value": pytest.approx(0.75)}, (
        "one pair: no interval"
    )
