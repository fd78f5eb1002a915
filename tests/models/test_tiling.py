"""Large pictures in tiles: close to the whole, and ordinary ones as ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cidm_cli
from cidm_cli.models.base import WHOLE, Base, load
from cidm_cli.models.identity import MINI, folder_of, identify
from cidm_cli.models.sampling import decode, encode
from cidm_cli.models.tiling import tiled


@pytest.fixture(scope="module")
def mini() -> Base:
    """The embedded base, whose VAE was trained: of one with random weights tiles make something else."""
    return load(folder_of(identify(MINI)), device=torch.device("cpu"), compute=torch.float32)


def mosaic(base: Base) -> Image.Image:
    """Six pictures like those it was trained on, three across and two down."""
    side = base.pixels
    files = sorted((Path(cidm_cli.__file__).parent / "bases" / "mini_cifc" / "concepts").rglob("0[01].png"))
    whole = Image.new("RGB", (3 * side, 2 * side))
    for number, file in enumerate(files[:6]):
        with Image.open(file) as image:
            tile = image.convert("RGB").resize((side, side))
        whole.paste(tile, (number % 3 * side, number // 3 * side))
    return whole


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


def test_a_large_picture_in_tiles_is_close_to_the_same_as_a_whole(mini: Base) -> None:
    given = mosaic(mini)
    thrifty = replace(mini, whole=mini.pixels**2)
    (mean, std), (tiled_mean, tiled_std) = encode(mini, [given]), encode(thrifty, [given])
    assert mean.shape == tiled_mean.shape
    assert not torch.equal(mean, tiled_mean), "it was taken in tiles"
    assert float((mean - tiled_mean).abs().mean()) < 0.15 * float(mean.std())
    assert float((std - tiled_std).abs().mean()) < 0.01 * float(mean.std())
    whole, parts = (decode(one, mean)[0] for one in (mini, thrifty))
    assert whole.size == parts.size == given.size
    apart, lost = (np.abs(array(whole) - array(other)).mean() for other in (parts, given))
    assert 0 < apart < lost, "tiles change less than coding itself does"


def test_no_more_than_a_tile_at_a_time_reaches_the_vae(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    handle = base.vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    decode(replace(base, whole=64 * 64), torch.zeros(2, 4, 16, 24))
    handle.remove()
    assert len(seen) > 2 * 4
    assert all(shape[0] == 1 and max(shape[2:]) <= 8 for shape in seen)


@pytest.mark.parametrize("size", [(64, 64), (128, 32), (1448, 1448)])
def test_pictures_up_to_the_bound_do_not_know_of_tiles(size: tuple[int, int], base: Base) -> None:
    before = dict(vars(base.vae))
    with tiled(replace(base, whole=WHOLE if max(size) > 1000 else 64 * 64), size):
        assert not base.vae.use_tiling
        assert dict(vars(base.vae)) == before


def test_the_vae_is_as_it_was_after_tiles_even_if_they_fail(base: Base) -> None:
    before = dict(vars(base.vae))

    def fail() -> None:
        with tiled(replace(base, whole=1), (128, 128)):
            assert base.vae.use_tiling
            assert base.vae.tile_latent_min_size == 8
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert dict(vars(base.vae)) == before
