"""Reading a base's parts: what is not whole is refused, never filled with random numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models.base import load, outline
from cidm_cli.models.building import building
from cidm_cli.models.identity import identify
from cidm_cli.models.loading import load_parts
from cidm_cli.models.opening import open_base
from cidm_registry import Registry

FILES = {
    "unet": ("diffusion_pytorch_model.safetensors", "mid_block.resnets.0.conv1.weight"),
    "vae": ("diffusion_pytorch_model.safetensors", "decoder.conv_in.weight"),
    "text_encoder": ("model.safetensors", "encoder.layers.1.mlp.fc1.weight"),
    "text_encoder_2": ("model.safetensors", "text_projection.weight"),
}


@pytest.mark.parametrize("part", FILES)
def test_a_base_in_which_any_part_lacks_a_weight_is_refused(
    tiny_sdxl: Path, tmp_path: Path, part: str
) -> None:
    folder = shutil.copytree(tiny_sdxl, tmp_path / "base")
    name, key = FILES[part]
    file = folder / part / name
    weights = load_file(file)
    found = [own for own in weights if own.endswith(key)]
    del weights[found[0]]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CidmError, match="it holds no weights for .*" + key.rsplit(".", 2)[-2]) as caught:
        load_parts(folder, dtype=torch.float32, vae=None)
    assert caught.value.code == ExitCode.INVALID


def test_half_precision_files_that_came_later_are_not_taken_for_the_bases_own(
    tiny_base: Path, tmp_path: Path
) -> None:
    """Another program fetched them into the same folder, for some parts or for all."""
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    registry = Registry.create(tmp_path / "registry", identify(str(folder)))
    before = open_base(registry, device="cpu", precision="fp32").denoiser.state_dict()
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(
        {name: 0 * value for name, value in load_file(file).items()}, file.with_suffix(".fp16.safetensors")
    )
    after = open_base(registry, device="cpu", precision="fp32").denoiser.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    file.unlink()
    with pytest.raises(CidmError, match="not those this registry was made with"):
        open_base(registry, device="cpu", precision="fp32")


@pytest.mark.parametrize("folder", ["tiny_base", "tiny_sdxl"])
def test_no_weight_lies_where_its_file_happened_to_put_it(
    folder: str, request: pytest.FixtureRequest
) -> None:
    """Where a tensor begins decides the last bits of some processors' products."""
    base = load(request.getfixturevalue(folder), device=torch.device("cpu"), compute=torch.float32)
    for part in (base.denoiser, base.vae, *base.encoders):
        for name, tensor in part.state_dict().items():
            assert tensor.data_ptr() % 16 == 0, name
            assert tensor.untyped_storage().nbytes() == tensor.nbytes, f"{name} is all of a file"


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("unet/config.json", {"layers_per_block": 1000, "down_block_types": ["DownBlock2D"] * 3}, "layers"),
        ("unet/config.json", {"sample_size": [64, 64]}, "size of its images"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": int(1e30)}, "tokens a text"),
        ("scheduler/scheduler_config.json", {"trained_betas": [2.0, 2.0]}, "cannot load"),
        ("scheduler/scheduler_config.json", {"solver_type": "evil"}, "cannot load"),
    ],
)
def test_settings_that_fit_nothing_are_refused_before_weights_are_loaded(
    tiny_base: Path, tmp_path: Path, file: str, change: dict[str, Any], said: str
) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **change}))
    with pytest.raises(CidmError, match=said) as caught:
        outline(folder)
    assert caught.value.code == ExitCode.INVALID


def test_no_more_modules_are_built_than_a_model_can_have() -> None:
    def refused(why: str) -> CidmError:
        return CidmError(why)

    with pytest.raises(CidmError, match="more than 10000 layers"), building(refused):
        torch.nn.Sequential(*(torch.nn.Identity() for _ in range(10_001)))
    torch.nn.Sequential(*(torch.nn.Identity() for _ in range(10_001)))
