"""What bases with a UNet have in common: how finely one sees a picture, and what cannot be used. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CidmError, ExitCode
from ..files.json_files import read_json
from .family import Sizes

STEM = "diffusion_pytorch_model"
"""What diffusers calls a part's weights."""
TARGETS = ("attn2", "attn1+attn2")
"""Attention layers that may get low-rank weights: those to text, or within the picture, too."""
_MAX_BYTES = 1 << 20
_MID = "UNetMidBlock2DCrossAttn"


def default_size(folder: Path) -> tuple[int, int]:
    """Width and height of the picture that a base (a diffusers folder) draws unless told otherwise.

    Raises CidmError INVALID, naming the file, for a configuration that does not say it.
    """
    side = number(folder, "unet", "sample_size") * factor(folder)
    return side, side


def side_multiple(folder: Path) -> int:
    """What a picture's sides must be multiples of, in pixels, for the base's UNet to halve its latents evenly.

    Raises CidmError as `default_size` does.
    """
    return factor(folder) * 2 ** (_levels(folder, "unet") - 1)


def coarsest_cells(folder: Path, size: tuple[int, int]) -> tuple[int, int]:
    """Cells, across and down, of the coarsest map at which a base attends to text in a picture of `size` pixels.

    Raises CidmError as `default_size` does.
    """
    unet = _config(folder, "unet")
    blocks = unet.get("down_block_types")
    if not isinstance(blocks, list) or not blocks:
        raise _unknown(folder, "unet", "down_block_types")
    # Every block but the last halves the picture at its end, and the middle block works where the last one does.
    attending = [level for level, kind in enumerate(blocks) if "CrossAttn" in str(kind)]
    if unet.get("mid_block_type", _MID) == _MID:
        attending.append(len(blocks) - 1)
    halvings, cell = max(attending, default=0), factor(folder)
    across, down = (_halved(side // cell, halvings) for side in size)
    return across, down


def _halved(cells: int, times: int) -> int:
    """A UNet's convolutions round up where a side is odd."""
    return max(-(-cells // 2**times), 1)


def factor(folder: Path) -> int:
    """Pixels a latent cell spans."""
    return int(2 ** (_levels(folder, "vae") - 1))


def _levels(folder: Path, part: str) -> int:
    """How many sizes a UNet or VAE works at."""
    channels = _config(folder, part).get("block_out_channels")
    if not isinstance(channels, list) or not 1 <= len(channels) <= 8:
        raise _unknown(folder, part, "block_out_channels")
    return len(channels)


def number(folder: Path, part: str, key: str) -> int:
    """A whole number in a part's settings. Raises CidmError as `default_size` does."""
    value = _config(folder, part).get(key)
    if type(value) is not int or not 1 <= value <= 4096:
        raise _unknown(folder, part, key)
    return value


def _config(folder: Path, part: str) -> Mapping[str, Any]:
    file = folder / part / "config.json"
    config = read_json(file, _MAX_BYTES)
    if not isinstance(config, dict):
        raise CidmError(f"{file}: not a JSON object", "take the base's folder anew", ExitCode.INVALID)
    return config


def _unknown(folder: Path, part: str, key: str) -> CidmError:
    file = folder / part / "config.json"
    return CidmError(f"{file}: {key} is missing or odd", "take the base's folder anew", ExitCode.INVALID)


def refused(config: Mapping[str, Any]) -> str:
    """What a UNet of these settings is that cannot be used, or empty."""
    if (channels := config.get("in_channels", 4)) == 9:
        return "is an inpainting model"
    if channels == 8 and config.get("out_channels") != 8:
        return "is an image editing model (InstructPix2Pix)"
    return ""


SIZES = Sizes(default_size, side_multiple, coarsest_cells)
