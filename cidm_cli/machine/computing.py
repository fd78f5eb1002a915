"""How a piece of work is computed: on which device, how precisely, in how much memory.

The figures behind the families' tables of memory are in docs/memory.md. Nothing there changes what a concept learns but
by rounding: the number of pictures in a step is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ..bases import Preset, family
from ..errors import CidmError, ExitCode
from ..options.computing import Computing
from ..options.declared import one_of

MEMORIES = (8, 12, 16, 24)
"""Gigabytes that ``--vram`` may name; a family says what fits in each, or nothing."""


@dataclass(frozen=True)
class Machine:
    """How a piece of work is computed."""

    device: str
    precision: str
    offload: bool
    compiled: bool
    whole: int | None
    """Pixels of an image up to which the VAE takes it as a whole; None where no memory has to be saved."""
    filled: Mapping[str, Any] = field(compare=False)
    """Settings of the work that a named memory fills in."""

    def completed(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by field: what was said, and what is filled in for the rest."""
        return {**self.filled, **said}

    def told(self, options: object) -> dict[str, Any]:
        """What the preset comes to, given the work's settings; empty without one."""
        if self.whole is None:
            return {}
        thrift = ("checkpointing", "batch", "accumulate", "optimizer")
        chosen = {name: getattr(options, name) for name in thrift}
        return {**chosen, "precision": self.precision, "offload": self.offload, "whole": self.whole}


def machine(asked: Computing, kind: str, work: str, on_note: Callable[[str], None]) -> Machine:
    """How a piece of work, "learn" or "draw", is computed on a kind of base.

    Raises:
        CidmError: USAGE for a memory there is no plan for.
    """
    plan = _preset(asked.vram, work, kind)
    if asked.vram is not None and plan is None:
        on_note(f"--vram {asked.vram}: a base like {kind} fits anywhere; nothing is filled in")
    filled = dict(plan.options) if plan else {}
    if filled.get("optimizer") == "adamw8bit" and find_spec("bitsandbytes") is None:
        on_note(
            "--vram: bitsandbytes is not installed, so AdamW keeps its moments in 32 bits "
            "(pip install bitsandbytes)"
        )
        del filled["optimizer"]
    return Machine(
        device=asked.device,
        precision=plan.precision if plan and asked.precision == "auto" else asked.precision,
        offload=bool(plan and plan.offload) if asked.offload is None else asked.offload,
        compiled=asked.compile and work == "draw",
        whole=plan.whole if plan else None,
        filled=filled,
    )


def _preset(gigabytes: int | None, work: str, kind: str) -> Preset | None:
    """What is filled in for a memory; None for bases that fit anywhere."""
    if gigabytes is None:
        return None
    if gigabytes not in MEMORIES:
        raise CidmError(
            f"--vram {gigabytes}: must be {one_of([str(memory) for memory in MEMORIES])}",
            hint=f"take the largest that your GPU has; below {MEMORIES[0]} there is --device cpu",
            code=ExitCode.USAGE,
        )
    plans = family(kind).memory.get(work, {})
    if plans and gigabytes not in plans:
        raise CidmError(
            f"--vram {gigabytes}: a base of the kind {kind} does not fit in it",
            hint=f"there are plans for {', '.join(map(str, plans))}",
            code=ExitCode.USAGE,
        )
    return plans.get(gigabytes)
