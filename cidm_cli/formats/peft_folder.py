"""Adapters as PEFT saves them: a folder of ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from ..files.reading import read_bounded
from .diffusers_lora import json_object, read_adapter
from .file_names import PEFT_CONFIG, PEFT_WEIGHTS
from .lora import Factors, LoraFile, as_stored, one_rank, refusal
from .tensors import TensorFile, facts_as_metadata, open_tensors, write_tensors

CONFIG_FILE, WEIGHTS_FILE = PEFT_CONFIG, PEFT_WEIGHTS
_LARGEST_CONFIG = 1 << 20


def pack_peft(
    factors: Factors, scale: float, convolutions: Collection[str], facts: Mapping[str, Any]
) -> dict[str, bytes]:
    """The folder's files by name; ``PeftModel.from_pretrained(denoiser, folder)`` loads them.

    Args:
        scale: factor on every product.
        convolutions: the sites that are 1x1 convolutions.
        facts: what the weights' file tells of itself under ``cidm``.
    """
    padded, rank = one_rank(factors)
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True,
        "r": rank, "lora_alpha": scale * rank, "target_modules": sorted(padded), "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "modules_to_save": None,
        "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "use_dora": False,
    }  # fmt: skip
    tensors = {}
    for site, (up, down) in padded.items():
        tensors[f"base_model.model.{site}.lora_A.weight"] = as_stored(down, site, convolutions)
        tensors[f"base_model.model.{site}.lora_B.weight"] = as_stored(up, site, convolutions)
    return {
        CONFIG_FILE: (json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n").encode(),
        WEIGHTS_FILE: write_tensors(tensors, facts_as_metadata(facts)),
    }


def open_peft(folder: Path) -> tuple[TensorFile, dict[str, Any]]:
    """The weights' file, by its header, and the settings in a folder.

    Raises:
        CidmError: NOT_FOUND without its files, INVALID for pickled weights and settings that cannot be read.
    """
    if not (folder / WEIGHTS_FILE).exists() and any(folder.glob("adapter_model.*")):
        raise refusal(str(folder), f"holds no {WEIGHTS_FILE}; pickled weights are never read")
    settings = read_bounded(folder / CONFIG_FILE, _LARGEST_CONFIG)
    config = json_object(settings, str(folder / CONFIG_FILE), "the file")
    return open_tensors(folder / WEIGHTS_FILE), config


def read_peft(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    config: Mapping[str, Any],
    *,
    shapes: Mapping[str, tuple[int, int]],
    source: str,
) -> LoraFile:
    """The low-rank weights of an adapter; each module keeps its own rank and alpha.

    Args:
        config: its adapter_config.json.

    Raises:
        CidmError: INVALID, naming what is in the way.
    """
    if config.get("peft_type") != "LORA":
        raise refusal(source, f"is a PEFT adapter of the kind {str(config.get('peft_type'))[:40]}, not LORA")
    names = {f"base_model.model.{site}": site for site in shapes}
    return read_adapter("peft", names, tensors, metadata, config, shapes=shapes, source=source)
