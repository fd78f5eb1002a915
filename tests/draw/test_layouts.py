"""Layouts with regions: what is drawn where, at what cost, and again from the picture."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from cidm_cli.draw import png, views
from cidm_cli.draw import scenes as layouts
from cidm_cli.draw.again import redraw
from cidm_cli.draw.encoded import Texts
from cidm_cli.draw.images import draw, read_static
from cidm_cli.draw.jobs import COMPLETE, Ablation, Job, check
from cidm_cli.draw.mixtures import Loader
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout import Layout, load_layout
from cidm_cli.models import regional, sampling
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import DrawOptions, resolve_draw
from cidm_registry import Registry
from command import Cidm
from learning import files_of, learn_direct, task

DOG, CAT, BEACH = "a photo of a <dog>", "a photo of a <cat>", "a photo of the beach"
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
EVERYWHERE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that knows <dog>, also in self-attention, and <cat>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog"), targets="attn1+attn2"))
    cats = tiny.save_pictures(folder / "cat", ("a photo of a cat",) * 3, seed=2)
    learn_direct(registry, base, task(cats, name="cat", noun="cat"))
    return registry


def layout(
    *regions: tuple[str, tuple[float, ...]] | dict[str, Any], prompt: str = BEACH, **image: Any
) -> Layout:
    """Regions as (prompt, box) or as tables; ``alpha`` and the keys of [image] beside them."""
    base = {"prompt": prompt, "alpha": image.pop("alpha", 0.1)}
    tables = [r if isinstance(r, dict) else {"prompt": r[0], "box": r[1]} for r in regions]
    return Layout.model_validate({"image": image, "base": base, "region": tables})


def settings(base: Base, **said: Any) -> DrawOptions:
    return resolve_draw({"steps": 2, **said}, "sd15", base.pixels)


def job(base: Base, told: Layout | str, ablation: Ablation = COMPLETE, **said: Any) -> Job:
    if isinstance(told, str):
        return Job(told, settings(base, **said))
    return Job(told.base.prompt, settings(base, **said), told, ablation)


def pictures(base: Base, registry: Registry, some: Job, **how: Any) -> list[np.ndarray]:
    return [np.asarray(p.image).astype(int) for p in draw(registry, base, [some], **how)]


def one(base: Base, registry: Registry, some: Job, **how: Any) -> np.ndarray:
    (picture,) = pictures(base, registry, some, **how)
    return picture


def apart(first: np.ndarray, second: np.ndarray) -> int:
    """Largest difference of two pictures, of 255."""
    return int(abs(first - second).max())


def prepared(base: Base, registry: Registry, some: Job) -> layouts.Scene:
    load = Loader(registry, base)
    chosen = layouts.choose(base, load, registry.records(), some)
    return layouts.prepare(base, [layouts.Part(some, chosen, (0, 1))], Texts(base, load))


def following(base: Base, registry: Registry, some: Job) -> sampling.Estimate:
    """What two pictures of a job are denoised by."""
    load = Loader(registry, base)
    part = layouts.Part(some, layouts.choose(base, load, registry.records(), some), (0, 1))
    scene = layouts.prepare(base, [part], Texts(base, load))
    return views.estimate(base, scene, [part], layouts.merging(base, part.chosen, load))


LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor(500)


def estimated(base: Base, registry: Registry, some: Job, latents: torch.Tensor = LATENTS) -> torch.Tensor:
    with torch.no_grad():
        return following(base, registry, some)(latents, T, 0)


# A layout draws what a prompt draws


@pytest.mark.parametrize("mode", ["fast", "full"])
@pytest.mark.parametrize("whole", [DOG, BEACH])
def test_a_region_everywhere_with_the_whole_prompt_is_the_plain_prompt(
    base: Base, taught: Registry, whole: str, mode: str
) -> None:
    told = layout((whole, EVERYWHERE), prompt=whole, mode=mode)
    assert apart(one(base, taught, job(base, told)), one(base, taught, job(base, whole))) <= 2


@pytest.mark.parametrize(
    "how", [{"mode": "fast"}, {"mode": "full"}, {"mode": "full", "crops": True}], ids=str
)
@pytest.mark.parametrize("size", [(64, 64), (96, 64)], ids=str)
def test_a_region_everywhere_leaves_nothing_of_the_whole_prompt(
    base: Base, taught: Registry, how: dict[str, Any], size: tuple[int, int]
) -> None:
    """Neither its words nor its concept's weights, in self-attention and with a negative prompt too."""
    told = layout((CAT, EVERYWHERE), prompt=DOG, alpha=0.0, **how)
    found = one(base, taught, job(base, told, size=size, negative="red"))
    wanted = one(base, taught, job(base, CAT, size=size, negative="red"))
    assert apart(found, wanted) <= 2
    assert apart(wanted, one(base, taught, job(base, DOG, size=size, negative="red"))) > 10


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_regions_own_negative_prompt_takes_the_place_of_the_whole_ones(
    base: Base, taught: Registry, mode: str
) -> None:
    told = layout({"prompt": "a toy", "box": EVERYWHERE, "negative": "red"}, alpha=0.0, mode=mode)
    found = one(base, taught, job(base, told, negative="snow"))
    assert apart(found, one(base, taught, job(base, "a toy", negative="red"))) <= 2
    assert apart(found, one(base, taught, job(base, "a toy", negative="snow"))) > 2


def test_a_layout_without_regions_is_its_prompt(base: Base, taught: Registry) -> None:
    assert apart(one(base, taught, job(base, layout(prompt=DOG))), one(base, taught, job(base, DOG))) == 0


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_concept_that_no_region_names_changes_nothing(
    base: Base, taught: Registry, tmp_path: Path, mode: str
) -> None:
    told = job(base, layout((DOG, LEFT), mode=mode))
    mine = Registry.open(shutil.copytree(taught.root, tmp_path / "mine"))
    before = one(base, mine, told)
    mine.remove("cat")
    assert apart(one(base, mine, told), before) == 0


# Eq. 4 and 5


def test_full_mode_composes_each_regions_estimate_with_the_whole_ones(base: Base, taught: Registry) -> None:
    """Each row asked for by itself: E sees both regions, E_u sees its own, and all are guided from one without."""
    some = job(base, layout((DOG, (0, 0, 0.625, 1)), (CAT, (0.375, 0, 1, 1)), alpha=0.3), guidance=5.0)
    scene = prepared(base, taught, some)

    def alone(source: int, *regions: int) -> torch.Tensor:
        """One row: sources 2 and 4 are the regions without their prompts, 3 and 5 with them."""

        def weights(grid: tuple[int, int]) -> torch.Tensor:
            masks = torch.zeros(2, grid[1], grid[0])
            # A cell of which a region holds half is the region's.
            masks[0, :, : math.floor(0.625 * grid[0] + 0.5)] = 1
            masks[1, :, math.ceil(0.375 * grid[0] - 0.5) :] = 1
            masks = masks[list(regions)]
            return (masks / masks.sum(0).clamp(min=1))[:, None]

        patches = tuple(2 + 2 * region + source for region in regions)
        rows = regional.arranged(base, scene.cache, regional.Rows((source,), patches, weights), (8, 8))
        return torch.cat([regional.predict(base, LATENTS[k : k + 1], T, rows) for k in range(2)])

    with torch.no_grad():
        without = alone(0, 0, 1)
        guided = [without + 5.0 * (given - without) for given in (alone(1, 0, 1), alone(1, 0), alone(1, 1))]
    wanted = guided[0].clone()
    for x in range(8):
        inside = [guided[1]] * (x < 5) + [guided[2]] * (x >= 3)
        mean = sum(inside) / len(inside)
        wanted[..., x] = (0.3 * guided[0] + 0.7 * mean)[..., x]
    torch.testing.assert_close(estimated(base, taught, some), wanted, rtol=1e-3, atol=1e-4)


def test_the_printed_form_of_the_composition_can_be_measured(base: Base, taught: Registry) -> None:
    told = layout((DOG, LEFT), alpha=0.1)
    corrected, literal, whole = (
        estimated(base, taught, job(base, told, ablation))
        for ablation in (COMPLETE, Ablation(form="paper"), Ablation(noise=False))
    )
    torch.testing.assert_close(corrected[..., 4:], whole[..., 4:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(literal[..., 4:], 0.1 * whole[..., 4:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(literal[..., :4], corrected[..., :4], rtol=1e-3, atol=1e-4)


def test_what_is_left_out_makes_another_picture(base: Base, taught: Registry) -> None:
    told = layout((DOG, LEFT), (CAT, (0.4, 0.0, 1.0, 1.0)))
    ways = [
        COMPLETE,
        Ablation(attention=False),
        Ablation(noise=False),
        Ablation(False, False),
        Ablation(form="paper"),
    ]
    found = [estimated(base, taught, job(base, told, way)) for way in ways]
    assert all(not torch.equal(a, b) for k, a in enumerate(found) for b in found[:k])
    fast = told.model_copy(update={"image": told.image.model_copy(update={"mode": "fast"})})
    assert torch.equal(estimated(base, taught, job(base, fast)), found[2])
    plain = layout(prompt=BEACH)
    without = following(base, taught, job(base, told, Ablation(False, False)))
    with torch.no_grad():
        torch.testing.assert_close(without(LATENTS, T, 0), found[3])
    assert (
        apart(one(base, taught, job(base, told, Ablation(False, False))), one(base, taught, job(base, plain)))
        <= 2
    )


def test_without_regional_attention_a_regions_estimate_is_its_own_prompts(
    base: Base, taught: Registry
) -> None:
    """Its weights and words everywhere, in its box only."""
    told = layout((CAT, LEFT), prompt=DOG, alpha=0.0)
    found = estimated(base, taught, job(base, told, Ablation(attention=False)))
    cat, dog = (
        estimated(base, taught, job(base, layout((CAT, LEFT), prompt=prompt), Ablation(False, False)))
        for prompt in (CAT, DOG)
    )
    torch.testing.assert_close(found[..., :4], cat[..., :4], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[..., 4:], dog[..., 4:], rtol=1e-3, atol=1e-4)


# What it costs


@pytest.fixture
def rows(base: Base, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows the UNet is asked for at each of its calls."""
    seen: list[int] = []
    forward = base.denoiser.forward

    def spy(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(latents))
        return forward(latents, *args, **kwargs)

    monkeypatch.setattr(base.denoiser, "forward", spy)
    return seen


MANY = [(DOG, (k / 5, 0.0, (k + 1) / 5, 1.0)) for k in range(5)]


def test_fast_mode_asks_for_two_evaluations_a_step_however_many_boxes(
    base: Base, taught: Registry, rows: list[int]
) -> None:
    for number in (1, 5):
        one(base, taught, job(base, layout(*MANY[:number], mode="fast")))
        assert rows == [2, 2]
        rows.clear()


def test_full_mode_asks_for_two_evaluations_and_one_a_region(
    base: Base, taught: Registry, rows: list[int]
) -> None:
    pictures(base, taught, job(base, layout(*MANY), count=2, batch=7))
    assert rows == [14, 14]


def test_no_more_rows_at_once_than_a_batch_of_prompts_has(
    base: Base, taught: Registry, rows: list[int]
) -> None:
    told = layout(*MANY)
    few = pictures(base, taught, job(base, told, count=2, batch=2, steps=1))
    assert rows == [4, 4, 4, 2]
    many = pictures(base, taught, job(base, told, count=2, batch=7, steps=1))
    assert max(apart(a, b) for a, b in zip(few, many, strict=True)) <= 2


def test_crops_of_equal_size_go_together(base: Base, taught: Registry, rows: list[int]) -> None:
    sizes = {window[2] - window[0] for window in windows(base, taught, layout(*MANY, crops=True))}
    assert sizes == {4}
    one(base, taught, job(base, layout(*MANY, crops=True), batch=5, steps=1))
    assert rows == [2, 10]


def test_crops_have_no_say_where_little_noise_is_left(base: Base, taught: Registry) -> None:
    some = job(base, layout((DOG, LEFT), (CAT, RIGHT), crops=True))
    attended = job(base, layout((DOG, LEFT), (CAT, RIGHT), mode="fast"))
    with torch.no_grad():
        cropped, fast = (following(base, taught, one) for one in (some, attended))
        found = {
            (t, step): (cropped(LATENTS, torch.tensor(t), step), fast(LATENTS, torch.tensor(t), step))
            for t, step in ((301, 0), (299, 0), (299, 1))
        }
    assert not torch.allclose(*found[301, 0], atol=1e-3)
    assert not torch.allclose(*found[299, 0], atol=1e-3), "a step that looks again ends as it began"
    torch.testing.assert_close(*found[299, 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "cropped"), [((64, 64), False), ((96, 64), True), ((64, 48), False)], ids=str
)
def test_crops_are_made_of_pictures_larger_than_the_bases_own(
    base: Base, taught: Registry, size: tuple[int, int], cropped: bool
) -> None:
    told = layout((DOG, LEFT), (CAT, RIGHT))
    assert len(windows(base, taught, told, size=size)) == (2 if cropped else 0)
    for said in (True, False):
        assert (
            len(windows(base, taught, layout((DOG, LEFT), (CAT, RIGHT), crops=said), size=size)) == 2 * said
        )


def windows(base: Base, taught: Registry, told: Layout, **said: Any) -> list[views.Window]:
    scene = prepared(base, taught, job(base, told, **said))
    return [given.window for _, given in views._pairs(base, scene)[1:] if given.window]


@pytest.mark.parametrize("size", [(64, 64), (160, 96)], ids=str)
def test_a_crop_holds_its_box_in_the_picture_and_can_be_halved(
    base: Base, taught: Registry, size: tuple[int, int]
) -> None:
    boxes = [(0.0, 0.0, 0.3, 0.2), (0.8, 0.7, 1.0, 1.0), (0.4, 0.4, 0.6, 0.6), (0.1, 0.0, 0.95, 1.0), LEFT]
    told = layout(*((DOG, box) for box in boxes), crops=True)
    across, down = size[0] // 8, size[1] // 8
    for box, window in zip(boxes, windows(base, taught, told, size=size), strict=True):
        x0, y0, x1, y1 = window
        assert 0 <= x0 <= box[0] * across + 0.5
        assert box[2] * across - 0.5 <= x1 <= across
        assert 0 <= y0 <= box[1] * down + 0.5
        assert box[3] * down - 0.5 <= y1 <= down
        assert (x1 - x0) % 4 == (y1 - y0) % 4 == 0


def test_the_unet_is_as_before_when_drawing_is_given_up(base: Base, taught: Registry) -> None:
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    processors = dict(base.denoiser.attn_processors)
    some = draw(taught, base, [job(base, layout((DOG, LEFT), (CAT, RIGHT)), count=3, batch=1)])
    next(some)
    some.close()  # type: ignore[attr-defined]
    assert all(tensor.equal(before[name]) for name, tensor in base.denoiser.state_dict().items())
    assert dict(base.denoiser.attn_processors) == processors
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.denoiser.modules())


# Where regions are


def test_pixel_boxes_and_feathers_are_the_relative_ones(base: Base, taught: Registry) -> None:
    relative = {"prompt": DOG, "box": (0.25, 0.0, 1.0, 0.5), "feather": 0.125}
    pixel = {"prompt": DOG, "box": (24.0, 0.0, 96.0, 32.0), "feather": 8.0}
    size = (96, 64)
    masks = [
        prepared(base, taught, job(base, layout(table, size=size, units=units), size=size)).masks
        for table, units in ((relative, "relative"), (pixel, "pixel"))
    ]
    assert torch.equal(*masks)
    scaled = prepared(base, taught, job(base, layout(pixel, size=size, units="pixel"), size=(192, 128))).masks
    wanted = prepared(base, taught, job(base, layout(relative), size=(192, 128))).masks
    assert torch.equal(scaled, wanted)


def save_mask(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_box_and_mask_together_are_their_product(base: Base, taught: Registry, tmp_path: Path) -> None:
    upper = np.zeros((32, 32))
    upper[:16] = 255
    save_mask(tmp_path / "upper.png", upper)
    (tmp_path / "scene.toml").write_text(
        f'[base]\nprompt = "{BEACH}"\n'
        f'[[region]]\nprompt = "{DOG}"\nbox = [0.5, 0.0, 1.0, 1.0]\nmask = "upper.png"\n'
        f'[[region]]\nprompt = "{CAT}"\nmask = "upper.png"\n'
    )
    masks = prepared(base, taught, job(base, load_layout(tmp_path / "scene.toml"))).masks
    wanted = torch.zeros(2, 8, 8)
    wanted[0, :4, 4:] = 1
    wanted[1, :4] = 1
    assert (masks - wanted).abs().max() < 0.05, "but for the mask's edge, smoothed when it is made larger"


def test_a_mask_that_leaves_nothing_of_its_box_is_refused(
    base: Base, taught: Registry, tmp_path: Path
) -> None:
    lower = np.zeros((32, 32))
    lower[20:] = 255
    save_mask(tmp_path / "lower.png", lower)
    told = f'[base]\nprompt = "{BEACH}"\n[[region]]\nprompt = "a dog"\nbox = [0, 0, 1, 0.5]\nmask = "lower.png"\n'
    with pytest.raises(CidmError, match=r"scene.toml:6: region\.0\.mask is black") as caught:
        one(base, taught, job(base, load_layout(tmp_path / "scene.toml", text=told)))
    assert caught.value.code == ExitCode.INVALID


def test_where_regions_overlap_the_later_one_may_have_priority(base: Base, taught: Registry) -> None:
    both = [(DOG, EVERYWHERE), (CAT, LEFT)]
    average, priority = (
        estimated(
            base, taught, job(base, layout(*both, alpha=0.0, overlap=overlap), Ablation(attention=False))
        )
        for overlap in ("average", "priority")
    )
    dog, cat = (
        estimated(base, taught, job(base, layout((p, EVERYWHERE), alpha=0.0), Ablation(attention=False)))
        for p in (DOG, CAT)
    )
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(priority, torch.cat([cat[..., :4], dog[..., 4:]], -1), **close)
    torch.testing.assert_close(average[..., :4], (cat + dog)[..., :4] / 2, **close)


def test_a_region_too_thin_for_the_coarsest_map_is_warned_about(base: Base, taught: Registry) -> None:
    notes: list[str] = []
    told = layout((DOG, LEFT), (CAT, (0.6, 0.1, 0.65, 0.2)))
    list(draw(taught, base, [job(base, told)], on_note=notes.append))
    assert len(notes) == 1
    assert "region.1.box is thinner than a cell" in notes[0]


# Seeds and strength


@pytest.mark.parametrize("seeds", [(5, 5), (5, 9), (9, 9)], ids=str)
def test_noise_is_standard_normal_whichever_seeds_are_equal(
    base: Base, taught: Registry, seeds: tuple[int, int]
) -> None:
    # Twice the same noise, put together as if it were two, would be half as strong again in the overlap.
    told = layout(
        {"prompt": DOG, "box": (0.0, 0.0, 0.9, 0.9), "seed": seeds[0], "feather": 0.2},
        {"prompt": CAT, "box": (0.1, 0.1, 1.0, 1.0), "seed": seeds[1], "feather": 0.2},
        size=(512, 512),
    )
    noise = layouts.noise(base, prepared(base, taught, job(base, told, size=(512, 512))), (9, 10))
    height, width = noise.shape[2:]
    middle = noise[:, :, height // 4 : -height // 4, width // 4 : -width // 4]
    assert middle.numel() > 4000
    assert middle.std(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1], abs=0.06)


def test_a_regions_own_seed_decides_about_its_box_alone(base: Base, taught: Registry) -> None:
    def noise(own: int, *seeds: int) -> torch.Tensor:
        told = layout({"prompt": DOG, "box": LEFT, "seed": own}, (CAT, RIGHT))
        return layouts.noise(base, prepared(base, taught, job(base, told)), seeds)

    first, other = noise(7, 0, 1), noise(8, 0, 1)
    assert torch.equal(first[..., 4:], other[..., 4:])
    assert not (first[..., :4] == other[..., :4]).any()
    assert torch.equal(first[0, ..., :4], first[1, ..., :4]), "the same in every picture"
    assert torch.equal(noise(7, 1)[0], first[1]), "whatever it is drawn with"


def test_strength_scales_the_concepts_weights_and_not_its_words(base: Base, taught: Registry) -> None:
    def sources(strength: float) -> regional.Cache:
        told = layout({"prompt": CAT, "box": EVERYWHERE, "strength": strength})
        return prepared(base, taught, job(base, told)).cache

    none, half, full = (sources(strength) for strength in (0.0, 0.5, 1.0))
    for name, text in full.texts.items():
        assert text.query is not None
        query = half.texts[name].query
        assert query is not None
        torch.testing.assert_close(query.up[3] * 2, text.query.up[3])
        assert not torch.equal(none.texts[name].keys[3], text.keys[3])
        mean = (none.texts[name].keys[3] + text.keys[3]) / 2
        torch.testing.assert_close(half.texts[name].keys[3], mean, rtol=1e-3, atol=1e-4)


def test_each_region_is_mixed_by_its_own_prompt(base: Base, taught: Registry) -> None:
    some = job(base, layout((DOG, LEFT), (f"{CAT} on a <dog>", RIGHT), ("a toy", LEFT)))
    chosen = layouts.choose(base, Loader(taught, base), taught.records(), some)
    assert [[r.key for r in mix.used] for mix in chosen.regions] == [["dog"], ["cat", "dog"], []]
    assert chosen.whole.used == ()
    summed = replace(some, options=replace(some.options, method="sum"))
    chosen = layouts.choose(base, Loader(taught, base), taught.records(), summed)
    assert [len(mix.used) for mix in chosen.mixtures] == [2] * 4


# With a merged file


def test_a_merged_file_is_drawn_everywhere_and_regions_add_no_weights(
    base: Base, taught: Registry, cidm: Cidm
) -> None:
    ran = cidm("merge", "cat", "--method", "sum", "--registry", taught.root, "-o", "cat.safetensors")
    assert ran.code == 0, ran.err
    static = read_static(Path("cat.safetensors"), base)
    found = one(base, taught, job(base, layout((DOG, EVERYWHERE), alpha=0.0)), static=static)
    assert apart(found, one(base, taught, job(base, DOG), static=static)) <= 2
    table = {"prompt": DOG, "box": EVERYWHERE, "strength": 3.0}
    assert apart(found, one(base, taught, job(base, layout(table, alpha=0.0)), static=static)) == 0


# Again from the picture, and on the command line

SCENE = f"""
[image]
steps = 2
size = [96, 64]
overlap = "priority"
mode = "%s"
[base]
prompt = "{BEACH}"
negative = "snow"
[[region]]
prompt = "{DOG}"
box = [0.0, 0.2, 0.6, 1.0]
feather = 0.1
strength = 0.8
[[region]]
prompt = "{CAT}"
box = [0.4, 0.0, 1.0, 0.8]
mask = "masks/round.png"
negative = "red"
seed = 4
"""


@pytest.fixture
def scene(elsewhere: Path) -> Path:
    """A layout file with a mask, in the working folder."""
    Path("masks").mkdir()
    y, x = np.mgrid[:40, :40]
    save_mask(Path("masks/round.png"), 255 * ((x - 25) ** 2 + (y - 15) ** 2 < 200))
    Path("scene.toml").write_text(SCENE % "full")
    return Path("scene.toml")


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_layouts_picture_is_drawn_again_byte_for_byte(
    cidm: Cidm, taught: Registry, scene: Path, mode: str
) -> None:
    """From what it says alone, its masks beside where the layout was; also one that was not the first of a batch."""
    scene.write_text(SCENE % mode)
    where = ("--registry", taught.root, "-o")
    ran = cidm("generate", scene, "-n", 3, "--batch", 2, "--seed", 5, *where, "out")
    assert ran.code == 0, ran.err
    scene.unlink()
    for path, content in files_of(Path("out")).items():
        assert cidm("generate", "--from", Path("out") / path, *where, path).code == 0
        assert Path(path).read_bytes() == content
    assert len(files_of(Path("out"))) == 3


def test_the_picture_says_what_each_region_was_drawn_with(cidm: Cidm, taught: Registry, scene: Path) -> None:
    ran = cidm("generate", scene, "--registry", taught.root, "-o", "out.png", "--json")
    (image,) = ran.answer["images"]
    assert image["concepts"] == []
    told = [
        [(c["key"], c["named"], set(c["weights"])) for c in region["concepts"]] for region in image["regions"]
    ]
    assert told == [[("dog", True, {1.0})], [("cat", True, {1.0})]]
    assert [region["mask"] is None for region in image["regions"]] == [True, False]
    assert image["folder"] == "."
    assert load_layout("told", text=image["layout"]) == load_layout(scene)


def test_a_picture_names_nothing_of_the_makers_disk_and_is_drawn_again_with_its_files_beside_it(
    cidm: Cidm, taught: Registry, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, there = Path.cwd(), tmp_path / "elsewhere"
    merged = home / "all.safetensors"
    assert cidm("merge", "dog", "cat", "--registry", taught.root, "-o", merged).code == 0
    draw_it = ("generate", home / scene, "--merged", merged, "--registry", taught.root, "-o", there / "p.png")
    assert cidm(*draw_it).code == 0
    content = (there / "p.png").read_bytes()
    told = json.dumps(png.read_facts(there / "p.png"))
    assert not [part for part in (str(tmp_path), str(home), tmp_path.name) if part in told]
    monkeypatch.chdir(there)
    again = ("generate", "--from", "p.png", "--registry", taught.root, "-o", "again.png")
    for name, source in (("masks", home / "masks"), ("all.safetensors", merged)):
        ran = cidm(*again)
        assert ran.code == ExitCode.NOT_FOUND
        assert ("round.png" if name == "masks" else name) in ran.error
        source.rename(there / name)
    assert cidm(*again).code == 0
    assert Path("again.png").read_bytes() == content


def test_a_concept_that_goes_while_the_base_is_loaded_is_missed_by_name(
    base: Base, taught: Registry, tmp_path: Path
) -> None:
    registry = Registry.open(shutil.copytree(taught.root, tmp_path / "copy"))
    jobs = [job(base, layout((DOG, LEFT)), steps=1)]
    check(registry, jobs)
    registry.remove("dog")
    with pytest.raises(CidmError, match="no concept is called <dog>") as caught:
        list(draw(registry, base, jobs))
    assert caught.value.code == ExitCode.NOT_FOUND


def test_an_ablations_picture_is_drawn_again_as_such(base: Base, taught: Registry) -> None:
    way = Ablation(attention=False, form="paper")
    (picture,) = draw(taught, base, [job(base, layout((DOG, LEFT)), way)])
    facts = json.loads(json.dumps(picture.facts))
    assert redraw(taught, base, facts).image.tobytes() == picture.image.tobytes()


@pytest.mark.parametrize("what", ["gone", "another"])
def test_a_mask_that_is_gone_or_another_is_told(cidm: Cidm, taught: Registry, scene: Path, what: str) -> None:
    assert cidm("generate", scene, "--registry", taught.root, "-o", "out.png").code == 0
    mask = Path("masks/round.png")
    mask.unlink()
    if what == "another":
        save_mask(mask, np.full((40, 40), 255))
    ran = cidm("generate", "--from", "out.png", "--registry", taught.root, "-o", "again.png")
    assert ran.code == ExitCode.NOT_FOUND
    assert "round.png" in ran.error
    assert not Path("again.png").exists()


EDITS: dict[str, Any] = {
    "a region less": lambda facts: facts["regions"].pop(),
    "another concept": lambda facts: facts["regions"].reverse(),
    "a layout in numbers": lambda facts: facts.update(layout=3),
    "a layout that is none": lambda facts: facts.update(layout="[image]\nsize = 3"),
    "an ablation that is none": lambda facts: facts.update(ablation={"form": "other"}),
    "no regions": lambda facts: facts.pop("regions"),
    "a method without regions": lambda facts: facts["regions"][0].update(method="lora-c"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_layouts_picture_with_edited_text_is_refused(edit: str, base: Base, taught: Registry) -> None:
    (picture,) = draw(taught, base, [job(base, layout((DOG, LEFT), (CAT, RIGHT)), steps=1)])
    facts = json.loads(json.dumps(picture.facts))
    EDITS[edit](facts)
    with pytest.raises(CidmError) as caught:
        redraw(taught, base, facts)
    assert caught.value.code == ExitCode.INVALID


def test_several_layouts_are_drawn_in_one_call(cidm: Cidm, taught: Registry, scene: Path) -> None:
    Path("other.toml").write_text(SCENE.replace("seed = 4", "seed = 5") % "fast")
    ran = cidm(
        "generate", scene, "other.toml", "-p", DOG, "--registry", taught.root, "-q", "-o", "out", "--steps", 1
    )
    assert ran.code == 0, ran.err
    drawn = [Path(line) for line in ran.out.splitlines()]
    assert len({path.read_bytes() for path in drawn}) == 3
    assert ["regions" in png.read_facts(path) for path in drawn] == [True, True, False]


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("edit", "flags", "code", "told"),
    [
        (("", ""), ("--method", "lora-c"), ExitCode.USAGE, "lora-c"),
        (("", ""), ("--method", "lora-switch"), ExitCode.USAGE, "scene.toml"),
        (("<cat>", "<cta>"), (), ExitCode.NOT_FOUND, "region.1.prompt"),
        (("round.png", "square.png"), (), ExitCode.NOT_FOUND, "region.1.mask"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_model_is_loaded(
    cidm: Cidm,
    taught: Registry,
    scene: Path,
    edit: tuple[str, str],
    flags: tuple[str, ...],
    code: ExitCode,
    told: str,
) -> None:
    scene.write_text((SCENE % "full").replace(*edit))
    ran = cidm("generate", scene, "--registry", taught.root, *flags)
    assert ran.code == code
    assert told in ran.error


def test_methods_that_draw_one_concept_at_a_time_draw_no_regions(base: Base, taught: Registry) -> None:
    some = job(base, layout((DOG, LEFT)), method="lora-c")
    with pytest.raises(CidmError, match="lora-c"):
        check(taught, [some])
    with pytest.raises(CidmError, match="lora-c"):
        list(draw(taught, base, [some]))
