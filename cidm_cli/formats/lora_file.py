"""A LoRA file of any naming: which naming it is, which model it was made for, and its weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from ..bases import families
from .diffusers_lora import COMFYUI, read_adapter, read_diffusers
from .kohya import PREFIX, TEXT_ENCODERS, read_kohya
from .lora import Fit, LoraFile, listed, network_of, parted, refusal
from .peft_folder import CONFIG_FILE, read_peft

_MODELS = {
    "Flux": r"(double_blocks|single_blocks|single_transformer_blocks)[._]",
    "Stable Diffusion 3": r"joint_blocks[._]",
    "a model that is a transformer": r"^(transformer\.|lora_transformer_|diffusion_model\.(blocks|layers)\.)",
}
"""Other models, by the names of their layers."""


def naming_of(names: Collection[str], source: str) -> str:
    """The kind of a LoRA file that is no PEFT folder's, by the names of its tensors.

    Raises:
        CidmError: INVALID, saying what it is where that can be told.
    """
    if any(name.startswith("base_model.model.") for name in names):
        raise refusal(source, "is a part of a PEFT adapter", f"give its folder, with {CONFIG_FILE} in it")
    prefixes = tuple(one.files.prefix for one in families())
    if any(name.startswith((PREFIX, *TEXT_ENCODERS)) for name in names):
        return "kohya"
    if any(
        name.startswith((*prefixes, "text_encoder", "down_blocks.", "mid_block.", "up_blocks."))
        for name in names
    ):
        return "diffusers"
    if any(name.startswith(COMFYUI) for name in names):
        return "comfyui"
    if {"emb_params"} == set(names) or (names and {"clip_l", "clip_g"} >= set(names)):
        raise refusal(source, "is an embedding (textual inversion), and holds no LoRA")
    if any(name.startswith(("model.diffusion_model.", "cond_stage_model.")) for name in names):
        raise refusal(source, "is a whole model, not a LoRA", "cidm init --base FILE makes a registry on it")
    if any(name.startswith("tokens.") for name in names):
        raise refusal(
            source, "is a concept's file out of a registry, without its record",
            "export it as a bundle: cidm export NAME --to bundle -o FILE.safetensors",
        )  # fmt: skip
    if models := _models(names):
        raise refusal(source, f"is a LoRA of {models[0]}, under names that are not read")
    if network := next((network for name in names if (network := network_of(name))), None):
        raise refusal(source, f"is a {network} network, and only LoRA is read")
    raise refusal(source, f"holds no low-rank weights, but {listed(names) if names else 'nothing'}")


def read_lora(
    kind: str,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    config: Mapping[str, Any],
    fit: Fit,
    source: str,
) -> LoraFile:
    """The low-rank weights of a file; each module keeps its own rank and alpha.

    Args:
        kind: its naming: "peft", or as ``naming_of`` tells it.
        config: PEFT's settings, for "peft".
        source: the file, for errors.

    Raises:
        CidmError: INVALID, naming what is in the way: another model, another network, an unknown key.
    """
    if unfit := fit.names.unfit(tensors) or _other_model(tensors, fit):
        raise refusal(source, unfit, "a LoRA fits bases of the family it was trained on only")
    shapes, tensors = fit.shapes, parted(tensors, fit.names.fused, source)
    if kind == "kohya":
        return read_kohya(tensors, metadata, fit, source=source)
    if kind == "diffusers":
        return read_diffusers(tensors, metadata, shapes=shapes, prefix=fit.prefix, source=source)
    if kind == "peft":
        return read_peft(tensors, metadata, config, shapes=shapes, source=source)
    names = {COMFYUI + name: site for name, site in fit.names.dotted.items()}
    return read_adapter(kind, names, tensors, metadata, {}, shapes=shapes, source=source)


def _other_model(names: Collection[str], fit: Fit) -> str:
    """Of which other model a LoRA is, told by names of layers that the base has nothing like; or empty."""
    dotted = [COMFYUI + name for name in fit.names.dotted] + [fit.prefix + site for site in fit.shapes]
    own = (*fit.names.kohya.values(), *dotted)
    model = next((model for model in _models(names) if model not in _models(own)), "")
    return model and f"is a LoRA of {model}, which the registry's base is not"


def _models(names: Collection[str]) -> list[str]:
    return [model for model, pattern in _MODELS.items() if any(re.search(pattern, name) for name in names)]
