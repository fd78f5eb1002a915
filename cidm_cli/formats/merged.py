"""One static LoRA file, as ``cidm merge`` writes it: diffusers' keys, the scale folded into the factors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import CidmError, ExitCode


def pack_merged(
    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]], metadata: Mapping[str, str]
) -> bytes:
    """The file of (up [out, r], down [r, in]) by site; equal factors and metadata give equal bytes."""
    tensors = {}
    for site, (up, down) in factors.items():
        tensors[f"unet.{site}.lora_A.weight"] = down
        tensors[f"unet.{site}.lora_B.weight"] = up
    ordered = {name: tensors[name].detach().cpu().float().contiguous() for name in sorted(tensors)}
    return save(ordered, metadata=dict(sorted(metadata.items())))


def read_merged(
    path: Path, *, shapes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, str]]:
    """Factors (up, down) by site, float32, and the metadata.

    Args:
        shapes: (out, in) of every linear layer of the base that a LoRA may sit on.

    Raises:
        CidmError: NOT_FOUND for no such file; INVALID, naming file and layer, for anything that does not fit.
    """
    if not path.is_file():
        raise CidmError(f"{path}: no such file", "cidm merge -o FILE writes one", ExitCode.NOT_FOUND)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise _invalid(path, f"is not a safetensors file ({error})") from error
    sides: dict[str, dict[str, torch.Tensor]] = {"lora_A": {}, "lora_B": {}}
    for name, tensor in tensors.items():
        site, _, side = name.removeprefix("unet.").removesuffix(".weight").rpartition(".")
        if name != f"unet.{site}.{side}.weight" or side not in sides or site not in shapes:
            raise _invalid(path, f"{name} is no layer of this base")
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise _invalid(path, f"{name} holds values that are no weights")
        sides[side][site] = tensor.float()
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
