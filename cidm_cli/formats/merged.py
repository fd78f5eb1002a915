"""One static LoRA file, as ``cidm merge`` writes it and diffusers, ComfyUI and others read it.

``unet.<site>.lora_A.weight`` [r, in] and ``.lora_B.weight`` [out, r] in float32, r the same for every site and all
scales folded in, so that alpha = rank for every reader, also one that takes a file's first rank for all. Factors of a
1x1 convolution have two more dimensions of size 1. The text ``cidm`` in its metadata says what was merged and how, as
JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CidmError, ExitCode
from .lora import Factors, as_stored, one_rank
from .tensors import write_tensors

_KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def facts_as_metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """What a merged file tells of itself, as the strings a safetensors header holds."""
    return {"format": "pt", "cidm": json.dumps(facts, ensure_ascii=False, sort_keys=True, allow_nan=False)}


def pack_merged(
    factors: Factors, metadata: Mapping[str, str], convolutions: Collection[str] = frozenset()
) -> bytes:
    """The file; equal factors and metadata give equal bytes. Sites of lower rank are filled up with zeros.

    Args:
        convolutions: the sites that are 1x1 convolutions.
    """
    padded, _ = one_rank(factors)
    tensors = {}
    for site, (up, down) in padded.items():
        tensors[f"unet.{site}.lora_A.weight"] = as_stored(down, site, convolutions)
        tensors[f"unet.{site}.lora_B.weight"] = as_stored(up, site, convolutions)
    return write_tensors(tensors, metadata)


def is_merged(path: Path) -> bool:
    """Whether a file says that ``cidm merge`` made it; its weights are not looked at."""
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {})["cidm"])
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("format") == 1 and "concepts" in told


def read_merged(
    path: Path, *, shapes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, str]]:
    """Factors (up, down) by site, float32, and the metadata.

    Args:
        shapes: (out, in) of every layer of the base that a LoRA may sit on.

    Raises:
        CidmError: NOT_FOUND for no such file; INVALID, naming file and layer, for anything that does not fit.
    """
    if not path.exists():
        raise CidmError(f"{path}: no such file", "cidm merge -o FILE writes one", ExitCode.NOT_FOUND)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise _invalid(path, f"is not a safetensors file ({error})") from error
    sides: dict[str, dict[str, torch.Tensor]] = {"lora_A": {}, "lora_B": {}}
    for name, tensor in tensors.items():
        site, _, side = name.removeprefix("unet.").removesuffix(".weight").rpartition(".")
        if name != f"unet.{site}.{side}.weight" or side not in sides or site not in shapes:
            raise _invalid(path, f"{name} is no layer of this base")
        if tensor.dtype not in _KINDS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise _invalid(path, f"{name} holds {kind} values, not weights")
        if not torch.isfinite(tensor).all():
            raise _invalid(path, f"{name} holds NaN or infinite values")
        sides[side][site] = tensor.float().flatten(1) if tensor.shape[2:] == (1, 1) else tensor.float()
    factors = {}
    for site in sorted({*sides["lora_A"], *sides["lora_B"]}):
        down, up, (out, width) = sides["lora_A"].get(site), sides["lora_B"].get(site), shapes[site]
        if (
            down is None
            or up is None
            or up.shape != (out, *down.shape[:1])
            or down.shape != (*up.shape[1:], width)
        ):
            raise _invalid(path, f"unet.{site} does not fit the base's {out}x{width} layer")
        factors[site] = (up, down)
    if not factors:
        raise _invalid(path, "holds no low-rank weights")
    return factors, metadata


def _invalid(path: Path, what: str) -> CidmError:
    return CidmError(f"{path}: {what}", "give a file that cidm merge wrote for this base", ExitCode.INVALID)
