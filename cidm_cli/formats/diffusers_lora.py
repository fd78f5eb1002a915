"""LoRA files as diffusers writes and reads them: ``pytorch_lora_weights.safetensors``.

``unet.<layer>.lora_A.weight`` [r, in] and ``unet.<layer>.lora_B.weight`` [out, r]. A file without
``lora_adapter_metadata`` has alpha = rank for every reader, so scales are folded in when writing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from .lora import Factors, LoraFile, listed, modules, one_number, refusal
from .merged import facts_as_metadata, pack_merged

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers looks for in a folder."""
_SIDES = {
    "lora_A.weight": "down", "lora.down.weight": "down", "lora_B.weight": "up", "lora.up.weight": "up",
    "alpha": "alpha",
}  # fmt: skip
_NO_LORA = ("use_dora", "lora_bias", "layer_replication", "fan_in_fan_out", "megatron_config", "corda_config")
"""Settings of PEFT under which a file's tensors are not plain LoRA."""


def pack_diffusers(
    factors: Factors, scale: float, convolutions: Collection[str], facts: Mapping[str, Any]
) -> bytes:
    """The file; equal weights and facts give equal bytes.

    Args:
        scale: factor on every product.
        convolutions: the sites that are 1x1 convolutions.
        facts: what the file tells of itself under ``cidm``.
    """
    scaled = {site: (scale * up, down) for site, (up, down) in factors.items()}
    return pack_merged(scaled, facts_as_metadata(facts), convolutions)


def read_diffusers(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    *,
    shapes: Mapping[str, tuple[int, int]],
    source: str,
) -> LoraFile:
    """The low-rank weights of a file; each module keeps its own rank and alpha.

    Raises:
        CidmError: INVALID, naming what is in the way.
    """
    told = json_object(metadata.get("lora_adapter_metadata", "{}"), source, "its lora_adapter_metadata")
    config = {key.removeprefix("unet."): value for key, value in told.items() if key.startswith("unet.")}
    return read_adapter("diffusers", "unet.", tensors, metadata, config, shapes=shapes, source=source)


def json_object(text: str | bytes, source: str, what: str) -> dict[str, Any]:
    """A JSON object from a file that is not trusted.

    Raises:
        CidmError: INVALID for anything else.
    """
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise refusal(source, f"{what} is not readable JSON ({error})") from error
    return value


def read_adapter(
    kind: str,
    prefix: str,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    config: Mapping[str, Any],
    *,
    shapes: Mapping[str, tuple[int, int]],
    source: str,
) -> LoraFile:
    """Low-rank weights under ``<prefix><layer>.lora_A.weight`` and ``.lora_B.weight``, with PEFT's settings.

    Raises:
        CidmError: INVALID, naming what is in the way.
    """
    if other := [name for name in _NO_LORA if config.get(name)]:
        raise refusal(source, f"was trained with {other[0]}, and only plain LoRA is read")
    if config.get("bias", "none") != "none" or config.get("modules_to_save"):
        raise refusal(source, "holds more than low-rank weights (bias or modules_to_save)")
    sides: dict[str, dict[str, torch.Tensor]] = {"up": {}, "down": {}, "alpha": {}}
    left_out, unknown = set(), set()
    for key, tensor in tensors.items():
        if key.startswith(("text_encoder.", "text_encoder_2.")):
            left_out.add(re.split(r"\.lora|\.alpha$", key)[0])
            continue
        if "lora_magnitude_vector" in key or "dora_scale" in key:
            raise refusal(source, f"{key[:120]} belongs to a DoRA network, and only LoRA is read")
        part = next((part for part in _SIDES if key.endswith("." + part)), "")
        site = key.removeprefix(prefix).removesuffix(f".{part}")
        if part and site in shapes and key.startswith(prefix) and site not in sides[_SIDES[part]]:
            sides[_SIDES[part]][site] = tensor
        elif tensor.ndim == 4 and max(tensor.shape[2:]) > 1:
            raise refusal(source, f"{key[:120]} belongs to a convolution (LoCon), and only LoRA is read")
        else:
            unknown.add(key)
    if unknown:
        raise refusal(source, f"{listed(unknown)}: no layer of this base that a LoRA is read for")
    given = {site: one_number(alpha, site, source) for site, alpha in sides["alpha"].items()}
    ranks = {site: down.shape[0] for site, down in sides["down"].items() if down.ndim}
    alphas = {**_alphas(config, ranks, source), **given}
    found = modules(sides["up"], sides["down"], alphas, shapes=shapes, source=source)
    return LoraFile(kind, found, tuple(sorted(left_out)), metadata)


def _alphas(config: Mapping[str, Any], ranks: Mapping[str, int], source: str) -> dict[str, float]:
    """The alpha of each module as PEFT's settings give it; none where they say nothing."""
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
