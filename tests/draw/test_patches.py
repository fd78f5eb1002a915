"""Cutting a part out of a picture and putting it back: what is outside keeps every bit, and soft edges stay inside."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cidm_cli.draw.patches import (
    box_mask,
    feathered,
    fitting_size,
    parse_box,
    pasted,
    pixel_box,
    touched,
    window_around,
)
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.files.given import read_given, read_mask


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


def mask_of(rows: list[str]) -> Image.Image:
    """255 where there is a #, 128 at a +, 0 elsewhere."""
    return Image.fromarray(
        np.array([[{"#": 255, "+": 128}.get(c, 0) for c in row] for row in rows], np.uint8)
    )


# Boxes


def test_edges_up_to_1_are_shares_and_others_pixels() -> None:
    assert pixel_box(parse_box("0.25,0,1,0.5"), (80, 40), "x") == (20, 0, 80, 20)
    assert pixel_box(parse_box("25,0,80,1.5"), (80, 40), "x") == (25, 0, 80, 2)
    assert pixel_box(parse_box("0,0,1,1"), (80, 40), "x") == (0, 0, 80, 40)


def test_the_smallest_box_is_one_pixel_of_the_picture() -> None:
    for text in ("0,0,0.001,0.001", "0.999,0.999,1,1"):
        x0, y0, x1, y1 = pixel_box(parse_box(text), (80, 40), "x")
        assert (x1 - x0, y1 - y0) == (1, 1)
        assert 0 <= x0 < x1 <= 80
        assert 0 <= y0 < y1 <= 40


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "a,b,c,d", "0,0,nan,1", "0,0,inf,1", "-1,0,1,1", "0.5,0,0.5,1", "1,1,0,0", "0;0;1;1"],
)
def test_a_box_that_is_none_is_refused_as_typed(text: str) -> None:
    with pytest.raises(CidmError) as caught:
        parse_box(text)
    assert caught.value.code == ExitCode.USAGE
    assert text in caught.value.message


@pytest.mark.parametrize("text", ["0,0,81,40", "0,0,2,41", "80,0,90,10"])
def test_a_box_out_of_the_picture_is_refused_with_the_pictures_size(text: str) -> None:
    with pytest.raises(CidmError) as caught:
        pixel_box(parse_box(text), (80, 40), "house.png")
    assert caught.value.code == ExitCode.USAGE
    assert "house.png is 80 x 40" in caught.value.message


def test_a_box_mask_is_white_in_the_box_alone() -> None:
    values = np.asarray(box_mask((2, 1, 5, 3), (7, 4)))
    for y, x in itertools.product(range(4), range(7)):
        assert values[y, x] == (255 if 2 <= x < 5 and 1 <= y < 3 else 0)


# Windows and sizes


@pytest.mark.parametrize("size", [(64, 64), (200, 90), (31, 500)])
@pytest.mark.parametrize("context", [1.0, 1.5, 3.0])
def test_a_window_holds_its_box_and_a_pixel_around_it_and_lies_in_the_picture(
    size: tuple[int, int], context: float
) -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        x0, y0 = int(rng.integers(0, size[0])), int(rng.integers(0, size[1]))
        box = (x0, y0, int(rng.integers(x0, size[0])) + 1, int(rng.integers(y0, size[1])) + 1)
        window = window_around(box, size, context)
        longer = max(box[2] - box[0], box[3] - box[1])
        for low, high in ((0, 2), (1, 3)):
            assert 0 <= window[low] <= max(box[low] - 1, 0)
            assert min(box[high] + 1, size[low]) <= window[high] <= size[low]
            assert window[high] - window[low] == min(max(round(context * longer), longer + 2), size[low])


def test_a_window_is_centred_where_there_is_room() -> None:
    assert window_around((40, 50, 60, 70), (200, 200), 2.0) == (30, 40, 70, 80)
    assert window_around((0, 50, 20, 70), (200, 200), 2.0) == (0, 40, 40, 80)


@pytest.mark.parametrize("size", [(64, 64), (1000, 700), (20, 200), (16, 160), (4000, 401)])
def test_a_fitting_size_has_the_shape_and_about_the_pixels_wanted(size: tuple[int, int]) -> None:
    for side, multiple in ((64, 16), (512, 64)):
        width, height = fitting_size(size, side, multiple)
        assert width % multiple == height % multiple == 0
        assert min(width, height) >= multiple
        scale = side / (size[0] * size[1]) ** 0.5
        for got, wanted in ((width, size[0] * scale), (height, size[1] * scale)):
            assert abs(got - max(wanted, multiple)) <= multiple / 2


def test_the_bases_own_shape_is_drawn_at_the_bases_own_size() -> None:
    for side in (17, 64, 1023):
        assert fitting_size((side, side), 512, 64) == (512, 512)


# Masks


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (16, 8), (7, 7)])
def test_a_cell_is_touched_if_any_part_of_a_masked_pixel_lies_in_it(grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    values = ((rng.random((12, 10)) > 0.93) * rng.integers(1, 256, (12, 10))).astype(np.uint8)
    found = touched(Image.fromarray(values), grid)
    assert found.shape == (grid[1], grid[0])
    for row, column in itertools.product(range(grid[1]), range(grid[0])):
        wanted = any(
            values[y, x]
            # Strictly: sides that only meet share no area.
            and x * grid[0] < (column + 1) * 10 and (x + 1) * grid[0] > column * 10
            and y * grid[1] < (row + 1) * 12 and (y + 1) * grid[1] > row * 12
            for y, x in itertools.product(range(12), range(10))
        )  # fmt: skip
        assert found[row, column] == wanted, (row, column)


def test_a_feather_fades_inside_the_mask_in_proportion_to_the_way_out() -> None:
    rng = np.random.default_rng(2)
    inside = rng.random((9, 11)) > 0.3
    inside[2:7, 3:9] = True
    mask = Image.fromarray(np.where(inside, 200, 0).astype(np.uint8))
    soft = np.asarray(feathered(mask, 3.0)).astype(float)
    outside = [(y, x) for y, x in itertools.product(range(9), range(11)) if not inside[y, x]]
    for y, x in itertools.product(range(9), range(11)):
        steps = min(abs(y - v) + abs(x - u) for v, u in outside)
        wanted = 200 * min(1.0, max(0.0, (steps - 0.5) / 3.0))
        assert abs(soft[y, x] - wanted) <= 0.5, (y, x)


@pytest.mark.parametrize("width", [0.0, 0.3, 2.0, 50.0])
def test_a_feather_never_reaches_out_of_the_mask(width: float) -> None:
    mask = mask_of(["........", ".####+..", ".####+..", "......#."])
    soft, hard = (np.asarray(image).astype(int) for image in (feathered(mask, width), mask))
    assert (soft <= hard).all()
    if width < 0.5:
        assert (soft == hard).all()
    else:
        assert (soft < hard).any()


def test_a_mask_does_not_fade_at_the_pictures_own_edge() -> None:
    everything = Image.new("L", (6, 4), 255)
    assert (np.asarray(feathered(everything, 3.0)) == 255).all()
    left_half = mask_of(["###...", "###...", "###..."])
    soft = np.asarray(feathered(left_half, 2.0))
    assert (soft[:, 0] == 255).all()
    assert (soft[:, 2] < 255).all()


def test_pasting_keeps_every_bit_where_alpha_is_0_and_takes_the_patch_where_it_is_255() -> None:
    picture, patch = noise((20, 15)), noise((8, 6), seed=1)
    alpha = np.random.default_rng(3).choice([0, 100, 255], (6, 8)).astype(np.uint8)
    before = np.asarray(picture).copy()
    out = np.asarray(pasted(picture, patch, Image.fromarray(alpha), (5, 4, 13, 10)))
    assert (np.asarray(picture) == before).all(), "what was given is not changed"
    for y, x in itertools.product(range(15), range(20)):
        inside = 5 <= x < 13 and 4 <= y < 10
        share = int(alpha[y - 4, x - 5]) / 255 if inside else 0
        patched = np.asarray(patch)[y - 4, x - 5].astype(float) if inside else 0
        wanted = (1 - share) * before[y, x] + share * patched
        assert np.abs(out[y, x] - wanted).max() <= (0 if share in (0, 1) else 1), (y, x)


# Files


def test_a_given_picture_is_told_by_its_files_hash_and_stands_upright(tmp_path: Path) -> None:

    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    noise((40, 20)).save(path, exif=exif)
    given = read_given(path)
    assert given.image.size == (20, 40)
    assert given.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_mask_without_white_is_refused(tmp_path: Path) -> None:

    path = tmp_path / "mask.png"
    Image.new("L", (40, 20), 0).save(path)
    with pytest.raises(CidmError) as caught:
        read_mask(path)
    assert caught.value.code == ExitCode.INVALID
    assert "mask.png" in caught.value.message
