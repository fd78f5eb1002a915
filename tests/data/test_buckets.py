"""Pictures of several aspects: each is learned at a size near its own, and a batch holds pictures of one size."""

from __future__ import annotations

from collections import Counter
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from cidm_cli.data import bucket, placement
from cidm_cli.errors import CidmError
from cidm_cli.learn.batches import Prepared, draw, prepare
from cidm_cli.learn.run import Events, caption_tokens
from cidm_cli.models.base import Base
from cidm_cli.options.learn import LearnOptions, resolve_learn
from cidm_registry import Registry
from command import Cidm
from learning import FAST, learn_direct, task

SIZES = ((80, 72), (120, 40), (40, 120), (126, 42), (72, 80))
"""Two squares, two wide ones and a tall one."""


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of several aspects, which the small base has room for where sizes have smaller steps."""
    monkeypatch.setattr(placement, "STEP", 32)
    folder = tiny.save_pictures(tmp_path / "mixed", ("a photo of a dog",) * len(SIZES))
    for number, size in enumerate(SIZES):
        Image.open(folder / f"{number}.png").resize(size).save(folder / f"{number}.png")
    mask = Image.new("L", SIZES[1], 0)
    mask.paste(255, (0, 0, 60, 40))
    mask.save(folder / "1-mask.png")
    return folder


def prepared(
    base: Base, folder: Path, **options: Any
) -> tuple[Prepared, LearnOptions, list[tuple[int, int]]]:
    work = task(folder, **options)
    data = prepare(base, work.dataset, caption_tokens(base, work, Events()), work.options)
    return data, work.options, [example.image.size for example in work.dataset.examples]


# Which sizes there are


@pytest.mark.parametrize("pixels", [512, 768, 1024])
def test_sizes_have_about_the_bases_area_and_sides_in_steps(pixels: int) -> None:
    for width in range(20, 201, 3):
        chosen = bucket((width, 63), pixels)
        assert all(side % 64 == 0 and pixels // 2 <= max(chosen) <= 2 * pixels for side in chosen)
        assert 0.8 * pixels**2 < chosen[0] * chosen[1] <= pixels**2
        if 0.4 < width / 63 < 2.5:
            assert abs(log(chosen[0] / chosen[1] / (width / 63))) < 0.2, "little is cut off"


def test_a_square_picture_is_learned_at_the_bases_own_size_and_a_turned_one_at_the_turned_size() -> None:
    for pixels in (64, 96, 512, 1024):
        assert bucket((700, 700), pixels) == (pixels, pixels)
    for size in ((1920, 1080), (4000, 3000), (100, 10)):
        assert bucket(size[::-1], 1024) == bucket(size, 1024)[::-1]
    assert bucket((4000, 3000), 1024) == (1152, 896)
    assert bucket((10, 100), 1024) == (512, 2048)


def test_buckets_are_on_for_large_bases_and_off_for_the_small_one() -> None:
    chosen = {kind: resolve_learn({}, kind).buckets for kind in ("mini", "sd15", "sdxl")}
    assert chosen == {"mini": False, "sd15": True, "sdxl": True}


# What is learned from them


def test_pictures_and_masks_are_encoded_at_their_own_size(base: Base, mixed: Path) -> None:
    data, _, sizes = prepared(base, mixed, crop=False)
    assert data.masks is not None
    for size, mean, std, mask in zip(sizes, data.mean, data.std, data.masks, strict=True):
        wide, tall = size[0] > 2 * size[1], size[1] > 2 * size[0]
        cells = (4, 12) if wide else (12, 4) if tall else (8, 8)
        assert mean.shape == std.shape == (1, 4, *cells)
        assert mask.shape == (1, 1, *cells)
    left_half = data.masks[sizes.index(SIZES[1])][0, 0]
    assert left_half[:, :5].min() > 0.95
    assert left_half[:, 7:].max() < 0.05


def test_without_buckets_all_pictures_are_cut_square(base: Base, mixed: Path) -> None:
    data, _, _ = prepared(base, mixed, buckets=False)
    assert {mean.shape[-2:] for mean in data.mean} == {(8, 8)}


@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (2, 1), (3, 2)])
def test_a_batch_holds_one_size_and_every_picture_is_learned_as_often(
    batch: int, accumulate: int, base: Base, mixed: Path
) -> None:
    data, options, _ = prepared(base, mixed, batch=batch, accumulate=accumulate)
    seen: Counter[int] = Counter()
    order = []
    # In 5 batches each size has as many as it has pictures; in 6 times that, every picture its turns.
    steps = 30 // accumulate
    for step in range(steps):
        for part in range(accumulate):
            drawn = draw(data, options, step, 1000, part)
            assert {data.mean[picture].shape for picture in drawn.pictures} == {
                data.mean[drawn.pictures[0]].shape
            }
            assert drawn.clean.shape == drawn.noise.shape == (batch, *data.mean[drawn.pictures[0]].shape[1:])
            assert drawn.mask is not None
            assert drawn.mask.shape[-2:] == drawn.clean.shape[-2:]
            seen.update(drawn.pictures)
            order.append(drawn.pictures[0])
    assert {*seen.values()} == {30 * batch // len(SIZES)}
    assert len({tuple(order[k : k + 5]) for k in range(0, 30, 5)}) > 1, "not the same order each time"


def test_a_batch_is_a_function_of_seed_and_step_alone(base: Base, mixed: Path) -> None:
    data, options, _ = prepared(base, mixed)
    forwards = [draw(data, options, step, 1000) for step in range(8)]
    backwards = [draw(data, options, step, 1000) for step in reversed(range(8))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.pictures == other.pictures
        assert torch.equal(one.clean, other.clean)
        assert torch.equal(one.noise, other.noise)


def test_a_resumed_training_on_several_sizes_ends_in_the_same_bytes(
    base: Base, tiny_registry: Registry, mixed: Path
) -> None:
    other = Registry.create(tiny_registry.root.with_name("other"), tiny_registry.base)
    whole = learn_direct(other, base, task(mixed, steps=5)).blob
    done = [0]
    events = Events(on_step=lambda n, _: done.__setitem__(0, n), stop=lambda: done[0] == 2)
    with pytest.raises(CidmError, match="stopped"):
        learn_direct(tiny_registry, base, task(mixed, steps=5), events)
    assert learn_direct(tiny_registry, base, task(mixed, steps=5, resume=True)).blob == whole


def test_sdxl_is_told_the_true_size_and_where_the_piece_was_cut(sdxl: Base, mixed: Path) -> None:
    data, _, sizes = prepared(sdxl, mixed, crop=False)
    assert data.sizes is not None
    told = {size: row.int().tolist() for size, row in zip(sizes, data.sizes[:, 0], strict=True)}
    # Height and width before; top and left of the piece in the resized picture; height and width of the piece.
    assert told[(120, 40)] == [40, 120, 0, 0, 32, 96]
    assert told[(40, 120)] == [120, 40, 0, 0, 96, 32]
    assert told[(80, 72)] == [72, 80, 0, 4, 64, 64]


def test_sdxl_learns_pictures_of_several_sizes(
    sdxl: Base, tiny_sdxl: Path, mixed: Path, tmp_path: Path
) -> None:
    from cidm_cli.models.identity import identify

    registry = Registry.create(tmp_path / "registry", identify(str(tiny_sdxl)))
    work = task(mixed, steps=5, checkpointing=True, accumulate=2)
    assert learn_direct(registry, sdxl, work).losses["steps"] == 5


def test_the_plan_says_which_sizes_there_will_be(cidm: Cidm, tiny_registry: Registry, mixed: Path) -> None:
    ran = cidm("learn", "dog", mixed, "--registry", tiny_registry.root, *FAST, "--dry-run", "--json")
    assert ran.answer["plan"]["sizes"] == [[32, 96], [64, 64], [96, 32]]
