"""The picture of a layout: boxes where they are, words inside the picture and off one another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cidm_cli.layout import load_layout
from cidm_cli.layout.advice import overlap
from cidm_cli.layout.lettering import SIZES, Plate, place
from cidm_cli.layout.picture import COLOURS, FILL, PAPER, canvas_size, draw_layout

HEAD = '[image]\noverlap = "{overlap}"\n[base]\nprompt = "a room"\n'


def region(box: tuple[float, ...], extra: str = "") -> str:
    return f'[[region]]\nprompt = "a <dog>"\nbox = {list(box)}\n{extra}\n'


def drawn(*regions: str, overlap: str = "average", size: tuple[int, int] = (512, 512)) -> np.ndarray:
    layout = load_layout("x", HEAD.format(overlap=overlap) + "".join(regions))
    return np.asarray(draw_layout(layout, size, {})).astype(int)


def at(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """The most common colour near a place, given as shares of the sides: neither a line nor a hatch."""
    height, width = picture.shape[:2]
    row, column = int(y * height), int(x * width)
    patch = picture[row - 9 : row + 10, column - 9 : column + 10].reshape(-1, 3)
    colours, counts = np.unique(patch, axis=0, return_counts=True)
    return colours[counts.argmax()]


def filled(*colours: tuple[int, int, int]) -> np.ndarray:
    mean = np.mean([np.array(colour, float) for colour in colours], axis=0)
    return np.array(PAPER) * (1 - FILL) + mean * FILL


@pytest.mark.parametrize("size", [(512, 512), (768, 512), (64, 64), (512, 1024), (4096, 256), (8, 4096)])
@pytest.mark.parametrize("regions", [0, 100])
def test_the_canvas_has_the_layouts_aspect_and_a_bounded_size(size: tuple[int, int], regions: int) -> None:
    width, height = canvas_size(size, regions)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02) or min(width, height) < 40
    assert max(width, height) <= 4096
    assert draw_layout(load_layout("x", HEAD.format(overlap="average")), size, {}).size == canvas_size(
        size, 0
    )


def test_a_region_is_filled_where_its_box_is_and_nowhere_else() -> None:
    picture = drawn(region((0.1, 0.5, 0.4, 0.9)))
    assert at(picture, 0.25, 0.85) == pytest.approx(filled(COLOURS[0]), abs=2)
    for x, y in ((0.06, 0.85), (0.45, 0.85), (0.25, 0.46), (0.25, 0.95)):
        assert at(picture, x, y) == pytest.approx(PAPER, abs=1)


def test_where_regions_meet_their_colours_are_mixed_or_the_later_one_shows() -> None:
    boxes = region((0.05, 0.3, 0.65, 0.95)), region((0.35, 0.3, 0.95, 0.95))
    mixed, later = drawn(*boxes), drawn(*boxes, overlap="priority")
    assert at(mixed, 0.5, 0.8) == pytest.approx(filled(COLOURS[0], COLOURS[1]), abs=2)
    assert at(later, 0.5, 0.8) == pytest.approx(filled(COLOURS[1]), abs=2)
    for picture in (mixed, later):
        row = picture[
            int(0.8 * picture.shape[0]), int(0.42 * picture.shape[1]) : int(0.58 * picture.shape[1])
        ]
        assert len(np.unique(row, axis=0)) > 1, "what overlaps is hatched"


def test_a_feather_fades_within_the_box_and_not_at_the_pictures_own_edge() -> None:
    picture = drawn(region((0.0, 0.3, 0.6, 0.95), "feather = 0.2"))
    strength = [abs(at(picture, x, 0.62) - np.array(PAPER)).sum() for x in (0.03, 0.35, 0.45, 0.55, 0.63)]
    assert strength[0] == strength[1] > strength[2] > strength[3] > strength[4] == 0


def test_a_mask_is_filled_in_its_own_shape() -> None:
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((32, 32, 63, 63), fill=255)
    layout = load_layout("x", HEAD.format(overlap="average") + '[[region]]\nprompt = "a"\nmask = "m.png"\n')
    picture = np.asarray(draw_layout(layout, (512, 512), {0: mask})).astype(int)
    assert at(picture, 0.75, 0.9) == pytest.approx(filled(COLOURS[0]), abs=2)
    assert at(picture, 0.25, 0.75) == pytest.approx(PAPER, abs=1)


def test_equal_layouts_give_equal_pictures() -> None:
    boxes = region((0, 0, 0.5, 1), "feather = 0.1"), region((0.4, 0, 1, 1))
    assert (drawn(*boxes) == drawn(*boxes)).all()


def test_a_hundred_regions_are_drawn_with_their_numbers() -> None:
    boxes = [(x / 10, y / 10, x / 10 + 0.08, y / 10 + 0.08) for y in range(10) for x in range(10)]
    assert drawn(*(region(box) for box in boxes)).shape == (1414, 1414, 3)


CANVAS = (1000, 700)
words = st.text(st.sampled_from("abc <>Жß犬"), max_size=60)
edges = st.tuples(st.floats(0, 0.98), st.floats(0, 0.98), st.floats(0.002, 1), st.floats(0.002, 1))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(words, edges), max_size=8))
def test_words_are_legible_inside_the_picture_and_never_on_one_another(
    regions: list[tuple[str, tuple[float, float, float, float]]],
) -> None:
    plates = [Plate("", "the whole picture", "with a note", (0, 0, 0), None)]
    for number, (text, (x, y, width, height)) in enumerate(regions):
        extent = (
            x * CANVAS[0],
            y * CANVAS[1],
            min(x + width, 1) * CANVAS[0],
            min(y + height, 1) * CANVAS[1],
        )
        plates.append(Plate(str(number), text, "box 0 0 1 1", (0, 0, 0), extent))
    placed = place(plates, CANVAS)
    assert [one.badge for one in placed if one.badge] == [str(number) for number in range(len(regions))]
    for one in placed:
        assert one.at is not None
        assert one.at[0] >= 0
        assert one.at[1] >= 0
        assert one.at[2] <= CANVAS[0]
        assert one.at[3] <= CANVAS[1]
        assert one.size >= SIZES[-1]
    written = [one.at for one in placed if one.at is not None and one.lines]
    for index, one in enumerate(written):
        assert all(overlap(one, other) == 0 for other in written[index + 1 :])


def test_words_that_do_not_fit_in_their_box_stand_beside_it() -> None:
    (tiny,) = place([Plate("0", "a photo of a <bird>", "", (0, 0, 0), (500.0, 300.0, 520.0, 320.0))], CANVAS)
    assert tiny.lines == ("a photo of a <bird>",)
    assert tiny.at is not None
    assert overlap(tiny.at, (500, 300, 520, 320)) == 0
