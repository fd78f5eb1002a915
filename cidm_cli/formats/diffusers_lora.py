"""LoRA files with dotted layer names: those that diffusers writes and reads, and what PEFT and ComfyUI make of them.

``unet.<layer>.lora_A.weight`` [r, in] and ``unet.<layer>.lora_B.weight`` [out, r], or ``transformer.``, in
``pytorch_lora_weights.safetensors``. A file without ``lora_adapter_metadata`` has alpha = rank for every reader, so
scales are folded in when writing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from .file_names import DIFFUSERS_WEIGHTS
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
from .peft_config import alphas_of, check_config
from .tensors import facts_as_metadata, write_tensors

WEIGHTS_FILE = DIFFUSERS_WEIGHTS
"""What diffusers looks for in a folder."""
COMFYUI = "diffusion_model."
"""What ComfyUI puts before the names of the denoiser's layers."""
_SIDES = {
    "lora_A.weight": "down", "lora.down.weight": "down", "lora_down.weight": "down",
    "lora_B.weight": "up", "lora.up.weight": "up", "lora_up.weight": "up", "alpha": "alpha",
}  # fmt: skip
_PROCESSOR = re.compile(r"\.processor\.to_(q|k|v|out)_lora\.(down\.weight|up\.weight|alpha)$")
"""How diffusers named an attention's layers before 0.22."""


def pack_diffusers(
    factors: Factors, scale: float, convolutions: Collection[str], prefix: str, facts: Mapping[str, Any]
) -> bytes:
    """The file; equal weights and facts give equal bytes.

    Args:
        scale: factor on every product.
        convolutions: the sites that are 1x1 convolutions.
        prefix: what stands before the names of the layers.
        facts: what the file tells of itself under ``cidm``.
    """
    padded, _ = one_rank(factors)
    tensors = {}
    for site, (up, down) in padded.items():
        tensors[f"{prefix}{site}.lora_A.weight"] = as_stored(down, site, convolutions)
        tensors[f"{prefix}{site}.lora_B.weight"] = as_stored(scale * up, site, convolutions)
    return write_tensors(tensors, facts_as_metadata(facts))


def read_diffusers(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    *,
    shapes: Mapping[str, tuple[int, int]],
    prefix: str,
    source: str,
) -> LoraFile:
    """The low-rank weights of a file; each module keeps its own rank and alpha.

    Args:
        prefix: what stands before the names of the layers.

    Raises:
        CidmError: INVALID, naming what is in the way.
    """
    told = json_object(metadata.get("lora_adapter_metadata", "{}"), source, "its lora_adapter_metadata")
    config = {key.removeprefix(prefix): value for key, value in told.items() if key.startswith(prefix)}
    # Very old files hold a UNet alone, and do not say so.
    said = any(name.startswith((prefix, "text_encoder")) for name in tensors)
    names = {(prefix if said else "") + site: site for site in shapes}
    return read_adapter("diffusers", names, tensors, metadata, config, shapes=shapes, source=source)


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
    names: Mapping[str, str],
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    config: Mapping[str, Any],
    *,
    shapes: Mapping[str, tuple[int, int]],
    source: str,
) -> LoraFile:
    """Low-rank weights under ``<layer>.lora_A.weight`` and ``.lora_B.weight``, with PEFT's settings.

    Args:
        names: the site of each name that a layer may have in the file.

    Raises:
        CidmError: INVALID, naming what is in the way.
    """
    sides: dict[str, dict[str, torch.Tensor]] = {"up": {}, "down": {}, "alpha": {}}
    left_out, unknown = set(), set()
    for key, tensor in tensors.items():
        if key.startswith("text_encoder"):
            left_out.add(re.split(r"\.lora|\.alpha$", key)[0])
            continue
        check_plain(key, tensor, source)
        plain = _PROCESSOR.sub(_as_today, key)
        part = next((part for part in _SIDES if plain.endswith("." + part)), "")
        layer = plain.removesuffix(f".{part}")
        site = names.get(layer)
        if part and site and site not in sides[_SIDES[part]]:
            sides[_SIDES[part]][site] = tensor
        elif part and is_elsewhere(layer):
            left_out.add(layer)
        else:
            unknown.add(key)
    if unknown:
        raise refusal(source, f"{listed(unknown)}: no layer of this base that a LoRA is read for")
    check_config(config, sides["up"], source)
    given = {site: one_number(alpha, site, source) for site, alpha in sides["alpha"].items()}
    ranks = {site: down.shape[0] for site, down in sides["down"].items() if down.ndim}
    alphas = {**alphas_of(config, ranks, source), **given}
    found = modules(sides["up"], sides["down"], alphas, shapes=shapes, source=source)
    return LoraFile(kind, found, tuple(sorted(left_out)), metadata)


def _as_today(old: re.Match[str]) -> str:
    layer, part = old.groups()
    return f".to_{layer}{'.0' if layer == 'out' else ''}.{'alpha' if part == 'alpha' else f'lora.{part}'}"
