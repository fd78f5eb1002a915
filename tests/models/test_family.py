"""The seam: a family of another architecture and objective learns, draws, merges and exports by registering itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import learning
import toy
from cidm_cli import bases
from cidm_cli.errors import CidmError
from cidm_cli.learn.batches import Batch
from cidm_cli.learn.step import denoising, training
from cidm_cli.models import sampling, text
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.opening import open_base
from cidm_cli.models.schedules import training as schedule_of
from cidm_cli.models.skeleton import skeleton
from cidm_cli.options.learn import resolve_learn
from cidm_registry import Registry
from command import Cidm
from learning import weights

LAYOUT = """version = 1
[image]
size = [64, 64]
steps = 3
[base]
prompt = "a photo"
[[region]]
prompt = "a <dog>"
box = [0.0, 0.0, 0.5, 1.0]
[[region]]
prompt = "a <cat>"
box = [0.5, 0.0, 1.0, 1.0]
"""


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    bases.register(toy.FAMILY)
    yield
    del bases._known[toy.FAMILY.name]


@pytest.fixture(scope="module")
def folder(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.save(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def taught(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry on the toy that knows <dog> and <cat>. Do not change."""
    options = {"token_lr": 0.05, "variants": 1, "targets": None, "buckets": None}
    return learning.taught(folder, tmp_path_factory.mktemp("taught"), **options)


@pytest.fixture(scope="module")
def toy_base(taught: Registry) -> Base:
    return open_base(taught, device="cpu", precision="fp32")


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_a_folder_is_known_by_its_pipeline(taught: Registry, toy_base: Base) -> None:
    assert taught.base.kind == toy_base.family.name == "toy"
    assert toy_base.prediction == "flow_prediction"


def test_it_learns_and_the_second_concept_is_kept_apart_from_the_first(
    taught: Registry, toy_base: Base
) -> None:
    dog, cat = taught.get("dog"), taught.get("cat")
    assert (dog.method, cat.method) == ("cidm", "cidm")
    assert "r1" not in dog.losses
    assert cat.losses["r1"] >= 0
    found = weights(taught, toy_base, "cat")
    assert found.up.keys() == set(toy.sites(toy_base.denoiser, "joint"))
    nobody_asks = ("1.attn.add_q_proj", "1.attn.to_add_out")
    assert all(up.any() for site, up in found.up.items() if not site.endswith(nobody_asks))
    assert found.tokens.shape == (1, 4, toy.WIDTH), "one set, as text enters once"


def test_a_step_learns_the_velocity_of_a_straight_line(toy_base: Base) -> None:
    options = resolve_learn({}, "toy")
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    with training(toy_base, "dog", "dog", options) as trainee:
        prompt = text.tokenize(toy_base, ["a ", text.Slot("dog", 4, "dog")])
        times = torch.tensor([10, 900])
        batch = Batch(clean, noise, times, (prompt,) * 2, (0, 1), None)
        found = denoising(trainee, batch)
        rows = text.encode(toy_base, [prompt] * 2, {"dog": trainee.tokens})[0]
        even = torch.arange(1, 1001) / 1000
        sigma = (1.5 * even / (1 + 0.5 * even))[times]
        latents = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1))
        wanted = (toy_base.denoiser(latents, sigma, rows) - (noise - clean)).square().mean()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert len(schedule_of(toy_base.scheduler_config, toy_base.device).times) == 1000


@pytest.mark.parametrize("sampler", ["dpm++", "euler", "heun", "unipc"])
def test_every_sampler_of_flows_finds_the_way_back_along_a_straight_line(
    toy_base: Base, sampler: str
) -> None:
    clean = torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)
    noise = sampling.initial_noise(toy_base, [0], (64, 64))
    levels = []

    def velocity(latents: torch.Tensor, t: torch.Tensor, step: int) -> torch.Tensor:
        sigma = t / 1000
        levels.append(float((latents - torch.lerp(clean, noise, sigma)).abs().max()))
        return noise - clean

    found = sampling.denoise(toy_base, velocity, noise, sampler=sampler, steps=6)
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=2e-2)
    assert max(levels) < 2e-2


def test_it_draws_a_prompt_and_a_layout(cidm: Cidm, taught: Registry, tmp_path: Path) -> None:
    where = ("--registry", taught.root, "--steps", 3)
    for prompt, name in (("a <dog> in snow", "dog.png"), ("a dog in snow", "plain.png")):
        ran = cidm("generate", "-p", prompt, "-o", tmp_path / name, *where)
        assert ran.code == 0, ran.err
    assert (picture(tmp_path / "dog.png") != picture(tmp_path / "plain.png")).any()
    (tmp_path / "scene.toml").write_text(LAYOUT)
    ran = cidm("generate", tmp_path / "scene.toml", "-o", tmp_path / "scene.png", "--registry", taught.root)
    assert ran.code == 0, ran.err
    ran = cidm(
        "generate", "--from", tmp_path / "scene.png", "-o", tmp_path / "again.png", "--registry", taught.root
    )
    assert ran.code == 0, ran.err
    assert (picture(tmp_path / "scene.png") == picture(tmp_path / "again.png")).all()
    ran = cidm("generate", "-p", "a dog", "--sampler", "ddim", "-o", tmp_path / "x.png", *where)
    assert ran.code == 2
    assert "rectified flow" in ran.error


def test_a_family_without_a_way_to_draw_regions_refuses_layouts_in_one_line(
    cidm: Cidm, taught: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "regions", lambda: None)
    (tmp_path / "scene.toml").write_text(LAYOUT)
    ran = cidm("generate", tmp_path / "scene.toml", "-o", tmp_path / "scene.png", "--registry", taught.root)
    assert ran.code == 1
    assert "bases of the family toy draw no regions" in ran.error


def test_a_family_without_a_way_to_keep_concepts_apart_refuses_the_methods_in_one_line(
    cidm: Cidm, taught: Registry, tmp_path: Path
) -> None:
    where = ("--registry", taught.root, "-o", tmp_path / "both.png")
    ran = cidm("generate", "-p", "a <dog> and a <cat>", "--method", "cells", *where)
    assert ran.code == 1
    assert "bases of the family toy keep no concepts of one prompt apart" in ran.error


@pytest.mark.parametrize("method", ["sum", "fuse"])
def test_it_merges_and_draws_with_what_it_merged(
    cidm: Cidm, taught: Registry, toy_base: Base, tmp_path: Path, method: str
) -> None:
    file = tmp_path / "both.safetensors"
    ran = cidm("merge", "dog", "cat", "--method", method, "-o", file, "--registry", taught.root)
    assert ran.code == 0, ran.err
    drawn = ("generate", "-p", "a <dog>", "--steps", 2, "--registry", taught.root)
    ran = cidm(*drawn, "--merged", file, "-o", tmp_path / "merged.png")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("kind", ["kohya", "comfyui", "diffusers", "peft", "bundle"])
def test_what_it_exports_comes_back(
    cidm: Cidm, taught: Registry, toy_base: Base, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / ("dog" if kind in ("diffusers", "peft") else "dog.safetensors")
    ran = cidm("export", "dog", "--to", kind, "-o", file, "--registry", taught.root)
    assert ran.code == 0, ran.err
    shutil.copytree(taught.root, tmp_path / "other")
    other = Registry.open(tmp_path / "other")
    noun = () if kind == "bundle" else ("--class", "dog")
    ran = cidm("import", file, "--as", "back", *noun, "--registry", other.root)
    assert ran.code == 0, ran.err
    own, back = (weights(other, toy_base, name) for name in ("dog", "back"))
    assert own.up.keys() == back.up.keys()
    for site in own.up:
        torch.testing.assert_close(own.up[site] @ own.down[site], back.up[site] @ back.down[site])


def test_what_it_takes_is_counted_without_weights(folder: Path) -> None:
    hollow = skeleton(folder, hardware="cuda", compute=torch.bfloat16)
    assert list(hollow.parts) == ["transformer", "words", "vae"]
    assert hollow.shapes["blocks.1.mlp"] == (toy.WIDTH, toy.WIDTH)


def test_settings_of_its_parts_are_looked_through(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copied")
    config = copied / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {"x": "y"}}))
    with pytest.raises(CidmError, match="auto_map"):
        identify(str(copied))
