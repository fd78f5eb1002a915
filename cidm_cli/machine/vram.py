"""What fits on GPUs of a given memory: what --vram fills in where nothing else is said.

The figures behind the families' tables are in docs/memory.md. Nothing there changes what a concept learns but by
rounding: the number of pictures in a step is never changed.
"""

from __future__ import annotations

from ..bases import Preset, family
from ..errors import CidmError, ExitCode

MEMORIES = (8, 12, 16, 24)
"""Gigabytes that ``--vram`` may name; a family says what fits in each, or nothing."""


def preset(gigabytes: int, work: str, kind: str) -> Preset | None:
    """What is filled in for a memory, by work ("learn" or "draw") and kind of base; None for bases that fit anywhere.

    Raises:
        CidmError: USAGE for a memory that is not in the table.
    """
    if gigabytes not in MEMORIES:
        raise CidmError(
            f"--vram {gigabytes}: must be {', '.join(map(str, MEMORIES[:-1]))} or {MEMORIES[-1]}",
            hint=f"take the largest that your GPU has; below {MEMORIES[0]} there is --device cpu",
            code=ExitCode.USAGE,
        )
    return family(kind).memory.get(work, {}).get(gigabytes)
