"""The judge of outlines: what it cuts out, and that it tells shapes apart whatever their colours and places are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tools.mini.outline import SIDE, clearest_background, cut_out, fits, overlap, scaled, shape_of

GREY = (140, 140, 140)


def sprite(shape: str, colour: tuple[int, int, int]) -> Image.Image:
    """A drawing of 60 x 60 pixels on nothing."""
    image = Image.new("RGBA", (60, 60))
    draw = ImageDraw.Draw(image)
    if shape == "disc":
        draw.ellipse((0, 0, 59, 59), fill=colour)
    elif shape == "ring":
        draw.ellipse((0, 0, 59, 59), outline=colour, width=9)
    elif shape == "bar":
        draw.rectangle((0, 20, 59, 39), fill=colour)
    else:
        draw.polygon([(0, 59), (59, 59), (0, 0)], fill=colour)
    return image


def on_grey(thing: Image.Image, side: int, left: int, top: int) -> Image.Image:
    canvas = Image.new("RGB", (64, 64), GREY)
    small = thing.resize((side, side))
    canvas.paste(small, (left, top), small)
    return canvas


SHAPES = {name: [scaled(shape_of(sprite(name, (0, 0, 0))))] for name in ("disc", "bar", "corner")}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", [(200, 30, 30), (250, 250, 250), (20, 20, 160)])
@pytest.mark.parametrize(("side", "left", "top"), [(40, 12, 12), (28, 3, 30), (52, 6, 8)])
def test_a_shape_is_told_whatever_its_colour_size_and_place(shape, colour, side, left, top) -> None:
    found = fits(on_grey(sprite(shape, colour), side, left, top), SHAPES)
    assert max(found, key=found.get) == shape
    assert found[shape] > 0.85


def test_a_shape_that_is_mirrored_is_the_same() -> None:
    mirrored = on_grey(sprite("corner", (200, 30, 30)).transpose(Image.Transpose.FLIP_LEFT_RIGHT), 40, 10, 10)
    assert fits(mirrored, SHAPES)["corner"] > 0.85


def test_a_hole_of_the_backgrounds_colour_is_of_the_thing() -> None:
    ring = cut_out(on_grey(sprite("ring", (200, 30, 30)), 40, 12, 12))
    disc = cut_out(on_grey(sprite("disc", (200, 30, 30)), 40, 12, 12))
    assert overlap(ring, disc) > 0.95


def test_a_speck_is_left_out() -> None:
    image = on_grey(sprite("disc", (200, 30, 30)), 30, 20, 20)
    clean = cut_out(image)
    image.putpixel((2, 2), (0, 0, 0))
    assert np.array_equal(cut_out(image), clean)


def test_nothing_drawn_fits_nothing() -> None:
    assert set(fits(Image.new("RGB", (64, 64), GREY), SHAPES).values()) == {0.0}


def test_an_outline_fills_its_square_and_keeps_its_proportions() -> None:
    bar = scaled(shape_of(sprite("bar", (0, 0, 0))))
    rows, columns = np.flatnonzero(bar.any(1)), np.flatnonzero(bar.any(0))
    assert len(columns) == SIDE
    assert len(rows) == round(SIDE / 3)


@pytest.mark.parametrize(
    ("colour", "never"), [((246, 246, 246), "white"), ((214, 48, 49), "red"), ((18, 18, 18), "black")]
)
def test_a_drawing_is_put_where_its_edge_shows(colour, never) -> None:
    assert clearest_background(sprite("disc", colour)) != never
