"""What fits on GPUs of a given memory: what --vram fills in where nothing else is said.

The figures behind the table are in docs/memory.md. Nothing here changes what a concept learns but by rounding: the
number of pictures in a step is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CidmError, ExitCode

MEGA = 1 << 20


@dataclass(frozen=True)
class Preset:
    """What is filled in."""

    whole: int
    """Pixels of a picture up to which the VAE takes it as a whole."""
    offload: bool = False
    """Whether parts of the base wait in main memory."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the command, by field."""
    precision: str = "half"
    """What "auto" stands for."""


LEARN: Mapping[str, Mapping[int, Preset]] = {
    "sd15": {
        8: Preset(5 * MEGA // 4, offload=True),
        12: Preset(2 * MEGA),
        16: Preset(2 * MEGA),
        24: Preset(2 * MEGA),
    },
    "sdxl": {
        8: Preset(5 * MEGA // 4, offload=True, options={"checkpointing": True, "optimizer": "adamw8bit"}),
        12: Preset(2 * MEGA, options={"checkpointing": True}),
        16: Preset(2 * MEGA, options={"checkpointing": True}),
        24: Preset(2 * MEGA),
    },
}
DRAW: Mapping[str, Mapping[int, Preset]] = {
    "sd15": {
        8: Preset(5 * MEGA // 4),
        12: Preset(2 * MEGA),
        16: Preset(2 * MEGA),
        24: Preset(4 * MEGA),
    },
    "sdxl": {
        8: Preset(5 * MEGA // 4, offload=True, options={"batch": 2}),
        12: Preset(2 * MEGA, offload=True),
        16: Preset(2 * MEGA),
        24: Preset(4 * MEGA),
    },
}
TABLES = {"learn": LEARN, "draw": DRAW}


def preset(gigabytes: int, work: str, kind: str) -> Preset | None:
    """What is filled in for a memory, by work ("learn" or "draw") and kind of base; None for bases that fit anywhere.

    Raises:
        CidmError: USAGE for a memory that is not in the table.
    """
    table = TABLES[work]
    sizes = list(table["sdxl"])
    if gigabytes not in sizes:
        raise CidmError(
            f"--vram {gigabytes}: must be {', '.join(map(str, sizes[:-1]))} or {sizes[-1]}",
            hint=f"take the largest that your GPU has; below {sizes[0]} there is --device cpu",
            code=ExitCode.USAGE,
        )
    return table[kind][gigabytes] if kind in table else None
