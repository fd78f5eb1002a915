"""What LoRA files of other programs call the layers of a UNet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch

from ..formats.kohya import PREFIX
from ..formats.lora import Names
from .attention import site_layers

_WIDTHS = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    1280: "the refiner of SDXL",
    2048: "SDXL",
}
"""Models by the width of the text that their UNet attends to."""
_TO_TEXT = re.compile(r"attn2[._](processor\.)?to_k(_lora)?\.(lora_A|lora_down|lora\.down|down)\.weight$")


def names(denoiser: Any) -> Names:
    """kohya's trainer names the layers of Stable Diffusion 1.x as diffusers does, and SDXL's as the original code."""
    config = denoiser.config
    return named(
        site_layers(denoiser), config.layers_per_block, sgm=config.addition_embed_type is not None,
        width=config.cross_attention_dim,
    )  # fmt: skip


def named(sites: Iterable[str], layers_per_block: int, *, sgm: bool, width: int) -> Names:
    """The names of the layers of a UNet that attends to text of a width; ``sgm`` for the original code's in kohya's."""
    plain = {site: site for site in sites}
    original = {site: sgm_name(site, layers_per_block) for site in plain}
    return Names(
        kohya=_modules(original if sgm else plain),
        kohya_sites={module: site for one in (plain, original) for site, module in _modules(one).items()},
        dotted={name: site for one in (original, plain) for site, name in one.items()},
        native=original,
        unfit=partial(_unfit, width),
    )


def _modules(names: Mapping[str, str]) -> dict[str, str]:
    return {site: PREFIX + name.replace(".", "_") for site, name in names.items()}


def sgm_name(site: str, layers_per_block: int) -> str:
    """A layer's name in the original code's UNet, from its name in diffusers'.

    A level has ``layers_per_block`` pairs of residual block and attention going down and one more going up; the code
    counts them through, level after level, the convolution at the start and each change of size as one more.
    """
    stage, block, layer, rest = _parts(site)
    if stage == "mid_block":
        return f"middle_block.1.{rest}"
    place = block * (layers_per_block + 1) + layer
    return (
        f"input_blocks.{1 + place}.1.{rest}" if stage == "down_blocks" else f"output_blocks.{place}.1.{rest}"
    )


def _parts(site: str) -> tuple[str, int, int, str]:
    """("down_blocks", block, layer, the rest) of a site inside an attention."""
    match = re.fullmatch(r"(?:(down_blocks|up_blocks)\.(\d+)|(mid_block))\.attentions\.(\d+)\.(.+)", site)
    if match is None:
        raise ValueError(f"{site} is in no attention of a UNet")
    stage, block, middle, layer, rest = match.groups()
    return stage or middle, int(block or 0), int(layer), rest


def _unfit(own: int, tensors: Mapping[str, torch.Tensor]) -> str:
    """Of which other Stable Diffusion a LoRA is, told by how wide the text is that it sees, and what the base is."""
    for name, tensor in tensors.items():
        width = tensor.shape[1] if _TO_TEXT.search(name) and tensor.ndim > 1 else own
        if width != own and width in _WIDTHS:
            base = f"is {_WIDTHS[own]}" if own in _WIDTHS else f"attends to text of another width, {own}"
            return f"is a LoRA of {_WIDTHS[width]}, and the registry's base {base}"
    return ""
