"""Reading a base's parts from a diffusers folder or from a single file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..bases import Family, described_by, family
from ..errors import CidmError, ExitCode
from ..files.json_files import read_json
from .building import building
from .checkpoint import inspect
from .family import Architecture, Parts
from .identity import Weights, alone, part_weights
from .schedules import check_schedule
from .settings import check_base, check_settings


def family_at(place: Path) -> Family:
    """The family of a diffusers folder or a single file.

    Raises:
        CidmError: INVALID for a single file that is no base.
        ValueError: for a folder of no known family.
    """
    if place.is_file():
        return family(inspect(place).family)
    index, schedule = place / "model_index.json", place / "scheduler" / "scheduler_config.json"
    found = described_by(told := read_json(index), read_json(schedule) if schedule.is_file() else {})
    if found is None:
        raise ValueError(f"it is a {told['_class_name']}")
    return found


def architecture(of: Family) -> Architecture:
    """The module that computes with a family's models."""
    found: Architecture = import_module(of.architecture)
    return found


def load_parts(place: Path, *, dtype: torch.dtype, vae: Path | None, full: bool = False) -> Parts:
    """The parts of a diffusers folder or a single .safetensors file, the VAE in float32, the others in ``dtype``.

    Args:
        full: read from the files in full precision where there are both (``identity.part_weights``).

    Raises:
        CidmError: INVALID when diffusers or transformers cannot read it, or it is not whole.
    """

    def read(there: Architecture) -> Parts:
        parts = there.read(place, dtype=dtype, vae=vae, full=full)
        for model in (parts.denoiser, parts.vae, *parts.encoders):
            for name, parameter in model.named_parameters():
                if parameter.is_meta:
                    raise ValueError(no_weights(model, name))
        return parts

    return _built(place, vae, read)


def read_part(cls: Any, folder: Path, part: str, *, dtype: torch.dtype, full: bool, **more: Any) -> Any:
    """One part of a diffusers folder with its weights, by the class of diffusers or transformers that it is of."""
    weights = part_weights(folder, part, full=full)
    return _pretrained(cls, folder, weights, dtype=dtype, subfolder=part, **more)


def read_alone(cls: Any, folder: Path, *, full: bool) -> Any:
    """A VAE in a folder of its own, in float32."""
    return _pretrained(cls, folder, alone(folder, full=full), dtype=torch.float32)


def _pretrained(cls: Any, folder: Path, weights: Weights | None, **more: Any) -> Any:
    variant = weights.variant if weights else None
    return cls.from_pretrained(folder, variant=variant, use_safetensors=True, local_files_only=True, **more)


def read_encoder(cls: Any, folder: Path, part: str, *, dtype: torch.dtype, full: bool) -> Any:
    """As ``read_part``, of transformers. Raises ValueError for one that is not whole."""
    model, told = read_part(cls, folder, part, dtype=dtype, full=full, output_loading_info=True)
    # transformers fills what it does not find with random numbers; diffusers leaves it on the meta device.
    for name in sorted(told["missing_keys"]):
        raise ValueError(no_weights(model, name))
    return model


def outline_parts(place: Path, *, vae: Path | None) -> Parts:
    """As ``load_parts`` without reading any weights: the models are on the meta device, and compute nothing.

    Raises:
        CidmError: INVALID when the settings are not those of a base.
    """
    return _built(place, vae, lambda there: there.outline(place, vae=vae))


def _built(place: Path, vae: Path | None, read: Callable[[Architecture], Parts]) -> Parts:
    # Settings that would have a library run code, or work without end, are refused before one reads them.
    if place.is_dir():
        check_base(place)
    if vae is not None:
        check_settings(vae)
    with building(partial(_unreadable, place)):
        parts = read(architecture(family_at(place)))
        check_schedule(parts.scheduler_config)
    return parts


def settle(part: nn.Module) -> None:
    """Copies weights that libraries have mapped from a file into memory of their own. On a GPU they are already.

    A file puts them anywhere, and on some processors the last bits of a product depend on whether its operands begin
    at a multiple of 16 bytes. And a file that is cut while it is mapped ends the process.
    """
    for tensor in (*part.parameters(), *part.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def no_weights(model: nn.Module, name: str) -> str:
    """What is wrong with a model that lacks a layer's weights."""
    return f"it holds no weights for {type(model).__name__}'s {name}"


def _unreadable(place: Path, what: str) -> CidmError:
    return CidmError(
        f"base {place}: diffusers cannot load it ({what})",
        hint="check that it is whole; cidm init --base mini needs no download",
        code=ExitCode.INVALID,
    )
