"""Which naming a LoRA file has, and which model it was made for: told by its names and shapes, never guessed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel

import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.lora import Fit
from cidm_cli.formats.lora_file import naming_of, read_lora
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.sd_files import named, sgm_name
from exports import fit_of, pairs, products, sdxl_unet, worst

BUILD: dict[str, Callable[[], UNet2DConditionModel]] = {"sd15": tiny.sd15_unet, "sdxl": sdxl_unet}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def fits() -> dict[str, Fit]:
    """The published bases at full size."""
    with torch.device("meta"):
        shapes = {family: tiny.shapes(build()) for family, build in BUILD.items()}
    widths = {"sd15": 768, "sdxl": 2048}
    return {family: fit_of(each, family, 2, width=widths[family]) for family, each in shapes.items()}


def kohya(fit: Fit, naming: str | None = None) -> Tensors:
    """A file as kohya's trainer makes it, of three layers and without metadata."""
    names = named(fit.shapes, 2, sgm=naming == "sdxl", width=1).kohya if naming else fit.names.kohya
    out = {}
    for site in [site for site in fit.shapes if site.endswith("attn2.to_k")][:3]:
        height, width = fit.shapes[site]
        out[f"{names[site]}.lora_up.weight"] = torch.ones(height, 2)
        out[f"{names[site]}.lora_down.weight"] = torch.ones(2, width)
    return out


def refused(tensors: Tensors, fit: Fit) -> str:
    with pytest.raises(CidmError) as caught:
        read_lora(naming_of(tensors, "x"), tensors, {}, {}, fit, "x.safetensors")
    assert caught.value.code == ExitCode.INVALID
    return caught.value.message


@pytest.mark.parametrize(
    ("made", "base", "words"),
    [
        ("sdxl", "sd15", "is a LoRA of SDXL, and the registry's base is Stable Diffusion 1.x"),
        ("sd15", "sdxl", "is a LoRA of Stable Diffusion 1.x, and the registry's base is SDXL"),
    ],
)
def test_a_file_of_another_family_is_told_by_the_text_it_sees(
    made: str, base: str, words: str, fits: dict[str, Fit]
) -> None:
    assert words in refused(kohya(fits[made]), fits[base])


def test_a_file_of_stable_diffusion_2_is_told_by_the_text_it_sees(fits: dict[str, Fit]) -> None:
    file = {
        n: torch.ones(2, 1024) if "down" in n.split(".", 1)[1] else t for n, t in kohya(fits["sd15"]).items()
    }
    assert "is a LoRA of Stable Diffusion 2.x" in refused(file, fits["sd15"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", "Flux"),
        ("lora_unet_single_blocks_3_linear1.lora_up.weight", "Flux"),
        ("diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "Stable Diffusion 3"),
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", "transformer"),
        ("transformer.blocks.0.attn1.to_q.lora_A.weight", "transformer"),
    ],
)
def test_loras_of_other_models_are_called_by_their_names(fits: dict[str, Fit], name: str, words: str) -> None:
    tensors = {name: torch.zeros(2, 2), "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.ones(1)}
    with pytest.raises(CidmError, match=f"is a LoRA of .*{words}.*which the registry's base is not"):
        read_lora(naming_of(tensors, "x"), tensors, {}, {}, fits["sd15"], "x")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("oft_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.oft_blocks", "OFT"),
        ("lycoris_down_blocks_0_attentions_0_proj_in.lokr_w1", "LoKr"),
        ("model.layers.0.hada_w1_a", "LoHa"),
        ("x.dora_scale", "DoRA"),
        ("x.a1.weight", "GLoRA"),
        ("x.ia3_l", "IA3"),
    ],
)
def test_other_networks_of_whatever_naming_are_called_by_their_names(name: str, words: str) -> None:
    with pytest.raises(CidmError, match=f"is a {words} network"):
        naming_of([name], "x")


@pytest.mark.parametrize(
    "part", ["hada_w1_a", "lokr_w1", "oft_R.weight", "lora_magnitude_vector", "dora_scale", "diff"]
)
@pytest.mark.parametrize("prefix", ["unet.", "diffusion_model."])
def test_other_networks_in_dotted_names_are_called_by_their_names(
    prefix: str, part: str, fits: dict[str, Fit]
) -> None:
    name = f"{prefix}{next(iter(fits['sd15'].shapes))}.{part}"
    assert "network, and only LoRA is read" in refused({name: torch.ones(2, 2)}, fits["sd15"])


@pytest.mark.parametrize("family", BUILD)
@pytest.mark.parametrize("original", [True, False])
def test_what_comfyui_puts_its_prefix_before_is_read_in_either_naming(
    family: str, original: bool, fits: dict[str, Fit]
) -> None:
    fit = fits[family]
    sites = [site for site in fit.shapes if site.endswith("attn2.to_k")][:4]
    given = pairs(fit.shapes, sites)
    file = {}
    for site, (up, down) in given.items():
        name = f"diffusion_model.{sgm_name(site, 2) if original else site}"
        file |= {
            f"{name}.lora_up.weight": up,
            f"{name}.lora_down.weight": down,
            f"{name}.alpha": torch.tensor(1.0),
        }
    assert naming_of(file, "x") == "comfyui"
    found = read_lora("comfyui", file, {}, {}, fit, "x")
    assert worst({s: m.scale * (m.up @ m.down) for s, m in found.modules.items()}, products(given, 0.5)) == 0


def test_every_layer_that_is_learned_is_found_with_comfyuis_prefix() -> None:
    unet = tiny.sdxl_unet()
    fit = fit_of(tiny.shapes(unet), "sdxl", 1, width=tiny.TEXT_WIDTH + tiny.SECOND_WIDTH)
    given = pairs(fit.shapes, lora_sites(unet))
    sides = ("lora_B", "lora_A")
    file = {
        f"diffusion_model.{sgm_name(site, 1)}.{side}.weight": factor
        for site, pair in given.items()
        for side, factor in zip(sides, pair, strict=True)
    }
    assert read_lora("comfyui", file, {}, {}, fit, "x").modules.keys() == given.keys()
