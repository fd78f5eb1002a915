"""LoRA files as other programs write them, made from random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from diffusers import UNet2DConditionModel

from cidm_cli.formats.kohya import About

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]

ABOUT = About(
    title="dog", kind="sd15", resolution=512, prediction="epsilon", date="2026-01-02T03:04:05+00:00",
    trigger="dog", usage="write dog", tags=("dog",), images=5, merged_from=(), facts={"name": "dog"},
)  # fmt: skip


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
    return _sdxl((320, 640, 1280), (1, 2, 10), (5, 10, 20), 2048, 2816)


def small_sdxl_unet() -> UNet2DConditionModel:
    """The same structure, narrow and shallow."""
    return _sdxl((16, 16, 16), (1, 1, 2), 2, 24, 6 * 8 + 12, time=8)


def _sdxl(
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    heads: int | tuple[int, ...],
    text: int,
    added: int,
    time: int = 256,
) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=128, block_out_channels=widths, layers_per_block=2, cross_attention_dim=text,
        norm_num_groups=min(32, widths[0]), attention_head_dim=heads, transformer_layers_per_block=list(depths),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=time,
        projection_class_embeddings_input_dim=added,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
