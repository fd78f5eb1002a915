"""LoRA files as other programs write them, made from random numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

import cidm_cli
from cidm_cli.bases import family
from cidm_cli.formats.kohya import About
from cidm_cli.formats.lora import Fit
from cidm_cli.models.sd_files import named

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]

ABOUT = About(
    title="dog", family=family("sd15").files, resolution=512, prediction="epsilon", date="2026-01-02T03:04:05+00:00",
    trigger="dog", usage="write dog", tags=("dog",), images=5, merged_from=(), facts={"name": "dog"},
)  # fmt: skip


def fit_of(shapes: Mapping[str, tuple[int, int]], kind: str, layers_per_block: int, *, width: int) -> Fit:
    """What a LoRA file has to fit for a UNet of these layers that attends to text of a width."""
    names = named(shapes, layers_per_block, sgm=kind == "sdxl", width=width)
    return Fit(shapes, names, accepted=family(kind).files.accepted)


def pairs(
    shapes: Mapping[str, tuple[int, int]], sites: Iterable[str] | None = None, *, rank: int = 2, seed: int = 0
) -> Pairs:
    """(up [out, r], down [r, in]) of each site, large enough to change a picture."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for site in sites or shapes:
        height, width = shapes[site]
        down = torch.randn(rank, width, generator=generator) / width**0.5
        out[site] = (0.5 * torch.randn(height, rank, generator=generator), down)
    return out


def products(factors: Pairs, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """ΔW of each site."""
    return {site: scale * (up @ down) for site, (up, down) in factors.items()}


def worst(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Largest entry by which two sets of weights differ; fails if they are of different layers."""
    assert one.keys() == other.keys()
    return max(float((one[site] - other[site]).abs().max()) for site in one)


def kohya_tensors(
    factors: Pairs, alpha: float | None = None, prefix: str = "lora_unet_"
) -> dict[str, torch.Tensor]:
    """As kohya's trainer names them on Stable Diffusion 1.x, 1x1 convolutions included."""
    out = {}
    for site, (up, down) in factors.items():
        name = prefix + site.replace(".", "_")
        folded = site.endswith(("proj_in", "proj_out"))
        out[f"{name}.lora_up.weight"] = up[:, :, None, None] if folded else up.clone()
        out[f"{name}.lora_down.weight"] = down[:, :, None, None] if folded else down.clone()
        if alpha is not None:
            out[f"{name}.alpha"] = torch.tensor(alpha)
    return out


def sdxl_unet() -> UNet2DConditionModel:
    """SDXL's own UNet, full size; build it under ``torch.device("meta")``."""
    config = Path(cidm_cli.__file__).parent / "bases" / "sdxl" / "unet" / "config.json"
    return UNet2DConditionModel.from_config(json.loads(config.read_text()))
