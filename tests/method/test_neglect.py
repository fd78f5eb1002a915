"""The figures of concept neglect, each on cases small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from cidm_cli.method.neglect import background_gain, identity_ratio, kept, likeness, present, taken

DOG, CAT, DUCK = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
REFERENCES = [torch.tensor([DOG, (0.6, 0.8, 0.0)]), torch.tensor([CAT]), torch.tensor([DUCK, DUCK, CAT])]
"""Of a dog whose second picture leans to the cat, of a cat, and of a duck with a cat among its three."""


def test_likeness_is_the_mean_cosine_to_each_concepts_references() -> None:
    found = likeness(torch.tensor([DOG, CAT, DUCK]), REFERENCES)
    assert found.tolist() == [
        pytest.approx([0.8, 0.0, 0.0]),
        pytest.approx([0.4, 1.0, 1 / 3]),
        pytest.approx([0.0, 0.0, 2 / 3]),
    ]


SIMILAR = torch.tensor([[0.9, 0.5, 0.1], [0.6, 0.5, 0.7], [0.4, 0.3, 0.2]])
"""Three crops that should show the first of three concepts: sure, taken for the third, and hardly any."""


def test_a_concept_is_present_where_it_is_likelier_than_all_others_and_than_the_bare_noun() -> None:
    assert present(SIMILAR, 0, 0.0).tolist() == [True, False, True]
    assert present(SIMILAR, 0, 0.45).tolist() == [True, False, False], (
        "the base's own drawing looks as much like it"
    )
    assert present(SIMILAR, 2, 0.0).tolist() == [False, True, False]


def test_a_concept_that_belongs_into_the_crop_as_well_takes_nothing_away() -> None:
    assert present(SIMILAR, 0, 0.0, excused=(2,)).tolist() == [True, True, True]
    assert present(SIMILAR, 0, 0.45, excused=(1, 2)).tolist() == [True, True, False], (
        "alone it must beat the base"
    )


def test_as_likely_as_another_is_not_found() -> None:
    assert present(torch.tensor([[0.5, 0.5]]), 0, 0.0).tolist() == [False]
    assert present(torch.tensor([[0.5, 0.5]]), 0, 0.5, excused=(1,)).tolist() == [False]


def test_a_box_is_taken_by_a_concept_of_the_same_layout_only() -> None:
    assert taken(SIMILAR, 0, (1, 2)).tolist() == [False, True, False]
    assert taken(SIMILAR, 0, (1,)).tolist() == [False, False, False], "the third is in no box of this layout"
    assert taken(SIMILAR, 0, ()).tolist() == [False, False, False]
    assert taken(SIMILAR, 1, (0, 2)).tolist() == [True, True, True]


def test_the_background_gains_what_the_concepts_bring_into_it() -> None:
    plain = torch.tensor([DUCK, DUCK])
    drawn = torch.tensor([DUCK, CAT])
    # A cat where grass was: 0.4 nearer to the dog's pictures, 1.0 to the cat's.
    assert background_gain(drawn, plain, REFERENCES[:2]).tolist() == pytest.approx([0.0, (0.4 + 1.0) / 2])
    assert background_gain(plain, drawn, REFERENCES[:2]).tolist() == pytest.approx([0.0, -0.7])


def test_the_ratio_is_of_means_so_that_no_single_box_of_little_likeness_rules_it() -> None:
    assert identity_ratio([0.8, 0.1], [0.8, 0.2]) == pytest.approx(0.9)
    assert identity_ratio([0.7], [0.7]) == 1


def test_with_the_base_taken_off_the_same_loss_weighs_more() -> None:
    assert kept([0.7, 0.6], [0.5, 0.4], [0.8, 0.7]) == pytest.approx((0.2 + 0.2) / (0.3 + 0.3))
    assert identity_ratio([0.7, 0.6], [0.8, 0.7]) == pytest.approx(1.3 / 1.5)
    assert kept([0.7], [0.8], [0.8]) is None, "nothing is gained alone: no share of it can be told"
