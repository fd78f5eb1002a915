"""LoRA files of diffusers and adapters of PEFT: what their own loaders make of ours, and ours of theirs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load, save

import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.diffusers_lora import WEIGHTS_FILE, pack_diffusers, read_diffusers
from cidm_cli.formats.lora import LoraFile
from cidm_cli.formats.peft_folder import CONFIG_FILE, open_peft, pack_peft, read_peft
from cidm_cli.formats.tensors import read_tensors
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from exports import Pairs, pairs, products, worst

SHAPES = {"down.attn2.to_q": (6, 4), "down.attn2.to_k": (6, 5), "up.proj_in": (3, 6)}
FACTS = {"name": "dog"}


def diffusers_file(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> LoraFile:
    return read_diffusers(tensors, metadata or {}, shapes=SHAPES, prefix="unet.", source="dog.safetensors")


def peft_file(tensors: dict[str, torch.Tensor], **config: Any) -> LoraFile:
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, **config}
    return read_peft(tensors, {}, settings, shapes=SHAPES, source="dog")


def named(
    given: Pairs, prefix: str, sides: tuple[str, str] = ("lora_B", "lora_A")
) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}{site}.{side}.weight": factor
        for site, pair in given.items()
        for side, factor in zip(sides, pair, strict=True)
    }


def read_products(found: LoraFile) -> dict[str, torch.Tensor]:
    return {site: m.scale * (m.up @ m.down) for site, m in found.modules.items()}


def refused(read: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(CidmError) as caught:
        read(*arguments, **options)
    assert caught.value.code == ExitCode.INVALID
    assert caught.value.hint
    return caught.value.message


def changes(unet: Any, plain: Any) -> dict[str, torch.Tensor]:
    """By how much each layer's weight differs from the plain UNet's."""
    out = {}
    for site in tiny.shapes(plain):
        delta = (unet.get_submodule(site).weight - plain.get_submodule(site).weight).flatten(1)
        if delta.any():
            out[site] = delta
    return out


# Their loaders, our files


@pytest.mark.parametrize("kind", ["attention", "everything"])
@torch.no_grad()
def test_stock_diffusers_merges_the_same_weights(
    kind: str, base: Base, tiny_base: Path, tmp_path: Path
) -> None:
    shapes = base.shapes
    given = pairs(shapes, lora_sites(base.denoiser) if kind == "attention" else None, rank=3)
    file = pack_diffusers(given, 0.3, base.convolutions, "unet.", FACTS)
    (tmp_path / WEIGHTS_FILE).write_bytes(file)
    stock = StableDiffusionPipeline.from_pretrained(tiny_base, use_safetensors=True)
    stock.load_lora_weights(tmp_path, use_safetensors=True)
    stock.fuse_lora()
    stock.unload_lora_weights()
    assert worst(changes(stock.unet, base.denoiser), products(given, 0.3)) < 1e-6


@torch.no_grad()
def test_peft_merges_the_same_weights(base: Base, tmp_path: Path) -> None:
    given = pairs(base.shapes, rank=3)
    for name, content in pack_peft(given, 0.3, base.convolutions, FACTS).items():
        (tmp_path / name).write_bytes(content)
    unet = PeftModel.from_pretrained(copy.deepcopy(base.denoiser), tmp_path).merge_and_unload()
    assert worst(changes(unet, base.denoiser), products(given, 0.3)) < 1e-6


# Their files, our reader


def test_an_adapter_that_peft_saved_is_read_with_its_ranks_and_alphas(base: Base, tmp_path: Path) -> None:
    config = LoraConfig(
        r=2, lora_alpha=3, target_modules=["attn2.to_q", "attn2.to_k", "proj_in"], rank_pattern={"attn2.to_k": 4},
        alpha_pattern={"attn2.to_k": 6}, use_rslora=True, init_lora_weights=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = get_peft_model(copy.deepcopy(base.denoiser), config)
    model.save_pretrained(tmp_path, safe_serialization=True)
    file, settings = open_peft(tmp_path)
    tensors, metadata = read_tensors(file.read(), "x")
    found = read_peft(tensors, metadata, settings, shapes=base.shapes, source="x")
    to_k = next(m for site, m in found.modules.items() if site.endswith("attn2.to_k"))
    assert (to_k.down.shape[0], to_k.scale) == (4, pytest.approx(6 / 2))
    with torch.no_grad():
        whole = changes(model.merge_and_unload(), base.denoiser)
    assert worst(read_products(found), whole) < 1e-6


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_2", "olora"])
def test_an_adapter_whose_start_was_taken_out_of_the_base_is_refused_by_that_name(
    start: str, base: Base, tmp_path: Path
) -> None:
    config = LoraConfig(r=2, target_modules=["attn2.to_q"], init_lora_weights=start)
    get_peft_model(copy.deepcopy(base.denoiser), config).save_pretrained(tmp_path, safe_serialization=True)
    file, settings = open_peft(tmp_path)
    tensors, metadata = read_tensors(file.read(), "x")
    shapes = base.shapes
    assert f"'{start}'" in refused(read_peft, tensors, metadata, settings, shapes=shapes, source="x")
    told = {"lora_adapter_metadata": json.dumps({"unet.init_lora_weights": start})}
    given = named(pairs(SHAPES), "unet.")
    assert f"'{start}'" in refused(read_diffusers, given, told, shapes=SHAPES, prefix="unet.", source="x")


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal"])
def test_an_adapter_with_another_start_is_what_peft_makes_of_it(
    start: Any, base: Base, tmp_path: Path
) -> None:
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["attn2.to_q"], init_lora_weights=start)
    model = get_peft_model(copy.deepcopy(base.denoiser), config)
    generator = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator)
    model.save_pretrained(tmp_path, safe_serialization=True)
    file, settings = open_peft(tmp_path)
    tensors, metadata = read_tensors(file.read(), "x")
    found = read_peft(tensors, metadata, settings, shapes=base.shapes, source="x")
    with torch.no_grad():
        whole = changes(
            PeftModel.from_pretrained(copy.deepcopy(base.denoiser), tmp_path).merge_and_unload(),
            base.denoiser,
        )
    assert worst(read_products(found), whole) < 1e-5


def test_every_setting_that_peft_leaves_as_it_was_is_plain_lora() -> None:
    told = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in LoraConfig(target_modules=["to_q", "to_k", "proj_in"]).to_dict().items()
    }
    assert len(told) > 30
    assert peft_file(named(pairs(SHAPES), "base_model.model."), **told).modules.keys() == SHAPES.keys()


def test_a_file_that_diffusers_saved_is_read_with_the_alpha_in_its_metadata(
    base: Base, tiny_base: Path, tmp_path: Path
) -> None:
    stock = StableDiffusionPipeline.from_pretrained(tiny_base, use_safetensors=True)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["to_q", "to_out.0"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        stock.unet.add_adapter(config)
    state = {
        name.replace(".default", "").replace("base_layer.", ""): value
        for name, value in stock.unet.state_dict().items()
        if "lora_" in name
    }
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, state, unet_lora_adapter_metadata=stock.unet.peft_config["default"].to_dict()
    )
    tensors, metadata = read_tensors((tmp_path / WEIGHTS_FILE).read_bytes(), "x")
    found = read_diffusers(tensors, metadata, shapes=base.shapes, prefix="unet.", source="x")
    assert {m.scale for m in found.modules.values()} == {3.0}
    with torch.no_grad():
        stock.fuse_lora()
        whole = changes(stock.unload_lora_weights() or stock.unet, base.denoiser)
    assert worst(read_products(found), whole) < 1e-6


# Round trips, per module


def test_what_is_written_is_read_back_also_where_ranks_differ() -> None:
    given = {
        site: (up[:, : 1 + n], down[: 1 + n])
        for n, (site, (up, down)) in enumerate(pairs(SHAPES, rank=3).items())
    }
    folded = frozenset({"up.proj_in"})
    file = load(pack_diffusers(given, 0.3, folded, "unet.", FACTS))
    assert worst(read_products(diffusers_file(file)), products(given, 0.3)) < 1e-6
    files = pack_peft(given, 0.3, folded, FACTS)
    config = json.loads(files[CONFIG_FILE])
    back = peft_file(load(files["adapter_model.safetensors"]), **config)
    assert worst(read_products(back), products(given, 0.3)) < 1e-6
    assert {t.ndim for name, t in file.items() if "proj_in" in name} == {4}


def test_older_names_and_alphas_in_the_file_are_read() -> None:
    given = pairs(SHAPES)
    file = named(given, "unet.", ("lora.up", "lora.down"))
    file["unet.up.proj_in.alpha"] = torch.tensor(1.0)
    found = diffusers_file(file).modules
    assert (found["up.proj_in"].scale, found["down.attn2.to_q"].scale) == (0.5, 1.0)


@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_names_of_older_diffusers_are_read(prefix: str) -> None:
    given = pairs({"down.attn2.to_q": (6, 4), "down.attn2.to_out.0": (6, 6)})
    file = {}
    for site, (up, down) in given.items():
        layer, _, name = site.removesuffix(".0").rpartition(".")
        file[f"{prefix}{layer}.processor.{name}_lora.up.weight"] = up
        file[f"{prefix}{layer}.processor.{name}_lora.down.weight"] = down
    shapes = {"down.attn2.to_q": (6, 4), "down.attn2.to_out.0": (6, 6)}
    found = read_diffusers(file, {}, shapes=shapes, prefix="unet.", source="dog.safetensors")
    assert worst(read_products(found), products(given)) == 0


def test_linear_layers_outside_the_transformers_are_left_out_and_told() -> None:
    extra = named(pairs({"time_embedding.linear_1": (6, 4), "down.resnets.0.time_emb_proj": (6, 4)}), "unet.")
    found = diffusers_file(named(pairs(SHAPES), "unet.") | extra)
    assert found.left_out == ("unet.down.resnets.0.time_emb_proj", "unet.time_embedding.linear_1")
    assert found.modules.keys() == SHAPES.keys()


def test_text_encoders_are_left_out_and_told() -> None:
    extra = {f"text_encoder.layers.0.q_proj.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    found = diffusers_file(named(pairs(SHAPES), "unet.") | extra)
    assert found.left_out == ("text_encoder.layers.0.q_proj",)


# What is refused


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("unet.down.attn2.to_q.lora_magnitude_vector", (6,), "DoRA"),
        ("unet.conv_in.lora_A.weight", (2, 4, 3, 3), "LoCon"),
        ("unet.down.attn9.to_q.lora_A.weight", (2, 4), "no layer of this base"),
        ("unet.down.attn2.to_q.lora_A.bias", (2,), "no layer of this base"),
        ("down.attn2.to_q.lora_A.weight", (2, 4), "no layer of this base"),
        ("transformer.x.lora_A.weight", (2, 4), "no layer of this base"),
    ],
)
def test_what_is_no_lora_of_a_known_layer_is_refused_by_name(
    key: str, shape: tuple[int, ...], words: str
) -> None:
    message = refused(diffusers_file, named(pairs(SHAPES), "unet.") | {key: torch.ones(shape)})
    assert words in message
    assert key in message


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "LOHA"},
        {"peft_type": None},
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["conv_out"]},
        {"fan_in_fan_out": True},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"layer_replication": [[0, 4], [2, 5]]},
        {"layers_to_transform": [0]},
        {"layers_to_transform": 0},
        {"use_qalora": True},
        {"target_parameters": ["to_q.weight"]},
        {"trainable_token_indices": [1]},
        {"alora_invocation_tokens": [1]},
        {"a_setting_of_tomorrow": 1},
        {"init_lora_weights": "PiSSA"},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "loftq"},
        {"target_modules": ["to_q", "proj_in"]},
        {"exclude_modules": ["attn2.to_k"]},
        {"lora_alpha": "many"},
        {"lora_alpha": True},
        {"lora_alpha": float("inf")},
        {"alpha_pattern": {"(a+)+$": 1}},
        {"alpha_pattern": {"to_q": None}},
        {"alpha_pattern": [1]},
    ],
)
def test_settings_that_are_not_plain_lora_are_refused(config: dict[str, Any]) -> None:
    refused(peft_file, named(pairs(SHAPES), "base_model.model."), **config)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a": 1e999}, 2'])
def test_settings_that_are_no_json_object_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    (tmp_path / "adapter_model.safetensors").write_bytes(save(named(pairs(SHAPES), "base_model.model.")))
    assert CONFIG_FILE in refused(open_peft, tmp_path)


def test_pickled_adapters_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x02")
    assert "never read" in refused(open_peft, tmp_path)
