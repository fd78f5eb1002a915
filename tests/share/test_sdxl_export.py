"""SDXL's concepts as files of other programs and back, and as bundles; no weights of the base are read for it."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from peft import PeftModel

import tiny
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Job
from cidm_cli.method.lowrank import delta
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.opening import concept_weights
from cidm_cli.models.sampling import initial_noise, make_scheduler
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry
from command import Cidm
from exports import worst
from learning import learn_direct, task

GROUPS, SITES = 7, 72
PROMPT = "a photo of a {} on the beach"


@pytest.fixture(scope="module")
def taught(sdxl: Base, tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows <dog>, with tokens for each group of layers. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_sdxl)))
    learn_direct(registry, sdxl, task(tiny.save_pictures(folder / "dog"), rank=2, scale=0.3))
    return registry.root


@pytest.fixture
def mine(taught: Path, tmp_path: Path) -> Registry:
    """A copy to change."""
    return Registry.open(shutil.copytree(taught, tmp_path / "mine"))


def own(registry: Registry, base: Base, name: str) -> dict[str, torch.Tensor]:
    """ΔW of each site of a concept."""
    record = registry.get(name)
    weights = concept_weights(registry, base, record)
    return {site: delta(up, weights.down[site], record.scale) for site, up in weights.up.items()}


def changes(unet: Any, plain: Any) -> dict[str, torch.Tensor]:
    """By how much each layer's weight differs from the plain UNet's."""
    out = {s: unet.get_submodule(s).weight - plain.get_submodule(s).weight for s in tiny.shapes(plain)}
    return {site: apart.detach() for site, apart in out.items() if apart.any()}


def ours(registry: Registry, base: Base, prompt: str) -> np.ndarray:
    options = resolve_draw(dict(steps=3, seed=5), "sdxl", base.pixels)
    (picture,) = draw(registry, base, [Job(prompt, options)])
    return np.asarray(picture.image, np.float64)


def run(cidm: Cidm, *arguments: object) -> Any:
    ran = cidm(*arguments)
    assert ran.code == 0, ran.err
    return ran


@pytest.mark.parametrize("kind", ["kohya", "diffusers", "peft"])
def test_weights_survive_the_way_out_and_back(
    kind: str, cidm: Cidm, mine: Registry, sdxl: Base, no_model: None
) -> None:
    (one,) = run(cidm, "export", "dog", "--to", kind, "-o", "out", "--registry", mine.root, "--json").answer[
        "exported"
    ]
    assert one["layers"] == SITES
    path = Path("out/dog.safetensors") if kind == "kohya" else Path("out")
    run(cidm, "import", path, "--as", "back", "--registry", mine.root)
    assert worst(own(mine, sdxl, "back"), own(mine, sdxl, "dog")) < 1e-6


def test_peft_merges_the_concepts_weights(cidm: Cidm, mine: Registry, sdxl: Base) -> None:
    run(cidm, "export", "dog", "--to", "peft", "-o", "out", "--registry", mine.root)
    unet = PeftModel.from_pretrained(copy.deepcopy(sdxl.denoiser), "out").merge_and_unload()
    assert worst(changes(unet, sdxl.denoiser), own(mine, sdxl, "dog")) < 1e-6


def test_stock_diffusers_draws_the_same_picture_with_its_kind_of_file(
    cidm: Cidm, mine: Registry, sdxl: Base, tiny_sdxl: Path
) -> None:
    run(cidm, "export", "dog", "--to", "diffusers", "-o", "out", "--registry", mine.root)
    run(cidm, "import", "out", "--as", "back", "--registry", mine.root)
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, use_safetensors=True, add_watermarker=False)
    pipe.load_lora_weights("out", use_safetensors=True)
    pipe.scheduler = make_scheduler(sdxl, "dpm++")
    pipe.set_progress_bar_config(disable=True)
    noise = initial_noise(sdxl, [5], (tiny.PIXELS, tiny.PIXELS))
    drawn = pipe(PROMPT.format("dog"), latents=noise, num_inference_steps=3, guidance_scale=7.5).images[0]
    theirs = np.asarray(drawn, np.float64)
    assert np.abs(theirs - ours(mine, sdxl, PROMPT.format("<back>"))).mean() < 1
    assert np.abs(theirs - ours(mine, sdxl, PROMPT.format("dog"))).mean() > 1, "the file is heard"


def test_a_bundle_moves_the_tokens_of_every_group_byte_for_byte(
    cidm: Cidm, mine: Registry, sdxl: Base, tiny_sdxl: Path, tmp_path: Path
) -> None:
    second = Registry.create(tmp_path / "second", identify(str(tiny_sdxl)))
    run(cidm, "export", "dog", "--to", "bundle", "-o", "dog.safetensors", "--registry", mine.root)
    run(cidm, "import", "dog.safetensors", "--registry", second.root)
    old, new = mine.get("dog"), second.get("dog")
    assert second.read_blob(new.blob) == mine.read_blob(old.blob)
    assert concept_weights(second, sdxl, new).tokens.shape[0] == GROUPS
    assert second.verify() == []
    prompt = PROMPT.format("<dog>")
    assert np.array_equal(ours(second, sdxl, prompt), ours(mine, sdxl, prompt))
