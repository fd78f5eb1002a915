"""`--style-from`: what an image shows is settled before a learned style has a say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from cidm_cli.bases import family
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.mixtures import Loader
from cidm_cli.draw.scenes import choose
from cidm_cli.layout.load import load_layout
from cidm_cli.models import sampling
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import DrawOptions, resolve_draw
from cidm_registry import Registry
from command import Cidm
from learning import learn_direct, task

STYLED = "a <ink> of a <dog>"
LAYOUT = """
[image]
size = [96, 64]
[base]
prompt = "a photo of the beach"
[[region]]
prompt = "a <ink> of a <dog>"
box = [0.0, 0.0, 0.5, 1.0]
"""


@pytest.fixture(scope="module")
def registry(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Knows the object <dog> and the style <ink>. Do not change."""
    folder = tmp_path_factory.mktemp("styles")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog")))
    ink = tiny.save_pictures(folder / "ink", ("an ink painting of a house",) * 3, seed=4)
    learn_direct(registry, base, replace(task(ink, name="ink", noun="ink painting"), style=True))
    return registry


def options(base: Base, **asked: object) -> DrawOptions:
    return resolve_draw({"steps": 8, "guidance": 3.0, "sampler": "ddim", **asked}, "sd15", base.pixels)


def images(registry: Registry, base: Base, jobs: Sequence[Job]) -> list[np.ndarray]:
    return [np.asarray(picture.image, np.float32) for picture in draw(registry, base, jobs)]


def test_the_longer_a_style_waits_the_nearer_the_image_is_to_its_nouns(
    registry: Registry, base: Base
) -> None:
    noun = "a ink painting of a <dog>"
    waits = (0.0, 0.25, 0.5, 0.875)
    jobs = [Job(STYLED, options(base, style_from=wait)) for wait in waits]
    plain, *styled = images(registry, base, [Job(noun, options(base)), *jobs])
    apart = [float(abs(image - plain).mean()) for image in styled]
    assert apart == sorted(apart, reverse=True)
    assert 0 < apart[-1] < apart[0] / 2


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun", "dpm++", "unipc"])
def test_steps_in_two_stages_are_the_steps_of_one(base: Base, sampler: str) -> None:
    """Samplers that look back forget what they saw: only the others come to the same latents."""
    noise = sampling.initial_noise(base, [1], (64, 64))
    heard: list[list[int]] = [[], []]

    def estimate(latents: torch.Tensor, t: torch.Tensor, step: int) -> torch.Tensor:
        return 0.1 * latents + 0.001 * t

    def run(said: list[int], noise: torch.Tensor = noise, **asked: Any) -> torch.Tensor:
        return sampling.denoise(base, estimate, noise, sampler=sampler, steps=8, on_step=said.append, **asked)

    whole = run(heard[0])
    half = run(heard[1], last=3)
    both = run(heard[1], first=3, begin=lambda level: half)
    assert heard == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 1, 2, 3, 4, 5]]
    assert torch.isfinite(both).all()
    if sampler in ("ddim", "euler", "heun"):
        assert torch.allclose(both, whole, rtol=1e-4, atol=1e-4)


def test_objects_and_plain_prompts_know_nothing_of_it(registry: Registry, base: Base) -> None:
    for prompt in ("a photo of a <dog>", "a photo of a dog"):
        one, two = (
            images(registry, base, [Job(prompt, options(base, style_from=wait))])[0] for wait in (0, 0.5)
        )
        assert np.array_equal(one, two)


def test_a_batch_draws_what_single_prompts_draw(registry: Registry, base: Base) -> None:
    how = options(base, style_from=0.5, batch=4)
    jobs = [Job(STYLED, how), Job("a <ink> of the beach", replace(how, count=2, seed=3))]
    together = images(registry, base, jobs)
    alone = [image for job in jobs for image in images(registry, base, [job])]
    assert len(together) == 3
    for one, other in zip(together, alone, strict=True):
        assert abs(one - other).max() <= 1


def test_a_region_keeps_its_subject_too(registry: Registry, base: Base, tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(LAYOUT)
    layout = load_layout(path)
    first, later = (
        images(
            registry, base, [Job(layout.base.prompt, options(base, size=(96, 64), style_from=wait), layout)]
        )[0]
        for wait in (0.0, 0.5)
    )
    assert abs(first[:, :40] - later[:, :40]).mean() > 0


def test_an_image_says_it_and_is_drawn_again(cidm: Cidm, registry: Registry, base: Base) -> None:
    there = ("--registry", registry.root, "--precision", "fp32", "-q")
    where = (*there, "--steps", 4)
    assert cidm("generate", "-p", STYLED, "--style-from", 0.5, *where, "-o", "one.png").code == 0
    assert cidm("generate", "--from", "one.png", *there, "-o", "two.png").code == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert cidm("generate", "-p", STYLED, *where, "-o", "three.png").code == 0
    first, third = (np.asarray(Image.open(name)) for name in ("one.png", "three.png"))
    assert (first != third).any()


def test_a_share_of_all_steps_leaves_nothing_to_the_style(cidm: Cidm, registry: Registry) -> None:
    ran = cidm("generate", "-p", STYLED, "--style-from", 1, "--registry", registry.root, "-o", "no.png")
    assert ran.code == 2
    assert "--style-from" in ran.err


def test_only_the_embedded_base_waits_unasked() -> None:
    waits = {kind: resolve_draw({}, kind, 64).style_from for kind in ("mini", "sd15", "sdxl")}
    assert waits == {"mini": family("mini").draw["style_from"], "sd15": 0.0, "sdxl": 0.0}


@pytest.mark.parametrize("prompt", [STYLED, "a <ink> of a house"])
@pytest.mark.parametrize("method", ["rows", "cells", "found"])
def test_concepts_that_are_kept_apart_wait_for_none(
    registry: Registry, base: Base, prompt: str, method: str
) -> None:
    """Before the style has a say one concept is left at most: nothing is to be kept apart from it."""
    (there,) = images(registry, base, [Job(prompt, options(base, method=method, style_from=0.25))])
    assert np.isfinite(there).all()
    job = Job(prompt, options(base, method=method, style_from=0.25))
    before = choose(base, Loader(registry, base), registry.records(), job).before
    assert before is not None
    assert before[1].whole.method == "named"
