"""What a base's configuration files tell of it without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cidm_cli.bases.unet import coarsest_cells, default_size
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models.identity import mini_folder

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


def folder(path: Path, blocks: list[str], sample: int = 64, **unet: object) -> Path:
    config = {"sample_size": sample, "down_block_types": blocks, **unet}
    for part, content in (("unet", config), ("vae", {"block_out_channels": [1, 1, 1, 1]})):
        (path / part).mkdir(parents=True)
        (path / part / "config.json").write_text(json.dumps(content))
    return path


def test_the_embedded_base_draws_64_pixels_and_sees_4_by_4_cells_at_its_coarsest() -> None:
    assert default_size(mini_folder()) == (64, 64)
    assert coarsest_cells(mini_folder(), (64, 64)) == (4, 4)
    assert coarsest_cells(mini_folder(), (128, 64)) == (8, 4)


def test_published_bases_are_seen_as_they_are(tmp_path: Path) -> None:
    first = folder(tmp_path / "sd15", [CROSS, CROSS, CROSS, PLAIN])
    assert default_size(first) == (512, 512)
    assert coarsest_cells(first, (512, 768)) == (8, 12)
    second = folder(tmp_path / "sdxl", [PLAIN, CROSS, CROSS], 128)
    assert default_size(second) == (1024, 1024)
    assert coarsest_cells(second, (1024, 1024)) == (32, 32)


def test_a_middle_block_without_attention_does_not_count(tmp_path: Path) -> None:
    made = folder(tmp_path / "a", [CROSS, CROSS, PLAIN], mid_block_type="UNetMidBlock2D")
    assert coarsest_cells(made, (512, 512)) == (32, 32)
    assert coarsest_cells(folder(tmp_path / "b", [CROSS, PLAIN, PLAIN], mid_block_type=None), (512, 512)) == (
        64,
        64,
    )


def test_sides_that_are_odd_round_up_as_the_network_does(tmp_path: Path) -> None:
    # 72 pixels are 9 latent cells, halved to 5, 3 and 2.
    assert coarsest_cells(folder(tmp_path / "a", [CROSS, CROSS, CROSS, PLAIN]), (72, 8)) == (2, 1)


def test_the_map_is_as_coarse_as_the_network_itself_makes_it(tiny_base: Path) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet", use_safetensors=True)
    size = default_size(tiny_base)
    factor = size[0] // unet.config.sample_size
    counts: list[int] = []
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.register_forward_pre_hook(
                lambda _, given, kwargs: counts.append(given[0].shape[1]), with_kwargs=True
            )
    wide = (size[0] + 3 * factor, size[1])
    latents = torch.zeros(1, unet.config.in_channels, wide[1] // factor, wide[0] // factor)
    with torch.no_grad():
        unet(latents, 0, torch.zeros(1, 3, unet.config.cross_attention_dim))
    across, down = coarsest_cells(tiny_base, wide)
    assert across * down == min(counts)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"sample_size": "64"}', "[" * 10_000, '{"sample_size": 1e9}']
)
def test_a_configuration_that_says_nothing_is_refused_by_name(content: str, tmp_path: Path) -> None:
    made = folder(tmp_path / "a", [CROSS])
    (made / "unet" / "config.json").write_text(content)
    for asked in (lambda: default_size(made), lambda: coarsest_cells(made, (64, 64))):
        with pytest.raises(CidmError, match=r"config\.json") as caught:
            asked()
        assert caught.value.code == ExitCode.INVALID
