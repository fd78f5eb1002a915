"""PEFT's settings of an adapter: those under which A·B with its scale is all that it adds, and its alphas."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from .lora import refusal

_INERT = (
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules",
    "inference_mode", "init_lora_weights", "layers_pattern", "loftq_config", "lora_alpha", "lora_dropout",
    "lora_ga_config", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
)  # fmt: skip
"""What may be set to anything: it says nothing of the weights, is heeded here, or means nothing by itself."""
_STARTS = ("gaussian", "eva", "orthogonal")
"""Kinds of ``init_lora_weights``, beside yes and no, that leave the base's own weights as they are."""


def check_config(config: Mapping[str, Any], sites: Collection[str], source: str) -> None:
    """Refuses settings under which an adapter does something else than to add its products, all of them.

    Args:
        sites: the layers that the file holds weights of.

    Raises:
        CidmError: INVALID, naming the setting.
    """
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _STARTS:
        raise refusal(
            source,
            f"was trained with init_lora_weights {start[:40]!r}, which changes the base's own weights, too",
            "save it as plain LoRA with PEFT: save_pretrained(…, path_initial_model_for_weight_conversion=…)",
        )
    plain = {"bias": "none"}
    for name, value in config.items():
        unset = value is None or value is False or value in ("", [], {}, plain.get(name))
        if name not in _INERT and not unset:
            raise refusal(
                source, f"was trained with {name[:60]} {str(value)[:60]!r}, and only plain LoRA is read"
            )
    for name, wanted in (("target_modules", True), ("exclude_modules", False)):
        if isinstance(listed := config.get(name), list):
            ends = tuple(f".{end}" for end in listed)
            left = [site for site in sites if f".{site}".endswith(ends) is not wanted and listed]
            if left:
                raise refusal(source, f"holds weights of {left[0]}, which its {name} leave out")


def alphas_of(config: Mapping[str, Any], ranks: Mapping[str, int], source: str) -> dict[str, float]:
    """The alpha of each module as PEFT's settings give it; none where they say nothing.

    Raises:
        CidmError: INVALID for alphas that are no numbers, and for patterns that are no plain names.
    """
    if "lora_alpha" not in config:
        return {}
    patterns = config.get("alpha_pattern") or {}
    numbers = [config["lora_alpha"], *(patterns.values() if isinstance(patterns, dict) else [None])]
    if not all(type(number) in (int, float) and abs(number) < 1e6 for number in numbers):
        raise refusal(source, "its lora_alpha or alpha_pattern is no number")
    if wild := [name for name in patterns if not re.fullmatch(r"[\w.^]{1,500}", name)]:
        # Names are regular expressions to PEFT; one from a stranger's file may take for ever to match.
        raise refusal(source, f"its alpha_pattern {wild[0][:80]!r} is no plain layer name")
    out = {}
    for site, rank in ranks.items():
        named = (p for p in patterns if site == p.removeprefix("^") or site.endswith(f".{p}"))
        name = next(named, None)
        alpha = float(config["lora_alpha"] if name is None else patterns[name])
        # rsLoRA divides by the root of the rank.
        out[site] = alpha * rank**0.5 if config.get("use_rslora") else alpha
    return out
