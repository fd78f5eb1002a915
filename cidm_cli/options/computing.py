"""What a user may set of how a command computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from .declared import Form, Group, Offered, Shown, declared, some

COMPUTING = "Computing"
"""The group of these options: they come late on a help page."""


@dataclass(frozen=True, kw_only=True)
class Computing:
    """On which device, how precisely, in how much memory."""

    device: Annotated[str, Group(COMPUTING), Form("DEVICE"), Offered(("auto", "cpu", "cuda", "mps"))] = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "half", "fp32", "bf16", "fp16"] = "auto"
    """What to compute in."""
    offload: Annotated[bool, Shown("off")] | None = None
    """Keep parts of the base in main memory while a GPU does not need them."""
    vram: Annotated[int, Form("GB"), Offered(("8", "12", "16", "24"))] | None = None
    """Preset for a GPU of 8, 12, 16 or 24 GB; options that are given win."""
    compile: bool = False
    """Compile the UNet's blocks first: faster for many images of one size."""


WHERE = some(Computing, "device", "precision")
MEMORY = some(Computing, "device", "precision", "offload", "vram")
"""Beside where, in how much memory."""
DRAWING = declared(Computing)
"""All of them."""
