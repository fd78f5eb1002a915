"""Concepts kept apart by rows and cells, each on cases small enough to work out by hand."""

from __future__ import annotations

import torch

from cidm_cli.method import routing

WORDS = torch.tensor([[0.0, 1, 0, 0, 0], [0, 0, 0, 1, 0]])
"""Two concepts in five rows of a text."""


def test_keys_of_a_row_are_changed_by_all_concepts_but_those_whose_word_another_is() -> None:
    assert routing.token_parts(WORDS).tolist() == [[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]]
    assert routing.token_parts(torch.zeros(2, 3)).tolist() == [[1, 1, 1], [1, 1, 1]], "a text without them"


def test_routed_weights_are_the_plain_sum_where_all_parts_are_1_and_one_concepts_where_it_is_alone() -> None:
    x, weight, one, two = torch.randn(4, 5, 3), *torch.randn(3, 2, 3).unbind()
    ones = torch.ones(4, 2, 5)
    torch.testing.assert_close(routing.routed(x, weight, [one, two], ones), x @ (weight + one + two).T)
    alone = torch.tensor([1.0, 0.0])[:, None].expand(4, 2, 5)
    torch.testing.assert_close(routing.routed(x, weight, [one, two], alone), x @ (weight + one).T)


def test_a_cell_is_the_concepts_that_it_looks_at_more_than_others_cells_do() -> None:
    """However much more the words of one are looked at everywhere."""
    maps = torch.tensor([[[0.9, 0.3]], [[0.01, 0.03]]])
    parts = routing.cell_parts(maps, 2.0)
    torch.testing.assert_close(parts.sum(0), torch.ones(1, 2))
    torch.testing.assert_close(parts[0, 0], torch.tensor([0.9, 0.1]))
    torch.testing.assert_close(routing.cell_parts(maps * torch.tensor([5.0, 0.1])[:, None, None], 2.0), parts)


def test_words_are_withheld_from_cells_of_another_concept_alone() -> None:
    parts = torch.tensor([[[0.9, 0.5]], [[0.1, 0.5]]])
    torch.testing.assert_close(
        routing.withheld(parts, 4.0), torch.tensor([[[0.0, 0.0]], [[3.2, 0.0]]]), rtol=1e-6, atol=1e-6
    )


def test_masks_are_where_a_concept_is_looked_at_and_nobodys_elsewhere() -> None:
    maps = torch.full((1, 2, 8, 8), 0.1)
    maps[0, 0, 2:6, 0:3] = 1
    maps[0, 1, 2:6, 5:8] = 1
    masks = routing.soft_masks(maps, 4.0, 1.0)[0]
    assert masks[0, 3, 1] > 0.9
    assert masks[1, 3, 6] > 0.9
    assert masks[0, 3, 6] < 0.01
    assert masks[1, 3, 1] < 0.01
    assert masks[:, 0, 4].max() < 0.2
    assert masks.sum(0).max() <= 1
