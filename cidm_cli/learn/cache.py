"""Tensors kept on disk by what they were made from: pictures as latents, texts as embeddings.

Files of tensors alone, each written whole or not at all. A file that is not what was written is made again. When they
are more than ``MOST`` bytes, those go that were not used for the longest time.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..data import Example, Placement
from ..errors import CidmError
from ..files.reading import read_bounded
from ..formats.tensors import read_tensors, write_tensors
from ..models.base import Base
from .batches import Encoder, encode_placed

MOST = 4 << 30
"""Bytes of all files together; of which one is never more than the half."""
_FORMAT = 1


@dataclass(frozen=True)
class Cache:
    """A folder of tensors by content, for one base."""

    folder: Path | None
    """None: nothing is kept."""
    base: str
    """Fingerprint of the base's weights, its VAE's among them."""
    on_note: Callable[[str], None] = lambda note: None
    """Hears of damaged files."""

    def tensors(
        self, base: Base, content: Mapping[str, Any], make: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """What ``make`` gives, from the folder if it is there; on the base's device.

        Args:
            content: all that the tensors depend on besides the base and how it computes, as plain JSON values.
        """
        if self.folder is None:
            return make()
        told = json.dumps({**content, "base": self.base, **_computing(base)}, sort_keys=True)
        file = self.folder / f"{hashlib.sha256(told.encode()).hexdigest()}.safetensors"
        found = self._read(file, told)
        if found is None:
            found = make()
            self._write(file, told, found)
        return {name: tensor.to(base.device) for name, tensor in found.items()}

    def _read(self, file: Path, told: str) -> dict[str, torch.Tensor] | None:
        if not file.exists():
            return None
        try:
            tensors, about = read_tensors(read_bounded(file, MOST), str(file))
            if about != {"content": told, "sha256": _digest(tensors)}:
                raise CidmError("its content is not what was written")
        except CidmError as error:
            self.on_note(f"{file}: damaged and made again ({error.message})")
            return None
        with suppress(OSError):
            os.utime(file)
        return tensors

    def _write(self, file: Path, told: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Where nothing can be written, the work is done again the next time."""
        plain = {name: tensor.cpu() for name, tensor in tensors.items()}
        blob = write_tensors(plain, {"content": told, "sha256": _digest(plain)})
        if len(blob) > MOST // 2:
            return
        with suppress(OSError):
            _place(file, blob)
            _prune(file.parent, MOST)


def remembering(cache: Cache) -> Encoder:
    """An encoder that asks the VAE only for what the cache does not hold."""

    def encode(
        base: Base, example: Example, placements: Sequence[Placement], size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        def make() -> dict[str, torch.Tensor]:
            return dict(zip(("mean", "std"), encode_placed(base, example, placements, size), strict=True))

        content = {
            "what": "picture",
            "picture": example.digest,
            "kept": example.image.size,
            "size": size,
            "placements": [asdict(placement) for placement in placements],
            "pillow": version("pillow"),
        }
        found = cache.tensors(base, content, make)
        return found["mean"], found["std"]

    return encode


def _computing(base: Base) -> dict[str, Any]:
    """What the last bits of a result depend on: with the cache and without it they are to be the same."""
    on_gpu = base.device.type == "cuda"
    return {
        "format": _FORMAT,
        "compute": str(base.compute),
        "device": torch.cuda.get_device_name(base.device) if on_gpu else base.device.type,
        "machine": platform.machine(),
        "threads": torch.get_num_threads() if base.device.type == "cpu" else 0,
        # Processors of one machine type differ, and a folder may be seen from several.
        "kernels": torch.backends.cpu.get_cpu_capability() if base.device.type == "cpu" else "",
        "tools": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        # Pictures are learned at no more than the base's own pixels.
        **({"whole": base.whole} if base.whole < base.pixels**2 else {}),
    }


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of tensors with their names, types and shapes."""
    return hashlib.sha256(write_tensors(tensors, {})).hexdigest()


def _place(file: Path, blob: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(blob)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _prune(folder: Path, most: int) -> None:
    """Deletes the files used longest ago until the others are at most so many bytes, half-written ones included."""
    files = [(path.stat(), path) for path in folder.iterdir() if path.is_file()]
    total = sum(status.st_size for status, _ in files)
    for status, path in sorted(files, key=lambda one: (one[0].st_mtime, one[1])):
        if total <= most:
            return
        path.unlink()
        total -= status.st_size
