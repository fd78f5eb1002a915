"""LoRA files as kohya's trainer writes them and ComfyUI, AUTOMATIC1111, Forge and InvokeAI read them.

``<module>.lora_down.weight`` [r, in], ``<module>.lora_up.weight`` [out, r] and ``<module>.alpha``. A module's name is
``lora_unet_`` and the layer's own name with underscores: that of diffusers for Stable Diffusion 1.x, that of the
original code (sgm) for SDXL. Metadata are strings: ``ss_*`` as the trainer's, and ModelSpec 1.0.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .lora import (
    Factors,
    LoraFile,
    as_stored,
    check_plain,
    is_elsewhere,
    listed,
    modules,
    one_number,
    one_rank,
    refusal,
)
from .tensors import content_hash, write_tensors

PREFIX = "lora_unet_"
TEXT_ENCODERS = ("lora_te_", "lora_te1_", "lora_te2_")

_FAMILIES = {
    "sd15": ("sd_v1", "stable-diffusion-v1/lora"),
    "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    "mini": ("cidm_mini", "cidm-mini/lora"),
}
"""What ss_base_model_version and modelspec.architecture call a base."""


@dataclass(frozen=True)
class About:
    """What a file tells of itself."""

    title: str
    kind: str
    """Family of the base: "mini", "sd15" or "sdxl"."""
    resolution: int
    """Side of the pictures the base draws, in pixels."""
    prediction: str
    """"epsilon" or "v_prediction"."""
    date: str
    """ISO 8601."""
    trigger: str
    """What to write in a prompt."""
    usage: str
    """One line on how to use it."""
    tags: tuple[str, ...]
    images: int
    """Pictures it was trained on."""
    merged_from: tuple[str, ...]
    """Names of the concepts merged into it, if any."""
    facts: Mapping[str, Any]
    """Under ``cidm``, as JSON."""


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


def kohya_names(sites: Iterable[str], *, sgm: bool, layers_per_block: int) -> dict[str, str]:
    """The module name of each site."""
    return {
        site: PREFIX + (sgm_name(site, layers_per_block) if sgm else site).replace(".", "_") for site in sites
    }


def pack_kohya(
    factors: Factors, scale: float, convolutions: Collection[str], layers_per_block: int, about: About
) -> bytes:
    """The file; equal weights and facts give equal bytes. All modules have one rank and one alpha.

    Args:
        scale: factor on every product.
        convolutions: the sites that are 1x1 convolutions.
        layers_per_block: of the base's UNet.
    """
    padded, rank = one_rank(factors)
    names = kohya_names(padded, sgm=about.kind == "sdxl", layers_per_block=layers_per_block)
    alpha = scale * rank
    tensors = {}
    for site, (up, down) in padded.items():
        tensors[f"{names[site]}.lora_down.weight"] = as_stored(down, site, convolutions)
        tensors[f"{names[site]}.lora_up.weight"] = as_stored(up, site, convolutions)
        tensors[f"{names[site]}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    digest = content_hash(write_tensors(tensors, {}))
    return write_tensors(tensors, metadata(about, rank=rank, alpha=alpha, digest=digest))


def metadata(about: About, *, rank: int, alpha: float, digest: str) -> dict[str, str]:
    """What a file with these facts says of itself: ss_* and ModelSpec 1.0.1."""
    version, architecture = _FAMILIES[about.kind]
    code = "https://github.com/Stability-AI/generative-models" if about.kind == "sdxl" else "diffusers"
    told = {
        "ss_base_model_version": version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:.9g}",
        "ss_output_name": about.title,
        "ss_num_train_images": str(about.images),
        "ss_resolution": f"({about.resolution}, {about.resolution})",
        "ss_tag_frequency": _json({about.title: dict.fromkeys(about.tags, about.images)}),
        "ss_v2": "False",
        "sshs_model_hash": digest,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": code,
        "modelspec.title": about.title,
        "modelspec.resolution": f"{about.resolution}x{about.resolution}",
        "modelspec.prediction_type": "v" if about.prediction == "v_prediction" else "epsilon",
        "modelspec.date": about.date,
        "modelspec.hash_sha256": f"0x{digest}",
        "modelspec.trigger_phrase": about.trigger,
        "modelspec.usage_hint": about.usage,
        "modelspec.tags": ", ".join(about.tags),
        "modelspec.merged_from": ", ".join(about.merged_from),
        "cidm": _json(about.facts),
    }
    return {"format": "pt", **{key: value for key, value in told.items() if value}}


def read_kohya(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    *,
    shapes: Mapping[str, tuple[int, int]],
    layers_per_block: int,
    kind: str,
    source: str,
) -> LoraFile:
    """The low-rank weights of a file, in either naming; each module keeps its own rank and alpha.

    Args:
        shapes: (out, in) of every layer of the base that a LoRA may sit on.
        layers_per_block: of the base's UNet.
        kind: family of the base.
        source: the file, for errors.

    Raises:
        CidmError: INVALID, naming what is in the way: another family, another kind of network, an unknown key.
    """
    told = metadata.get("ss_base_model_version", "")
    if _family_of(told) not in ("", "sdxl" if kind == "sdxl" else "sd15"):
        raise refusal(
            source, f"was made for {told[:40]}, and the registry's base is of another family",
            "a LoRA fits bases of the family it was trained on only",
        )  # fmt: skip
    sites = {
        name: site
        for sgm in (False, True)
        for site, name in kohya_names(shapes, sgm=sgm, layers_per_block=layers_per_block).items()
    }
    sides: dict[str, dict[str, torch.Tensor]] = {"lora_up.weight": {}, "lora_down.weight": {}, "alpha": {}}
    left_out, unknown = set(), set()
    for key, tensor in tensors.items():
        module, _, part = key.partition(".")
        if module.startswith(TEXT_ENCODERS) or module == "bundle_emb":
            left_out.add(module if module != "bundle_emb" else ".".join(key.split(".")[:2]))
            continue
        check_plain(key, tensor, source)
        if is_elsewhere(module):
            left_out.add(module)
        elif module not in sites or part not in sides:
            unknown.add(key)
        elif sites[module] in sides[part]:
            raise refusal(source, f"{sites[module]} is there twice, in two namings")
        else:
            sides[part][sites[module]] = tensor
    if unknown:
        raise refusal(source, f"{listed(unknown)}: no layer of this base that a LoRA is read for")
    alphas = {site: one_number(alpha, site, source) for site, alpha in sides["alpha"].items()}
    found = modules(
        sides["lora_up.weight"], sides["lora_down.weight"], alphas, shapes=shapes, source=source
    )  # fmt: skip
    return LoraFile("kohya", found, tuple(sorted(left_out)), metadata)


def _parts(site: str) -> tuple[str, int, int, str]:
    """("down_blocks", block, layer, the rest) of a site inside an attention."""
    match = re.fullmatch(r"(?:(down_blocks|up_blocks)\.(\d+)|(mid_block))\.attentions\.(\d+)\.(.+)", site)
    if match is None:
        raise ValueError(f"{site} is in no attention of a UNet")
    stage, block, middle, layer, rest = match.groups()
    return stage or middle, int(block or 0), int(layer), rest


def _family_of(version: str) -> str:
    """The family of an ss_base_model_version; empty where it is none that is known."""
    starts = {
        "sdxl": "sdxl",
        "sd_v1": "sd15",
        "cidm_mini": "sd15",
        "sd_v2": "sd2",
        "sd3": "sd3",
        "flux": "flux",
    }
    return next((family for start, family in starts.items() if version.startswith(start)), "")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
