"""The parts of a picture that are judged: the right pixels, and all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from cidm_cli.judge.crops import NARROWEST, Part, background, part_of, square, within


@pytest.mark.parametrize(
    ("box", "size", "part"),
    [
        ((0.0, 0.0, 1.0, 1.0), (64, 48), (0, 0, 64, 48)),
        ((0.5, 0.25, 1.0, 0.75), (64, 48), (32, 12, 64, 36)),
        ((0.1, 0.1, 0.4, 0.9), (10, 20), (1, 2, 4, 18)),
        ((0.501, 0.5, 0.502, 1.0), (64, 64), (32, 32, 33, 64)),
        ((0.999, 0.999, 1.0, 1.0), (8, 8), (7, 7, 8, 8)),
    ],
)
def test_a_box_is_its_pixels_and_never_none(
    box: tuple[float, float, float, float], size: tuple[int, int], part: Part
) -> None:
    assert part_of(box, size) == part


def test_a_mask_narrows_its_box_to_what_is_white() -> None:
    mask = Image.new("L", (20, 10))
    mask.paste(255, (5, 2, 15, 8))
    assert within((0.0, 0.0, 1.0, 1.0), mask) == pytest.approx((0.25, 0.2, 0.75, 0.8))
    assert within((0.5, 0.0, 1.0, 0.5), mask) == pytest.approx((0.5, 0.2, 0.75, 0.5))
    assert within((0.5, 0.0, 1.0, 0.5), None) == (0.5, 0.0, 1.0, 0.5)


def brute_force(parts: list[Part], size: tuple[int, int]) -> int:
    """Area of the largest rectangle in whole pixels that is free and wide enough; 0 for none."""
    width, height = size
    free = np.ones((height, width), dtype=bool)
    for x0, y0, x1, y1 in parts:
        free[y0:y1, x0:x1] = False
    best = 0
    for x0, x1 in itertools.combinations(range(width + 1), 2):
        for y0, y1 in itertools.combinations(range(height + 1), 2):
            if min(x1 - x0, y1 - y0) >= NARROWEST * min(size) and free[y0:y1, x0:x1].all():
                best = max(best, (x1 - x0) * (y1 - y0))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_background_is_the_largest_rectangle_that_no_box_reaches_into(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = (int(random.integers(6, 14)), int(random.integers(6, 14)))
    parts = []
    for _ in range(3):
        (x0, x1), (y0, y1) = (sorted(random.choice(side + 1, 2, replace=False)) for side in size)
        parts.append((int(x0), int(y0), int(x1), int(y1)))
    found = background(parts, size)
    area = 0 if found is None else (found[2] - found[0]) * (found[3] - found[1])
    assert area == brute_force(parts, size)
    if found is not None:
        assert not any(
            found[0] < p[2] and p[0] < found[2] and found[1] < p[3] and p[1] < found[3] for p in parts
        )


def test_boxes_that_leave_only_a_seam_leave_no_background() -> None:
    assert background([(0, 0, 31, 64), (33, 0, 64, 64)], (64, 64)) is None
    assert background([], (64, 32)) == (0, 0, 64, 32)
    assert background([(0, 256, 1024, 1024)], (1024, 1024)) == (0, 0, 1024, 256)


def test_a_narrow_part_is_shown_whole_and_undistorted_on_its_own_mean_colour() -> None:
    picture = Image.new("RGB", (40, 40), "blue")
    picture.paste((200, 100, 0), (10, 5, 20, 15))
    picture.paste((100, 50, 0), (10, 15, 20, 25))
    shown = square(picture, (10, 5, 20, 25))
    assert shown.size == (20, 20)
    assert shown.crop((5, 0, 15, 20)).tobytes() == picture.crop((10, 5, 20, 25)).tobytes()
    assert {shown.getpixel((x, y)) for x in (0, 4, 15, 19) for y in (0, 19)} == {(150, 75, 0)}
