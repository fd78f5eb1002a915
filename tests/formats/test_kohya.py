"""kohya's LoRA files: every name is one that readers know, and nothing unknown is passed over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load, save

import tiny
from cidm_cli.bases import family
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.kohya import About, pack_kohya, read_kohya
from cidm_cli.formats.lora import LoraFile, joined
from cidm_cli.formats.tensors import read_tensors
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.lora import merged
from cidm_cli.models.sd_files import named, names
from exports import ABOUT, Pairs, fit_of, kohya_tensors, pairs, products, sdxl_unet, worst

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
SHAPES = {
    f"{BLOCK}.attn2.to_q": (6, 6),
    f"{BLOCK}.attn2.to_k": (6, 5),
    f"{BLOCK}.attn2.to_out.0": (6, 6),
    f"{BLOCK}.ff.net.0.proj": (24, 6),
    "down_blocks.0.attentions.0.proj_in": (6, 6),
}
NAMES = named(SHAPES, 2, sgm=False, width=5).kohya
FOLDED = frozenset({"down_blocks.0.attentions.0.proj_in"})
NAME = f"lora_unet_{BLOCK.replace('.', '_')}_attn2_to_q"


def read(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, kind: str = "sd15"
) -> LoraFile:
    return read_kohya(tensors, metadata or {}, fit_of(SHAPES, kind, 2, width=5), source="dog.safetensors")


def written(
    given: Pairs,
    scale: float,
    folded: frozenset[str] = FOLDED,
    names: Mapping[str, str] = NAMES,
    about: About = ABOUT,
) -> bytes:
    return pack_kohya(joined(given, names, {}), scale, {names[site] for site in folded}, about)


def read_products(found: LoraFile) -> dict[str, torch.Tensor]:
    return {site: m.scale * (m.up @ m.down) for site, m in found.modules.items()}


def refused(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, kind: str = "sd15"
) -> str:
    with pytest.raises(CidmError) as caught:
        read(tensors, metadata, kind)
    assert caught.value.code == ExitCode.INVALID
    assert caught.value.message.startswith("dog.safetensors: ")
    assert caught.value.hint
    return caught.value.message


def as_diffusers_reads(names: dict[str, str], unet: UNet2DConditionModel) -> set[str]:
    """The layers that diffusers' own conversion finds in a file with these module names."""
    one = torch.zeros(1, 1)
    file = {f"{name}.{side}.weight": one for name in names.values() for side in ("lora_down", "lora_up")}
    file |= {f"{name}.alpha": torch.tensor(1.0) for name in names.values()}
    state, alphas = _convert_non_diffusers_lora_to_diffusers(
        _maybe_map_sgm_blocks_to_diffusers(file, unet.config)
    )
    assert len(alphas) == len(names)
    known = convert_unet_state_dict_to_peft(
        {key.removeprefix("unet."): value for key, value in state.items()}
    )
    assert {key.rsplit(".lora_", 1)[1] for key in known} == {"A.weight", "B.weight"}
    return {key.rsplit(".lora_", 1)[0] for key in known}


# The names, on the published bases at full size


@pytest.mark.parametrize(
    ("build", "sgm", "sites", "layers"), [(tiny.sd15_unet, False, 64, 192), (sdxl_unet, True, 280, 722)]
)
def test_diffusers_finds_every_layer_of_the_full_size_unet_by_its_name(
    build: Callable[[], UNet2DConditionModel], sgm: bool, sites: int, layers: int
) -> None:
    with torch.device("meta"):
        unet = build()
    every = set(tiny.shapes(unet))
    assert len(lora_sites(unet)) == sites
    assert len(every) == layers, "as many as kohya's trainer makes modules for this UNet"
    names = dict(named(every, 2, sgm=sgm, width=5).kohya)
    assert len(set(names.values())) == layers
    assert as_diffusers_reads(names, unet) == every
    if not sgm:
        assert not set(names.values()) - {
            "lora_unet_" + name.replace(".", "_") for name, _ in unet.named_modules()
        }, "what ComfyUI and kohya make of the UNet's own module names"
        return
    places = {
        name.split("_transformer")[0].split("_proj")[0].removeprefix("lora_unet_") for name in names.values()
    }
    assert places == {
        *(f"input_blocks_{n}_1" for n in (4, 5, 7, 8)),
        "middle_block_1",
        *(f"output_blocks_{n}_1" for n in range(6)),
    }
    assert names["down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"] == (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_q"
    )
    assert names["up_blocks.1.attentions.2.transformer_blocks.1.attn2.to_out.0"] == (
        "lora_unet_output_blocks_5_1_transformer_blocks_1_attn2_to_out_0"
    )


@torch.no_grad()
def test_stock_diffusers_computes_the_same_with_an_sdxl_file() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        unet = tiny.sdxl_unet().eval()
    given = pairs(tiny.shapes(unet), rank=3)
    about = replace(ABOUT, family=family("sdxl").files)
    file = written(given, 0.5, tiny.convolutions(unet), names(unet).kohya, about)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    width = tiny.TEXT_WIDTH + tiny.SECOND_WIDTH
    text = torch.randn(1, 5, width, generator=torch.Generator().manual_seed(1))
    added = {"text_embeds": torch.ones(1, tiny.POOLED_WIDTH), "time_ids": torch.arange(6.0)[None]}

    def run() -> torch.Tensor:
        return unet(latents, 500, text, added_cond_kwargs=added).sample

    plain = run()
    with merged(unet, products(given, 0.5)):
        ours = run()
    state, alphas = StableDiffusionXLPipeline.lora_state_dict(load(file), unet_config=unet.config)
    StableDiffusionXLPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
    assert (ours - plain).abs().max() > 1e-2
    torch.testing.assert_close(run(), ours, rtol=1e-5, atol=1e-5)


# What comes back


def packed(given: Pairs, scale: float = 0.75) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    return read_tensors(written(given, scale), "dog.safetensors")


def test_what_is_written_comes_back_also_where_ranks_differ() -> None:
    given = {
        site: (up[:, : 1 + n % 2], down[: 1 + n % 2])
        for n, (site, (up, down)) in enumerate(pairs(SHAPES).items())
    }
    tensors, metadata = packed(given)
    assert worst(read_products(read(tensors, metadata)), products(given, 0.75)) < 1e-6
    assert {float(t) for name, t in tensors.items() if name.endswith(".alpha")} == {1.5}
    folded = [name for name, t in tensors.items() if t.ndim == 4]
    assert len(folded) == 2
    assert all("proj_in" in name for name in folded)


def test_the_same_weights_give_the_same_bytes() -> None:
    given = pairs(SHAPES)
    turned = dict(reversed(given.items()))
    assert written(given, 1.0) == written(turned, 1.0)


def test_the_metadata_are_strings_and_their_hash_is_that_of_the_tensors() -> None:
    file = written(pairs(SHAPES), 0.75)
    metadata = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])["__metadata__"]
    content = hashlib.sha256(file[8 + int.from_bytes(file[:8], "little") :]).hexdigest()
    assert all(isinstance(value, str) for value in metadata.values())
    wanted = {
        "ss_base_model_version": "sd_v1", "ss_network_module": "networks.lora", "ss_network_dim": "2",
        "ss_network_alpha": "1.5", "ss_output_name": "dog", "sshs_model_hash": content,
        "modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers", "modelspec.title": "dog", "modelspec.resolution": "512x512",
        "modelspec.hash_sha256": f"0x{content}", "modelspec.trigger_phrase": "dog",
        "modelspec.date": "2026-01-02T03:04:05+00:00", "modelspec.tags": "dog",
    }  # fmt: skip
    assert wanted.items() <= metadata.items()
    assert json.loads(metadata["ss_tag_frequency"]) == {"dog": {"dog": 5}}
    assert "modelspec.merged_from" not in metadata


def test_each_module_keeps_its_own_rank_and_alpha() -> None:
    file = kohya_tensors(pairs(SHAPES, rank=2), alpha=1.0)
    other = pairs(SHAPES, rank=3, seed=1)
    site = f"{BLOCK}.attn2.to_k"
    file |= kohya_tensors({site: other[site]}, alpha=12.0)
    del file[f"{NAME}.alpha"]
    found = read(file).modules
    assert (found[site].down.shape[0], found[site].alpha) == (3, 12.0)
    assert found[f"{BLOCK}.attn2.to_q"].scale == 1.0, "without an alpha it is the rank"
    assert found[f"{BLOCK}.attn2.to_out.0"].scale == 0.5


def test_both_namings_are_read_on_either_family() -> None:
    names = named(SHAPES, 2, sgm=True, width=5).kohya
    given = pairs(SHAPES)
    plain = kohya_tensors(given)
    theirs = {}
    for site, name in names.items():
        for side in ("lora_up.weight", "lora_down.weight"):
            theirs[f"{name}.{side}"] = plain[f"lora_unet_{site.replace('.', '_')}.{side}"]
    assert worst(read_products(read(theirs)), products(given)) == 0
    twice = plain | theirs
    assert "twice" in refused(twice)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_other_precisions_are_read_for_what_they_say(dtype: torch.dtype) -> None:
    file = {name: tensor.to(dtype) for name, tensor in kohya_tensors(pairs(SHAPES)).items()}
    for site, module in read(file).modules.items():
        assert torch.equal(
            module.up, file[f"lora_unet_{site.replace('.', '_')}.lora_up.weight"].float().flatten(1)
        )


def test_values_that_no_training_leaves_are_found_in_float8_too() -> None:
    assert "NaN" in refused(
        change(f"{NAME}.lora_up.weight", torch.full((6, 2), torch.nan).to(torch.float8_e5m2))
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", torch.tensor(0.0)),
        ("lora_up.weight", torch.zeros(6, 2)),
        ("lora_down.weight", torch.zeros(2, 6)),
    ],
)
def test_layers_that_change_nothing_are_told(name: str, value: torch.Tensor) -> None:
    assert read(change(f"{NAME}.{name}", value)).idle == [f"{BLOCK}.attn2.to_q"]
    assert read(kohya_tensors(pairs(SHAPES), alpha=1.0)).idle == []


@pytest.mark.parametrize(
    "module",
    [
        "time_embedding_linear_1", "down_blocks_0_resnets_0_time_emb_proj", "add_embedding_linear_2", "time_embed_0",
        "label_emb_0_0", "input_blocks_1_0_emb_layers_1",
    ],
)  # fmt: skip
def test_linear_layers_outside_the_transformers_are_left_out_and_told(module: str) -> None:
    parts = ("lora_up.weight", "lora_down.weight", "alpha")
    extra = {f"lora_unet_{module}.{part}": torch.ones(2, 2) for part in parts}
    found = read(kohya_tensors(pairs(SHAPES)) | extra)
    assert found.left_out == (f"lora_unet_{module}",)
    assert found.modules.keys() == SHAPES.keys()


def test_text_encoders_and_embeddings_are_left_out_and_told() -> None:
    text = {
        f"lora_te_text_model_encoder_layers_{n}_mlp_fc1.lora_up.weight": torch.ones(2, 2) for n in range(3)
    }
    found = read(kohya_tensors(pairs(SHAPES)) | text | {"bundle_emb.dog.emb_params": torch.ones(1, 4)})
    assert len(found.left_out) == 4
    assert "bundle_emb.dog" in found.left_out
    assert found.modules.keys() == SHAPES.keys()


# What is refused


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (f"{NAME}.hada_w1_a", "LoHa"),
        (f"{NAME}.lokr_w1", "LoKr"),
        (f"{NAME}.lora_mid.weight", "LoCon"),
        (f"{NAME}.dora_scale", "DoRA"),
        (f"{NAME}.diff", "full differences"),
        (f"{NAME}.oft_blocks", "OFT"),
        (f"{NAME}.oft_diag", "OFT"),
        (f"{NAME}.a1.weight", "GLoRA"),
        ("lora_unet_down_blocks_9_attentions_0_proj_in.lora_up.weight", "no layer of this base"),
        (f"{NAME}.lora_sideways.weight", "no layer of this base"),
        ("stranger", "no layer of this base"),
    ],
)
def test_what_is_no_lora_of_a_known_layer_is_refused_by_name(key: str, words: str) -> None:
    message = refused(kohya_tensors(pairs(SHAPES)) | {key: torch.ones(2, 2)})
    assert words in message
    assert key[:60] in message


def test_convolutions_are_refused_by_name() -> None:
    key = "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"
    message = refused(kohya_tensors(pairs(SHAPES)) | {key: torch.ones(2, 6, 3, 3)})
    assert "LoCon" in message
    assert key in message


@pytest.mark.parametrize(
    ("told", "kind"),
    [("sdxl_base_v1-0", "sd15"), ("sd_v1", "sdxl"), ("sd_v2_768_v", "sd15"), ("flux1", "mini")],
)
def test_a_file_of_another_family_is_refused(told: str, kind: str) -> None:
    assert told in refused(kohya_tensors(pairs(SHAPES)), {"ss_base_model_version": told}, kind)


def change(name: str, value: torch.Tensor | None) -> dict[str, torch.Tensor]:
    file = kohya_tensors(pairs(SHAPES), alpha=1.0)
    if value is None:
        del file[name]
    else:
        file[name] = value
    return file


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lora_up.weight", None, "one of its two"),
        ("lora_up.weight", torch.ones(7, 2), "6x6"),
        ("lora_down.weight", torch.ones(3, 6), "6x6"),
        ("lora_down.weight", torch.ones(6), "6x6"),
        ("lora_down.weight", torch.full((2, 6), torch.nan), "NaN"),
        ("lora_up.weight", torch.full((6, 2), 1e30), "no training leaves"),
        ("lora_up.weight", torch.ones(6, 2, dtype=torch.int32), "int32"),
        ("alpha", torch.tensor(torch.inf), "not one finite number"),
        ("alpha", torch.tensor(1e30), "not one finite number"),
        ("alpha", torch.ones(2), "not one finite number"),
    ],
)
def test_what_does_not_fit_or_cannot_be_trained_is_refused(
    name: str, value: torch.Tensor | None, words: str
) -> None:
    assert words in refused(change(f"{NAME}.{name}", value))


def test_an_alpha_may_be_written_as_a_whole_number() -> None:
    whole, exact = (
        change(f"{NAME}.alpha", torch.tensor(2, dtype=kind)) for kind in (torch.int64, torch.float32)
    )
    alphas = [{site: one.alpha for site, one in read(file).modules.items()} for file in (whole, exact)]
    assert alphas[0] == alphas[1]
    assert 2.0 in alphas[0].values()


def test_rank_zero_and_an_empty_file_are_refused() -> None:
    file = change(f"{NAME}.lora_up.weight", torch.ones(6, 0))
    file[f"{NAME}.lora_down.weight"] = torch.ones(0, 6)
    assert "6x6" in refused(file)
    assert "no low-rank weights" in refused({})
    assert "no low-rank weights" in refused(load(save({"lora_te_x.lora_up.weight": torch.ones(1)})))
