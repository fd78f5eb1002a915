"""Files of tensors: read without trust, written the same for the same content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from cidm_registry import Header, Invalid, check_header

from ..errors import CidmError, ExitCode
from ..files.reading import read_bounded
from ..files.tensor_files import read_header

LARGEST_FILE = 4 << 30
"""Bytes of a file of weights that is read at all."""
LARGEST_VALUE = 1e6
"""No trained weight comes near it; products of such do not overflow."""
_KINDS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file whose header is read and checked; its tensors are read when they are asked for."""

    path: Path
    header: Header

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself."""
        return self.header.metadata

    def outline(self) -> dict[str, torch.Tensor]:
        """Tensors of the same shapes and no content, to find out what does not fit before anything is read."""
        shapes = {name: tensor.shape for name, tensor in self.header.tensors.items()}
        return {
            name: torch.empty(shape, device="meta") if math.prod(shape) > 1 else torch.zeros(shape)
            for name, shape in shapes.items()
        }

    def read(self) -> bytes:
        """The whole file, for ``read_tensors``. Raises CidmError as ``read_bounded`` does."""
        return read_bounded(self.path, LARGEST_FILE)


def open_tensors(path: Path) -> TensorFile:
    """A file of weights, by its header alone.

    Raises:
        CidmError: as ``read_header``; INVALID for more than is ever read.
    """
    header = read_header(path, hint=_HINT)
    if path.stat().st_size > LARGEST_FILE:
        raise CidmError(
            f"{path}: is larger than the {LARGEST_FILE >> 30} GiB that are read", _HINT, ExitCode.INVALID
        )
    return TensorFile(path, header)


def read_tensors(content: bytes, source: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Args:
        source: what to call it in errors.

    Raises:
        CidmError: INVALID for anything else, a pickle or an archive by whatever name, or an oversized header.
    """
    try:
        header = check_header(content, len(content))
        tensors = load(content)
    except Invalid as error:
        raise CidmError(f"{source}: {error.message}", error.hint or _HINT, ExitCode.INVALID) from error
    except (SafetensorError, KeyError) as error:
        raise CidmError(f"{source}: is not a safetensors file ({error})", _HINT, ExitCode.INVALID) from error
    return tensors, header.metadata


def check_weights(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuses tensors that no training leaves; of those on the meta device there is only the kind to look at.

    Raises:
        CidmError: INVALID, naming the first, for whole numbers, NaN, infinite and absurdly large values.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _KINDS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CidmError(f"{source}: {name} holds {kind} values, not weights", _HINT, ExitCode.INVALID)
        if tensor.is_meta:
            continue
        values = tensor.float()
        if not torch.isfinite(values).all():
            raise CidmError(f"{source}: {name} holds NaN or infinite values", _HINT, ExitCode.INVALID)
        if values.numel() and float(values.abs().max()) > LARGEST_VALUE:
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


def facts_as_metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """What a file of ours tells of itself, as the strings a safetensors header holds."""
    return {"format": "pt", "cidm": json.dumps(facts, ensure_ascii=False, sort_keys=True, allow_nan=False)}


def content_hash(file: bytes) -> str:
    """sha256 of a safetensors file without its header: the tensors alone, whatever the metadata says."""
    return hashlib.sha256(file[8 + int.from_bytes(file[:8], "little") :]).hexdigest()


_HINT = "give a .safetensors file of LoRA weights, or a bundle that `cidm export` wrote"
