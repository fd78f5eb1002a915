"""Single files: both layouts that people share are read to the same model, offline; what else they may be is said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    infer_diffusers_model_type,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import original
import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models import sd_parts
from cidm_cli.models.base import Base, load
from cidm_cli.models.checkpoint import Checkpoint, inspect
from cidm_cli.models.identity import fingerprint, folder_of, identify
from cidm_cli.models.sampling import make_scheduler
from original import Tensors

FAMILIES = ("sd15", "sdxl")
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def files(base: Base, sdxl: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each family. Do not change."""
    folder = tmp_path_factory.mktemp("files")
    for family, whole in (("sd15", base), ("sdxl", sdxl)):
        tensors = original.checkpoint(whole.denoiser, whole.vae, *whole.encoders)
        save_file(tensors, folder / f"{family}.safetensors")
    return {family: folder / f"{family}.safetensors" for family in FAMILIES}


@pytest.fixture
def small(tiny_base: Path, tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that single files are read with are those of the small models, and there is no network."""
    folders = {"sd15": tiny_base, "sdxl": tiny_sdxl}
    monkeypatch.setattr(sd_parts, "settings_folder", folders.__getitem__)
    monkeypatch.setattr(sd_parts, "clip_tokenizer", tiny.tokenizer)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def reading(place: Path) -> Base:
    return load(place, device=torch.device("cpu"), compute=torch.float32)


def changed(file: Path, tmp_path: Path, change: Callable[[Tensors], object], **metadata: str) -> Path:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors", metadata=metadata or None)
    return tmp_path / "changed.safetensors"


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(CidmError) as caught:
        action()
    assert caught.value.code == ExitCode.INVALID
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


# -- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("half", [False, True])
def test_a_single_file_is_the_same_model_as_the_folder(
    files: dict[str, Path], base: Base, sdxl: Base, tmp_path: Path, family: str, half: bool
) -> None:
    def halve(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.half() if tensor.is_floating_point() else tensor

    file = changed(files[family], tmp_path, halve if half else lambda tensors: None)
    ours, folder = reading(file), {"sd15": base, "sdxl": sdxl}[family]
    assert ours.family.name == folder.family.name == family
    assert ours.scheduler_config == folder.scheduler_config
    assert ours.zero_empty is folder.zero_empty is (family == "sdxl")
    assert ours.pixels == folder.pixels
    for part in PARTS[: 3 if family == "sd15" else 4]:
        wanted = dict(folder.parts[part].named_parameters())
        for name, parameter in ours.parts[part].named_parameters():
            theirs = wanted.pop(name)
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, theirs.half().float() if half else theirs), name
        assert not wanted


@pytest.mark.usefixtures("small")
def test_a_single_file_is_identified_by_its_content(files: dict[str, Path], tmp_path: Path) -> None:
    for family, file in files.items():
        found = identify(str(file))
        assert (found.kind, found.source) == (family, str(file))
        assert folder_of(found) == file
        copy = tmp_path / "renamed.safetensors"
        copy.write_bytes(file.read_bytes())
        assert identify(str(copy)).fingerprint == found.fingerprint == fingerprint(file)
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        copy.write_bytes(content)
        assert fingerprint(copy) != found.fingerprint


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("family", FAMILIES)
def test_another_vae_takes_the_place_of_the_files_own(
    files: dict[str, Path], tiny_base: Path, tmp_path: Path, family: str
) -> None:
    vae = AutoencoderKL.from_pretrained(tiny_base, subfolder="vae", use_safetensors=True)
    for parameter in vae.parameters():
        parameter.data.mul_(2)
    vae.save_pretrained(tmp_path / "vae")
    ours = load(files[family], device=torch.device("cpu"), compute=torch.float32, vae=tmp_path / "vae")
    for mine, theirs in zip(ours.vae.parameters(), vae.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("family", "missing"),
    [
        ("sd15", "model.diffusion_model.middle_block.1.proj_in.weight"),
        ("sd15", "cond_stage_model.transformer.text_model.final_layer_norm.weight"),
        ("sdxl", "first_stage_model.quant_conv.weight"),
        ("sdxl", "conditioner.embedders.1.model.ln_final.bias"),
    ],
)
def test_one_missing_layer_is_noticed(
    files: dict[str, Path], tmp_path: Path, family: str, missing: str
) -> None:
    """Nothing is filled up with random weights."""
    file = changed(files[family], tmp_path, lambda tensors: tensors.pop(missing))
    assert "changed.safetensors" in refused(lambda: reading(file))


# -- noise schedules --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("family", FAMILIES)
def test_marks_of_v_prediction_and_zero_snr_are_heeded(
    files: dict[str, Path], tmp_path: Path, family: str
) -> None:
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    ours = reading(changed(files[family], tmp_path, lambda tensors: tensors.update(marks)))
    assert ours.prediction == "v_prediction"
    scheduler = make_scheduler(ours, "ddim")
    assert float(scheduler.alphas_cumprod[-1]) == 0
    scheduler.set_timesteps(4)
    assert int(scheduler.timesteps[0]) == 999


@pytest.mark.parametrize(
    ("value", "wanted"), [("v", {"prediction_type": "v_prediction"}), ("epsilon", {}), (None, {})]
)
def test_the_files_metadata_may_name_the_prediction(
    files: dict[str, Path], tmp_path: Path, value: str | None, wanted: dict[str, str]
) -> None:
    metadata = {"modelspec.prediction_type": value} if value else {}
    file = changed(files["sdxl"], tmp_path, lambda tensors: None, **metadata)
    assert inspect(file) == Checkpoint("sdxl", wanted)


# -- what is refused --------------------------------------------------------------------------------------------

FIRST = "model.diffusion_model.input_blocks.0.0.weight"


def drop(*starts: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(starts)]:
            del tensors[name]

    return change


def add(**names: torch.Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name.replace("__", "."): t for name, t in names.items()})


def first(channels: int) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({FIRST: torch.zeros(16, channels, 3, 3)})


ONE = torch.zeros(1)


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("sd15", first(9), "inpainting"),
        ("sd15", first(8), "InstructPix2Pix"),
        ("sdxl", first(9), "inpainting"),
        ("sdxl", first(5), "5 input channels"),
        ("sd15", drop("first_stage_model."), "without its VAE"),
        ("sd15", drop("cond_stage_model."), "without its text encoder"),
        ("sdxl", drop("conditioner.embedders.1."), "without its text encoder"),
        ("sdxl", drop("model."), "no Stable Diffusion UNet"),
        ("sdxl", add(edm_mean=ONE), "EDM"),
        ("sdxl", add(edm_vpred__sigma_max=ONE), "EDM"),
        ("sdxl", add(conditioner__embedders__0__model__ln_final__bias=ONE), "refiner"),
        ("sd15", add(cond_stage_model__model__ln_final__bias=ONE), "Stable Diffusion 2"),
        ("sd15", add(control_model__input_hint_block__0__weight=ONE), "ControlNet"),
        ("sd15", add(lora_unet_down_blocks_0__alpha=ONE), "LoRA"),
        ("sd15", add(model__diffusion_model__joint_blocks__0__x=ONE), "Stable Diffusion 3"),
        ("sd15", add(double_blocks__0__img_attn__norm=ONE), "Flux"),
        ("sd15", add(down_blocks__0__resnets__0__conv1__weight=ONE), "diffusers folder"),
    ],
)
def test_other_models_are_refused_by_what_they_are(
    files: dict[str, Path], tmp_path: Path, family: str, change: Callable[[Tensors], None], words: str
) -> None:
    file = changed(files[family], tmp_path, change)
    message = refused(lambda: identify(str(file)))
    assert words in message
    assert "changed.safetensors" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\x80\x04\x95" + b"\0" * 40,
        (1 << 60).to_bytes(8, "little") + b"{}",
        (17 << 20).to_bytes(8, "little") + b" " * (18 << 20),
        (4).to_bytes(8, "little") + b"[[[[",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
        (1000).to_bytes(8, "little") + b"[" * 1000,
        (22).to_bytes(8, "little") + b'{"__metadata__": "abc"}',
    ],
)
def test_what_is_no_safetensors_file_is_refused_by_content(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "renamed.safetensors"
    file.write_bytes(content)
    refused(lambda: identify(str(file)))


def test_more_tensors_than_any_checkpoint_has_are_refused(tmp_path: Path) -> None:
    header = json.dumps(
        {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(20_001)}
    )
    file = tmp_path / "many.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    refused(lambda: inspect(file))


# -- full size --------------------------------------------------------------------------------------------------


def settings(family: str, part: str) -> dict[str, Any]:
    return json.loads((sd_parts.settings_folder(family) / part / "config.json").read_text())


def full_size(family: str) -> dict[str, Any]:
    """The parts of a family as their settings describe them, without memory."""
    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel.from_config(settings(family, "unet")),
            "vae": AutoencoderKL.from_config(settings(family, "vae")),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**settings(family, "text_encoder"))),
        }
        if family == "sdxl":
            config = CLIPTextConfig(**settings(family, "text_encoder_2"))
            parts["text_encoder_2"] = CLIPTextModelWithProjection(config)
    return parts


SIZES = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
"""Numbers in each part of the published models."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_settings_describe_the_published_models(family: str) -> None:
    parts = full_size(family)
    assert {name: sum(p.numel() for p in model.parameters()) for name, model in parts.items()} == SIZES[
        family
    ]
    assert parts["vae"].config.scaling_factor == {"sd15": 0.18215, "sdxl": 0.13025}[family]
    assert parts["unet"].config.sample_size == {"sd15": 64, "sdxl": 128}[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_of_the_full_size_models_is_found_in_a_checkpoint(family: str, tmp_path: Path) -> None:
    parts = full_size(family)
    tensors = original.checkpoint(*parts.values())
    # diffusers tells families apart by names of its own choice: it takes this for the published layout.
    assert infer_diffusers_model_type(tensors) == {"sd15": "v1", "sdxl": "xl_base"}[family]
    entries, end = {}, 0
    for n, t in tensors.items():
        begin, end = end, end + 2 * t.numel()
        entries[n] = {"dtype": "F16", "shape": list(t.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    (tmp_path / "full.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    # As long as the whole model, without its bytes: they are not to be read.
    os.truncate(tmp_path / "full.safetensors", 8 + len(header) + end)
    assert inspect(tmp_path / "full.safetensors") == Checkpoint(family)
    found = {
        "unet": convert_ldm_unet_checkpoint(tensors, settings(family, "unet")),
        "vae": convert_ldm_vae_checkpoint(tensors, settings(family, "vae")),
        "text_encoder": {
            name.removeprefix("text_model."): tensor
            for name, tensor in convert_ldm_clip_checkpoint(tensors).items()
            if not name.endswith("position_ids")
        },
    }
    if family == "sdxl":
        found["text_encoder_2"] = convert_open_clip_checkpoint(
            parts["text_encoder_2"], tensors, prefix="conditioner.embedders.1.model."
        )
    for name, model in parts.items():
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        assert {key: value.shape for key, value in found[name].items()} == shapes, name


def test_the_vocabulary_is_clips_own() -> None:
    """Ids as the published tokenizer gives them."""
    first, second = (sd_parts.clip_tokenizer(pad) for pad in ("<|endoftext|>", "!"))
    assert len(first) == len(second) == 49408
    assert first.get_vocab() == second.get_vocab()
    assert first("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (first.pad_token_id, second.pad_token_id) == (49407, 0)
    assert (first.bos_token_id, first.eos_token_id, first.unk_token_id) == (49406, 49407, 49407)
    assert first.model_max_length == 77
