"""Layouts on SDXL: regions with tokens for each group of layers, and the prompt as a whole that each view is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image

import judging
import tiny
from cidm_cli.draw import scenes as layouts
from cidm_cli.draw import views
from cidm_cli.draw.encoded import Texts
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.mixtures import Loader
from cidm_cli.layout import Layout
from cidm_cli.method.lowrank import delta
from cidm_cli.models import text
from cidm_cli.models.attention import layer_groups
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.lora import merged
from cidm_cli.models.opening import concept_weights
from cidm_cli.models.prediction import ask
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry
from command import Cidm
from learning import learn_direct, task

LAYERS = 18
DOG, CAT, BEACH = "a photo of a <dog>", "a photo of a <cat>", "a photo of the beach"
EVERYWHERE = (0.0, 0.0, 1.0, 1.0)
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
T = torch.tensor(500)


@pytest.fixture(scope="module")
def place(sdxl: Base, tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows <dog> and <cat>, whose groups' tokens differ much, data and a judge. Do not change."""
    folder = tmp_path_factory.mktemp("place")
    judging.save_data(folder / "data", dog="dog", cat="cat")
    judging.save_clip(folder / "clip", with_tokenizer=True)
    registry = Registry.create(folder / "registry", identify(str(tiny_sdxl)))
    for name in ("dog", "cat"):
        pictures = folder / "data" / "pictures" / name
        learn_direct(registry, sdxl, task(pictures, name=name, noun=name, token_lr=0.5))
    return folder


@pytest.fixture(scope="module")
def taught(place: Path) -> Registry:
    return Registry.open(place / "registry")


def layout(
    *regions: tuple[str, tuple[float, ...]], prompt: str = BEACH, alpha: float = 0.3, **image: Any
) -> Layout:
    tables = [{"prompt": words, "box": box} for words, box in regions]
    return Layout.model_validate(
        {"image": image, "base": {"prompt": prompt, "alpha": alpha}, "region": tables}
    )


def job(base: Base, told: Layout | str, **said: Any) -> Job:
    options = resolve_draw({"steps": 2, "guidance": 5.0, **said}, "sdxl", base.pixels)
    return Job(told, options) if isinstance(told, str) else Job(told.base.prompt, options, told)


def estimated(base: Base, registry: Registry, some: Job, latents: torch.Tensor) -> torch.Tensor:
    load = Loader(registry, base)
    chosen = layouts.choose(base, load, registry.records(), some)
    batch = [layouts.Part(some, chosen, tuple(range(len(latents))))]
    scene = layouts.prepare(base, batch, Texts(base, load))
    with torch.no_grad():
        return views.estimate(base, scene, batch, layouts.merging(base, chosen, load))(latents, T, 0)


def latents_of(width: int, height: int) -> torch.Tensor:
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(0))


# By brute force


class Brute:
    """What a part of a picture is drawn from, made without the code for layouts: texts, merged weights, the whole."""

    def __init__(self, base: Base, registry: Registry, words: str, name: str | None = None) -> None:
        """``words``, and the concept behind them if there are any; its weights also where there are none."""
        parts: list[str | text.Slot] = [words]
        vectors, self.deltas = {}, {}
        if name is not None:
            record = registry.get(name)
            weights = concept_weights(registry, base, record)
            assert weights.tokens.shape[0] == max(layer_groups(base.denoiser)) + 1
            vectors = {name: weights.tokens}
            self.deltas = {s: delta(weights.up[s], weights.down[s], record.scale) for s in weights.up}
            if words:
                parts.append(text.Slot(name, weights.tokens.shape[1], name))
        tokens = text.tokenize(base, parts)
        with torch.no_grad():
            self.contexts = text.encode(base, [tokens], vectors, layers=LAYERS)
            whole = text.pooled(base, [tokens])
        assert whole is not None
        self.pooled = whole


@contextmanager
def regions_in_place(base: Base, whole: Brute, regions: Mapping[str, Brute]) -> Iterator[None]:
    """While open, each layer's cells are those of the unet with the weights and text of the region they lie in."""
    names = base.layers
    before = dict(base.denoiser.attn_processors)

    class Halves:
        def __init__(self, layer: int, name: str) -> None:
            self.layer, self.name = layer, name

        def one(self, attn: Any, given: torch.Tensor, told: Brute) -> torch.Tensor:
            changes = {site: d for site, d in told.deltas.items() if site.startswith(self.name + ".")}
            with merged(base.denoiser, changes):
                return AttnProcessor()(attn, given, told.contexts[self.layer])

        def __call__(self, attn: Any, given: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            out = self.one(attn, given, whole)
            side = int(given.shape[1] ** 0.5)
            for where, told in regions.items():
                half = slice(0, side // 2) if where == "left" else slice(side // 2, side)
                cells = torch.zeros(side, side, dtype=torch.bool)
                cells[:, half] = True
                out = torch.where(cells.flatten()[None, :, None], self.one(attn, given, told), out)
            return out

    wanted: Any = {
        **before, **{f"{name}.processor": Halves(layer, name) for layer, name in enumerate(names)}
    }  # fmt: skip
    base.denoiser.set_attn_processor(wanted)
    try:
        yield
    finally:
        base.denoiser.set_attn_processor(before)


def seen(
    base: Base, latents: torch.Tensor, whole: Brute, sizes: tuple[int, ...], regions: Mapping[str, Brute]
) -> torch.Tensor:
    told = torch.tensor([sizes])
    with torch.no_grad(), regions_in_place(base, whole, regions):
        return ask(base, latents, T, whole.contexts[0], whole.pooled, told)


def test_every_group_and_every_view_sees_what_it_should(sdxl: Base, taught: Registry) -> None:
    """E and each E_u, against attention with merged weights a region: texts of each group, wholes, sizes."""
    told = layout((DOG, LEFT), (CAT, RIGHT), mode="full", crops=False)
    latents, sizes = latents_of(8, 8), (64, 64, 0, 0, 64, 64)
    empty, beach = Brute(sdxl, taught, ""), Brute(sdxl, taught, BEACH)
    dog, cat = (Brute(sdxl, taught, "a photo of a ", name) for name in ("dog", "cat"))
    unsaid = {where: Brute(sdxl, taught, "", name) for where, name in (("left", "dog"), ("right", "cat"))}
    without = seen(sdxl, latents, empty, sizes, unsaid)
    rows = [{"left": dog, "right": cat}, {"left": dog}, {"right": cat}]
    whole, left, right = (
        without + 5.0 * (seen(sdxl, latents, beach, sizes, regions) - without) for regions in rows
    )
    wanted = 0.3 * whole + 0.7 * torch.cat([left[..., :4], right[..., 4:]], -1)
    found = estimated(sdxl, taught, job(sdxl, told), latents)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    shared = Brute(sdxl, taught, "a photo of a ", "dog")
    shared.contexts = (shared.contexts[0],) * LAYERS
    other = without + 5.0 * (seen(sdxl, latents, beach, sizes, {"left": shared}) - without)
    assert (other - left).abs().max() > 0.05, "which copy of its tokens a group sees can be seen"


def test_a_crop_is_told_its_regions_prompt_as_a_whole_and_its_own_size(sdxl: Base, taught: Registry) -> None:
    """Of a picture of twice the width: each half is looked at as if it were a picture."""
    told = layout((DOG, LEFT), (CAT, RIGHT), alpha=0.0, mode="full", crops=True)
    latents, sizes = latents_of(16, 8), (64, 64, 0, 0, 64, 64)
    halves = []
    for name, part in (("dog", latents[..., :8]), ("cat", latents[..., 8:])):
        both = (Brute(sdxl, taught, words, name) for words in ("", "a photo of a "))
        without, given = (seen(sdxl, part, brute, sizes, {}) for brute in both)
        halves.append(without + 5.0 * (given - without))
    found = estimated(sdxl, taught, job(sdxl, told, size=(128, 64)), latents)
    torch.testing.assert_close(found, torch.cat(halves, -1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_region_everywhere_with_the_whole_prompt_is_the_plain_prompt(
    sdxl: Base, taught: Registry, mode: str
) -> None:
    told = layout((DOG, EVERYWHERE), prompt=DOG, mode=mode)
    both = [next(iter(draw(taught, sdxl, [job(sdxl, some)]))).image for some in (told, DOG)]
    first, second = (np.asarray(image).astype(int) for image in both)
    assert abs(first - second).max() <= 2


# The commands


@pytest.fixture
def scene(elsewhere: Path) -> Path:
    """A layout twice as wide as the base's own pictures: there are crops."""
    regions = "".join(
        f'[[region]]\nprompt = "{words}"\nbox = {list(box)}\n' for words, box in ((DOG, LEFT), (CAT, RIGHT))
    )
    told = f'version = 1\n[image]\nsize = [128, 64]\nmode = "full"\n[base]\nprompt = "{BEACH}"\n{regions}'
    (elsewhere / "wide.toml").write_text(told)
    return elsewhere / "wide.toml"


def test_a_layout_with_crops_is_drawn_again_byte_for_byte(cidm: Cidm, place: Path, scene: Path) -> None:
    where = ("--registry", place / "registry", "--json")
    first = cidm("generate", scene, "--steps", 2, "-o", "out", *where).answer["images"][0]["path"]
    again = cidm("generate", "--from", first, "-o", "again", *where).answer["images"][0]["path"]
    assert Path(first).read_bytes() == Path(again).read_bytes()


def test_layouts_are_judged(cidm: Cidm, place: Path, scene: Path) -> None:
    ran = cidm(
        "eval", "--registry", place / "registry", "--data", place / "data", "--layouts", scene, "--steps", 1, "-n", 1,
        "--rivals", "own,fast", "--clip", place / "clip", "--dino", "none", "-o", "out", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert set(ran.answer["layouts"]["figures"]) == {"own", "fast", "alone", "single", "base"}


def test_a_picture_is_given_a_style(cidm: Cidm, place: Path, tmp_path: Path) -> None:
    given = tiny.save_pictures(tmp_path / "given") / "0.png"
    where = ("--registry", place / "registry", "-q")
    pictures = []
    for name in ("dog", "cat"):
        out = f"{name}.png"
        ran = cidm("stylize", given, "--style", name, "--strength", 0.9, "--steps", 3, "-o", out, *where)
        assert ran.code == 0, ran.err
        pictures.append(np.asarray(Image.open(out).convert("RGB")).astype(int))
    assert pictures[0].shape == (64, 64, 3)
    assert abs(pictures[0] - pictures[1]).mean() > 1, "another style gives another picture"
