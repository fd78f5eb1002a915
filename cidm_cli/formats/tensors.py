"""Files of tensors: read without trust, written the same for the same content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from cidm_registry import Invalid, check_safetensors

from ..errors import CidmError, ExitCode

LARGEST_FILE = 4 << 30
"""Bytes of a file of weights that is read at all."""
LARGEST_VALUE = 1e6
"""No trained weight comes near it; products of such do not overflow."""
_KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def read_tensors(content: bytes, source: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Args:
        source: what to call it in errors.

    Raises:
        CidmError: INVALID for anything else, a pickle or an archive by whatever name, or an oversized header.
    """
    try:
        check_safetensors(content)
        tensors = load(content)
    except Invalid as error:
        raise CidmError(f"{source}: {error.message}", error.hint or _HINT, ExitCode.INVALID) from error
    except (SafetensorError, KeyError) as error:
        raise CidmError(f"{source}: is not a safetensors file ({error})", _HINT, ExitCode.INVALID) from error
    length = int.from_bytes(content[:8], "little")
    return tensors, json.loads(content[8 : 8 + length]).get("__metadata__", {})


def check_weights(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuses tensors that no training leaves.

    Raises:
        CidmError: INVALID, naming the first, for whole numbers, NaN, infinite and absurdly large values.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _KINDS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CidmError(f"{source}: {name} holds {kind} values, not weights", _HINT, ExitCode.INVALID)
        if not torch.isfinite(tensor).all():
            raise CidmError(f"{source}: {name} holds NaN or infinite values", _HINT, ExitCode.INVALID)
        if tensor.numel() and float(tensor.abs().max()) > LARGEST_VALUE:
            raise CidmError(
                f"{source}: {name} holds values above {LARGEST_VALUE:g}, which no training leaves",
                _HINT, ExitCode.INVALID,
            )  # fmt: skip


def write_tensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file; equal tensors and metadata give equal bytes."""
    plain = save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)})
    # The library writes metadata in another order each time: it is put in front of the header here.
    length = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8 : 8 + length])}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw + plain[8 + length :]


def content_hash(file: bytes) -> str:
    """sha256 of a safetensors file without its header: the tensors alone, whatever the metadata says."""
    return hashlib.sha256(file[8 + int.from_bytes(file[:8], "little") :]).hexdigest()


_HINT = "give a .safetensors file of LoRA weights, or a bundle that `cidm export` wrote"
