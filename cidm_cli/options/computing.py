"""What a user may set of how a command computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from .declared import Form, Group, Option, Shown, declared, one_of, usage

COMPUTING = "Computing"
"""The group of these options: they come late on a help page."""
Precision = Literal["auto", "half", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Computing:
    """On which device, how precisely, in how much memory."""

    device: Annotated[str, Group(COMPUTING), Form("DEVICE")] = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Precision = "auto"
    """What to compute in."""
    offload: Annotated[bool, Shown("off")] | None = None
    """Keep parts of the base in main memory while a GPU does not need them."""
    vram: Annotated[int, Form("GB")] | None = None
    """Settings that fit a GPU of 8, 12, 16 or 24 GB, where none are given."""
    compile: bool = False
    """Compile the UNet's blocks first: pays for many pictures of one size."""


def asked_of(*names: str) -> dict[str, Option]:
    """These of the options."""
    return {name: declared(Computing)[name] for name in names}


WHERE = asked_of("device", "precision")
MEMORY = asked_of("device", "precision", "offload", "vram")
"""Beside where, in how much memory."""
DRAWING = declared(Computing)
"""All of them."""


def check_precision(name: str) -> None:
    """Raises CidmError USAGE for what ``--precision`` cannot be."""
    if name not in get_args(Precision):
        raise usage("precision", name, f"must be {one_of(get_args(Precision))}")
