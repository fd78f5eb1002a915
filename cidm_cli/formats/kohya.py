"""LoRA files as kohya's trainer writes them and ComfyUI, AUTOMATIC1111, Forge and InvokeAI read them.

``<module>.lora_down.weight`` [r, in], ``<module>.lora_up.weight`` [out, r] and ``<module>.alpha``. A module's name is
``lora_unet_`` and the layer's name with underscores, as the base's family has it (``lora.Names``). Metadata are
strings: ``ss_*`` as the trainer's, and ModelSpec 1.0.1.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..bases import InFiles, families
from .lora import (
    Factors,
    Fit,
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
_OTHERS = ("sd_v2", "sd3", "flux")
"""How ss_base_model_version begins for other models that are known of."""
_PREDICTIONS = {"v_prediction": "v", "flow_prediction": "rectified_flow"}
"""What ModelSpec calls an objective."""


@dataclass(frozen=True)
class About:
    """What a file tells of itself."""

    title: str
    family: InFiles
    """What it says of the base."""
    resolution: int
    """Side of the pictures the base draws, in pixels."""
    prediction: str
    """"As diffusers calls it: "epsilon", "v_prediction" …"""
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


def pack_kohya(factors: Factors, scale: float, convolutions: Collection[str], about: About) -> bytes:
    """The file; equal weights and facts give equal bytes. All modules have one rank and one alpha.

    Args:
        factors: by the names of the modules.
        scale: factor on every product.
        convolutions: the modules that are 1x1 convolutions.
    """
    padded, rank = one_rank(factors)
    alpha = scale * rank
    tensors = {}
    for name, (up, down) in padded.items():
        tensors[f"{name}.lora_down.weight"] = as_stored(down, name, convolutions)
        tensors[f"{name}.lora_up.weight"] = as_stored(up, name, convolutions)
        tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    digest = content_hash(write_tensors(tensors, {}))
    return write_tensors(tensors, metadata(about, rank=rank, alpha=alpha, digest=digest))


def metadata(about: About, *, rank: int, alpha: float, digest: str) -> dict[str, str]:
    """What a file with these facts says of itself: ss_* and ModelSpec 1.0.1."""
    told = {
        "ss_base_model_version": about.family.version,
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
        "modelspec.architecture": f"{about.family.architecture}/lora",
        "modelspec.implementation": about.family.implementation,
        "modelspec.title": about.title,
        "modelspec.resolution": f"{about.resolution}x{about.resolution}",
        "modelspec.prediction_type": _PREDICTIONS.get(about.prediction, about.prediction),
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
    fit: Fit,
    *,
    source: str,
) -> LoraFile:
    """The low-rank weights of a file, in either naming; each module keeps its own rank and alpha.

    Args:
        source: the file, for errors.

    Raises:
        CidmError: INVALID, naming what is in the way: another family, another kind of network, an unknown key.
    """
    told = metadata.get("ss_base_model_version", "")
    known = (*(start for one in families() for start in one.files.accepted), *_OTHERS)
    if told.startswith(known) and not told.startswith(fit.accepted):
        raise refusal(
            source, f"was made for {told[:40]}, and the registry's base is of another family",
            "a LoRA fits bases of the family it was trained on only",
        )  # fmt: skip
    sites = fit.names.kohya_sites
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
        sides["lora_up.weight"], sides["lora_down.weight"], alphas, shapes=fit.shapes, source=source
    )  # fmt: skip
    return LoraFile("kohya", found, tuple(sorted(left_out)), metadata)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
