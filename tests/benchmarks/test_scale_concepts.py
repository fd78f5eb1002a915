"""The scale test's concepts: recolouring keeps the drawing, the order is as told, and what is written can be read."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.concepts import concepts, write
from benchmarks.looks import ROWS
from benchmarks.recolour import COLOURS, PATTERNS, dye, paint, pattern_mask, wear
from cidm_cli.data import load_examples
from cidm_cli.judge.tasks import load_tasks
from tools.mini.world import CORE


def sprite(main: tuple[int, int, int], second: tuple[int, int, int]) -> Image.Image:
    """A shaded square of ``main`` with a corner of ``second``, a black eye, and nothing around."""
    pixels = np.zeros((40, 40, 4), np.uint8)
    light = np.linspace(0.8, 1.0, 32)[:, None, None]
    pixels[4:36, 4:36, :3] = np.array(main) * light
    pixels[4:12, 4:12, :3] = second
    pixels[18:22, 18:22, :3] = 10
    pixels[4:36, 4:36, 3] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("main", "second"), [((230, 150, 80), (40, 90, 220)), ((200, 200, 205), (220, 30, 40))]
)
def test_a_dye_changes_the_main_colour_and_nothing_else(main: tuple, second: tuple) -> None:
    before = np.asarray(sprite(main, second), int)
    after = np.asarray(dye(sprite(main, second), "green"), int)
    assert np.array_equal(after[:, :, 3], before[:, :, 3])
    assert np.array_equal(after[4:12, 4:12], before[4:12, 4:12])
    assert np.array_equal(after[18:22, 18:22], before[18:22, 18:22])
    body = after[24:34, 24:34, :3]
    assert np.abs(body.mean((0, 1)) - COLOURS["green"]).max() < 40
    assert body[-1].sum() > body[0].sum()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_covers_a_part_that_shows_and_leaves_the_rest_as_it_was(pattern: str) -> None:
    before = sprite((230, 150, 80), (40, 90, 220))
    after = paint(before, pattern, "teal")
    changed = np.abs(np.asarray(after, int) - np.asarray(before, int)).sum(2) > 0
    covered = pattern_mask(pattern, before.size) > 0.5
    assert not (changed & ~covered).any()
    drawn = np.asarray(before)[:, :, 3] > 0
    assert 0.15 < changed[drawn].mean() < 0.7


def test_what_is_put_on_lies_on_top_and_may_stand_out_of_the_box() -> None:
    body, hat = sprite((230, 150, 80), (40, 90, 220)), Image.new("RGBA", (10, 10), (1, 2, 3, 255))
    worn = wear(body, hat, (0.5, 0.0), 0.5)
    assert worn.size == (40, 50)
    assert worn.getpixel((20, 15)) == (1, 2, 3, 255)
    assert worn.crop((0, 20, 40, 50)).tobytes() == body.crop((0, 10, 40, 40)).tobytes()


def test_fewer_concepts_are_the_first_of_more_and_each_subset_has_look_alikes() -> None:
    most = sum(len(looks) for row in ROWS for looks in row.values())
    assert most >= 100
    everyone = concepts(most)
    assert all(concepts(n) == everyone[:n] for n in (1, 10, 30, 100))
    assert Counter(Counter(c.noun for c in everyone[:10]).values()) == {2: 5}
    assert Counter(Counter(c.noun for c in everyone[:30]).values()) == {4: 5, 2: 5}
    with pytest.raises(ValueError, match=str(most)):
        concepts(most + 1)


def test_no_two_look_the_same_and_the_base_knows_every_class() -> None:
    looks = list(chain.from_iterable(chain.from_iterable(row.values() for row in ROWS)))
    assert len(set(looks)) == len(looks)
    assert {noun for row in ROWS for noun in row} <= set(CORE)


def test_what_is_written_is_a_benchmark_and_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "art" / "assets").mkdir(parents=True)
    for look in {concept.look for concept in concepts(10)}:
        colour = np.random.default_rng(len(look.code)).integers(80, 255, 3)
        sprite(tuple(colour), (40, 90, 220)).save(
            tmp_path / "art" / "assets" / f"{look.code}.webp", lossless=True
        )
    for name in ("first", "second"):
        write(tmp_path / "art", tmp_path / name, 10)
    tasks = load_tasks(tmp_path / "first")
    assert [task.name for task in tasks] == [concept.name for concept in concepts(10)]
    for task in tasks:
        dataset = load_examples(task.images, class_noun=task.class_noun)
        assert len(dataset.examples) == 5
        assert not dataset.warnings
        assert {example.image.size for example in dataset.examples} == {(64, 64)}
        assert all(task.class_noun in example.caption for example in dataset.examples)
        assert len({example.caption for example in dataset.examples}) == 5
    files = sorted(file.relative_to(tmp_path / "first") for file in (tmp_path / "first").rglob("*.*"))
    assert all((tmp_path / "first" / f).read_bytes() == (tmp_path / "second" / f).read_bytes() for f in files)
    with pytest.raises(FileExistsError):
        write(tmp_path / "art", tmp_path / "first", 10)
