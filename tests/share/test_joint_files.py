"""FLUX.2 klein and Z-Image: what is merged and exported, brought back, and read by diffusers."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from cidm_cli.errors import ExitCode
from cidm_cli.formats.concept import ConceptWeights
from cidm_cli.models import sampling
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.lora import merged
from cidm_cli.models.opening import open_base
from cidm_registry import Registry
from command import Cidm, ran
from learning import weights

FUSED = {"flux2-klein": "double_blocks_0_img_attn_qkv", "z-image": "layers_0_attention_qkv"}
"""Of each, a layer of the original code that is three in diffusers'."""


@pytest.fixture(scope="module")
def base(joint_registry: Registry) -> Base:
    return open_base(joint_registry, device="cpu", precision="fp32")


def products(found: ConceptWeights) -> dict[str, torch.Tensor]:
    return {site: up @ found.down[site] for site, up in found.up.items()}


@pytest.mark.parametrize("method", ["sum", "fuse"])
def test_merged_concepts_draw(cidm: Cidm, joint_registry: Registry, tmp_path: Path, method: str) -> None:
    file = tmp_path / "both.safetensors"
    fewer = ("--steps", 2, "--drawings", 1) if method == "fuse" else ()
    ran(
        cidm, "merge", "dog", "cat", "--method", method, *fewer, "-o", file, "--registry", joint_registry.root
    )
    drawing = ("generate", "-p", "a <dog>", "--steps", 2, "--registry", joint_registry.root)
    ran(cidm, *drawing, "--merged", file, "-o", tmp_path / "merged.png")
    assert any(FUSED[joint_registry.base.kind] in name for name in load_file(file))


@pytest.mark.parametrize("form", ["kohya", "comfyui", "diffusers", "peft", "bundle"])
def test_what_is_exported_comes_back(
    cidm: Cidm, joint_registry: Registry, base: Base, tmp_path: Path, form: str
) -> None:
    file = tmp_path / ("dog" if form in ("diffusers", "peft") else "dog.safetensors")
    ran(cidm, "export", "dog", "--to", form, "-o", file, "--registry", joint_registry.root)
    shutil.copytree(joint_registry.root, tmp_path / "other")
    other = Registry.open(tmp_path / "other")
    noun = () if form == "bundle" else ("--class", "dog")
    ran(cidm, "import", file, "--as", "back", *noun, "--registry", other.root)
    own, back = (weights(other, base, name) for name in ("dog", "back"))
    assert own.up.keys() == back.up.keys()
    for site, product in products(own).items():
        torch.testing.assert_close(other.get("back").scale * products(back)[site], product)


@torch.no_grad()
@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_stock_diffusers_draws_the_same_with_what_is_exported(
    cidm: Cidm, joint_registry: Registry, tmp_path: Path, joint_small: ModuleType, form: str
) -> None:
    file = tmp_path / ("dog" if form == "diffusers" else "dog.safetensors")
    ran(cidm, "export", "dog", "--to", form, "-o", file, "--registry", joint_registry.root)
    base = open_base(joint_registry, device="cpu", precision="fp32")
    latents = sampling.initial_noise(base, [0], (32, 32))
    words = torch.randn(1, 5, joint_small.NUMBERS, generator=torch.Generator().manual_seed(1))
    asked = (latents, torch.tensor(500.0), [words])
    plain = base.predict(*asked)
    with merged(base.denoiser, products(weights(joint_registry, base, "dog"))):
        ours = base.predict(*asked)
    pipe = base.architecture.pipeline(base)
    pipe.load_lora_weights(
        load_file(file / "pytorch_lora_weights.safetensors" if form == "diffusers" else file)
    )
    assert (ours - plain).abs().max() > 1e-3
    torch.testing.assert_close(base.predict(*asked), ours, rtol=1e-4, atol=1e-4)


def test_a_lora_of_another_family_is_refused(
    cidm: Cidm, joint_kind: str, joint_registry: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "dog.safetensors"
    ran(cidm, "export", "dog", "--to", "comfyui", "-o", file, "--registry", joint_registry.root)
    sd = Registry.create(tmp_path / "sd", identify(str(tiny_base)))
    refused = cidm("import", file, "--class", "dog", "--registry", sd.root)
    assert refused.code == ExitCode.INVALID
    what = {"flux2-klein": "Flux", "z-image": "a model that is a transformer"}[joint_kind]
    assert f"is a LoRA of {what}, which the registry's base is not" in refused.error
