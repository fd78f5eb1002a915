"""Reading a base's parts: what is not whole is refused, never filled with random numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models.loading import load_parts

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
