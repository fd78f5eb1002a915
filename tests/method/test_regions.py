"""Regions: boxes and masks on grids, overlaps, Eq. 4 and Eq. 5, all against cell-by-cell arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from cidm_cli.method.regions import (
    box_mask,
    coarse,
    composed,
    in_cells,
    mixed_noise,
    region_estimate,
    replaced,
    shares,
)

GENERATOR = torch.Generator().manual_seed(3)
BOXES = [(0.05, 0.3, 0.48, 0.95), (0.0, 0.0, 1.0, 1.0), (0.31, 0.62, 0.33, 0.66), (0.5, 0.0, 1.0, 0.25)]
SIZES = [(8, 8), (7, 5), (16, 3), (1, 1)]
HARD = torch.zeros(3, dtype=torch.bool)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def cells(width: int, height: int) -> Iterator[tuple[int, int]]:
    return ((x, y) for y in range(height) for x in range(width))


def area(box: tuple[float, ...], x: int, y: int, width: int, height: int) -> float:
    """How much of cell (x, y) lies in a box."""
    x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    return max(min(x1, x + 1) - max(x0, x), 0) * max(min(y1, y + 1) - max(y0, y), 0)


# Where regions are


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", BOXES)
def test_a_box_holds_of_each_cell_the_area_that_lies_in_it(
    box: tuple[float, ...], size: tuple[int, int]
) -> None:
    mask = box_mask(box, size)  # type: ignore[arg-type]
    assert mask.shape == (size[1], size[0])
    for x, y in cells(*size):
        assert float(mask[y, x]) == pytest.approx(area(box, x, y, *size), abs=1e-6)


def test_a_feather_rises_from_the_edge_inwards_over_its_width() -> None:
    """Boundaries at cells 2 and 12 across, 3 and 9 down; a feather of 2 cells."""
    mask = box_mask((2 / 16, 3 / 12, 12 / 16, 9 / 12), (16, 12), feather=2)
    for x, y in cells(16, 12):
        inside = 2 <= x < 12 and 3 <= y < 9
        nearest = min(x + 0.5 - 2, 12 - x - 0.5, y + 0.5 - 3, 9 - y - 0.5)
        assert float(mask[y, x]) == pytest.approx(min(nearest / 2, 1) if inside else 0, abs=1e-5)
    assert mask[5, 7] == 1


def test_a_feather_wider_than_the_box_still_reaches_the_top_in_its_middle() -> None:
    mask = box_mask((0.25, 0.0, 0.75, 1.0), (64, 64), feather=60)
    assert float(mask.max()) == pytest.approx(1, abs=0.05)
    assert mask[:, 16] == pytest.approx(torch.full((64,), 0.5 / 16))


def test_there_is_no_feather_along_the_pictures_border() -> None:
    """Beyond it is nothing to pass into: a region over everything is whole."""
    assert torch.equal(box_mask((0, 0, 1, 1), (9, 6), feather=2), torch.ones(6, 9))
    left = box_mask((0, 0, 0.5, 1), (8, 8), feather=2)
    assert torch.equal(left[0], torch.tensor([1, 1, 0.75, 0.25, 0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("fine", "grid"), [((12, 8), (3, 4)), ((9, 7), (5, 4)), ((5, 5), (5, 5)), ((4, 6), (1, 1))]
)
def test_coarser_cells_hold_the_mean_over_their_area(fine: tuple[int, int], grid: tuple[int, int]) -> None:
    """Also where a side is odd, and fine cells lie in two coarse ones."""
    mask = torch.rand(2, fine[1], fine[0], generator=GENERATOR)
    found = coarse(mask, grid)
    assert found.shape == (2, grid[1], grid[0])
    for x, y in cells(*grid):
        box = (x / grid[0], y / grid[1], (x + 1) / grid[0], (y + 1) / grid[1])
        weights = torch.tensor([[area(box, a, b, *fine) for a in range(fine[0])] for b in range(fine[1])])
        wanted = (mask * weights).sum((1, 2)) / weights.sum()
        torch.testing.assert_close(found[:, y, x], wanted, rtol=1e-4, atol=1e-6)


def test_a_sharp_region_takes_the_cells_of_which_it_holds_half() -> None:
    mask = box_mask((0.26, 0.0, 0.75, 0.66), (8, 8))[None]
    drawn = in_cells(mask, HARD[:1], (4, 4))[0]
    wanted = torch.zeros(4, 4)
    wanted[:2, 1:3] = 1
    wanted[2, 1:3] = 1  # 0.64 of the cells of the third row, and of 0.64 · 0.96 in its second column
    assert torch.equal(drawn, wanted)


@pytest.mark.parametrize("soft", [False, True])
def test_a_region_that_holds_half_of_no_cell_takes_the_one_it_holds_most_of(soft: bool) -> None:
    mask = box_mask((0.30, 0.30, 0.40, 0.60), (32, 32))[None]
    drawn = in_cells(mask, torch.tensor([soft]), (4, 4))[0]
    assert drawn.nonzero().tolist() == [[1, 1]]
    assert drawn[1, 1] == 1


def test_cells_that_tie_for_most_are_all_taken() -> None:
    """A box in the middle of four cells: none of them is preferred by rounding."""
    mask = box_mask((0.4, 0.4, 0.6, 0.6), (20, 20))[None]
    assert in_cells(mask, HARD[:1], (2, 2)).tolist() == [[[1, 1], [1, 1]]]


def test_a_soft_region_keeps_its_shares() -> None:
    mask = box_mask((0.2, 0.2, 0.9, 0.9), (16, 16), feather=3)[None]
    assert torch.equal(in_cells(mask, torch.tensor([True]), (8, 8)), coarse(mask, (8, 8)))


def test_regions_are_settled_each_by_itself() -> None:
    masks = torch.stack(
        [box_mask(box, (16, 16), feather=f) for box, f in zip(BOXES[:3], (0, 0, 0), strict=True)]
    )
    soft = torch.tensor([False, True, False])
    together = in_cells(masks, soft, (5, 4))
    for number in range(3):
        alone = in_cells(masks[number : number + 1], soft[number : number + 1], (5, 4))
        assert torch.equal(together[number], alone[0])


# Overlaps


@pytest.mark.parametrize("overlap", ["average", "priority"])
def test_shares_are_those_computed_cell_by_cell(overlap: str) -> None:
    masks = torch.rand(4, 3, 5, generator=GENERATOR)
    found = shares(masks, overlap)
    for x, y in cells(5, 3):
        column = [float(m[y, x]) for m in masks]
        if overlap == "average":
            wanted = [m / max(sum(column), 1) for m in column]
        else:
            wanted = [m * math.prod(1 - later for later in column[u + 1 :]) for u, m in enumerate(column)]
        assert found[:, y, x].tolist() == pytest.approx(wanted, abs=1e-6)
    assert float(found.sum(0).max()) <= 1 + 1e-6


def test_where_sharp_regions_meet_they_have_equal_parts_or_the_later_one_has_all() -> None:
    masks = torch.tensor([[[1.0, 1, 0]], [[0, 1, 0]], [[0, 1, 0]]])
    assert shares(masks, "average").tolist() == [
        [[1, pytest.approx(1 / 3), 0]], [[0, pytest.approx(1 / 3), 0]], [[0, pytest.approx(1 / 3), 0]],
    ]  # fmt: skip
    assert shares(masks, "priority").tolist() == [[[1, 0, 0]], [[0, 0, 0]], [[0, 1, 0]]]


@pytest.mark.parametrize("overlap", ["average", "priority"])
def test_no_region_has_no_share(overlap: str) -> None:
    assert shares(torch.zeros(0, 2, 2), overlap).shape == (0, 2, 2)


# What is drawn there


def test_each_region_replaces_its_share_of_a_cell() -> None:
    whole, regions = random(2, 3, 4, 5), random(3, 2, 3, 4, 5)
    parts = shares(torch.rand(3, 4, 5, generator=GENERATOR), "average")
    found = replaced(whole, regions, parts)
    for b, c in ((b, c) for b in range(2) for c in range(3)):
        for x, y in cells(5, 4):
            own = [float(parts[u, y, x] * regions[u, b, c, y, x]) for u in range(3)]
            wanted = (1 - float(parts[:, y, x].sum())) * float(whole[b, c, y, x]) + sum(own)
            assert float(found[b, c, y, x]) == pytest.approx(wanted, abs=1e-5)


def test_region_estimates_move_away_from_the_one_without_by_the_guidance() -> None:
    without, given = random(2, 3), random(2, 3)
    found = region_estimate(without, given, 7.5)
    for b, c in ((b, c) for b in range(2) for c in range(3)):
        wanted = float(without[b, c]) + 7.5 * (float(given[b, c]) - float(without[b, c]))
        assert float(found[b, c]) == pytest.approx(wanted, abs=1e-5)


def sharp_masks() -> torch.Tensor:
    """Three boxes of a 6 x 4 grid; two of them meet, and some cells are in none."""
    masks = torch.zeros(3, 4, 6)
    masks[0, :, :3] = 1
    masks[1, 1:3, 2:5] = 1
    masks[2, 3, 4] = 1
    return masks


def test_composition_is_the_whole_estimate_outside_and_the_regions_mean_inside() -> None:
    whole, regions, masks = random(2, 4, 4, 6), random(3, 2, 4, 4, 6), sharp_masks()
    found = composed(whole, regions, shares(masks, "average"), 0.1)
    for x, y in cells(6, 4):
        inside = [u for u in range(3) if masks[u, y, x]]
        wanted = whole[:, :, y, x]
        if inside:
            mean = sum(regions[u, :, :, y, x] for u in inside) / len(inside)
            wanted = 0.1 * wanted + 0.9 * mean
        torch.testing.assert_close(found[:, :, y, x], wanted)


def test_composition_as_printed_keeps_a_tenth_of_the_noise_outside() -> None:
    whole, regions, masks = random(2, 4, 4, 6), random(3, 2, 4, 4, 6), sharp_masks()
    found = composed(whole, regions, masks, 0.1, "paper")
    for x, y in cells(6, 4):
        inside = [u for u in range(3) if masks[u, y, x]]
        wanted = 0.1 * whole[:, :, y, x] + sum(0.9 * regions[u, :, :, y, x] for u in inside)
        torch.testing.assert_close(found[:, :, y, x], wanted)
    torch.testing.assert_close(found[:, :, 0, 5], 0.1 * whole[:, :, 0, 5])


def test_alpha_1_leaves_regions_out_and_alpha_0_leaves_nothing_else_inside() -> None:
    whole, regions, masks = random(1, 2, 4, 6), random(3, 1, 2, 4, 6), sharp_masks()
    parts = shares(masks, "priority")
    torch.testing.assert_close(composed(whole, regions, parts, 1.0), whole)
    assert torch.equal(composed(whole, regions, parts, 0.0)[:, :, 3, 4], regions[2, :, :, 3, 4])


def test_equal_estimates_compose_to_themselves_whatever_the_masks() -> None:
    """The corrected form adds up to one everywhere, at soft edges too; the printed one does not."""
    whole = random(1, 2, 8, 8)
    masks = torch.stack(
        [box_mask((0.1, 0.1, 0.7, 0.8), (8, 8), 2), box_mask((0.4, 0.2, 0.9, 0.9), (8, 8), 1)]
    )
    for overlap in ("average", "priority"):
        found = composed(whole, whole.expand(2, *whole.shape), shares(masks, overlap), 0.1)
        torch.testing.assert_close(found, whole)
    literal = composed(whole, whole.expand(2, *whole.shape), (masks >= 0.5).float(), 0.1, "paper")
    assert (literal - whole).abs().max() > 0.1


def test_mixed_noise_is_still_standard_normal_and_a_regions_own_inside_it() -> None:
    whole, own = random(1, 4, 256, 256), random(2, 1, 4, 256, 256)
    masks = torch.zeros(2, 256, 256)
    masks[0, :, :64] = 1
    masks[1, :, 128:] = torch.linspace(0, 1, 128)
    found = mixed_noise(whole, own, masks)
    assert torch.equal(found[:, :, :, :64], own[0, :, :, :, :64])
    assert torch.equal(found[:, :, :, 64:128], whole[:, :, :, 64:128])
    assert float(found[:, :, :, 160:224].std()) == pytest.approx(1, abs=0.01)
    assert float(found[:, :, :, 160:224].mean()) == pytest.approx(0, abs=0.01)
