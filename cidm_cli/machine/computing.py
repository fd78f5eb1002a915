"""How a piece of work is computed: on which device, how precisely, in how much memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ..options.declared import check_precision
from .vram import preset


@dataclass(frozen=True)
class Computing:
    """What is asked for; each value leaves the choice open unless it is said."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: str = "auto"
    """auto, half, fp32, bf16 or fp16."""
    offload: bool | None = None
    """Whether parts of the base wait in main memory while a GPU does not need them."""
    compiled: bool = False
    """Whether the blocks of the denoiser are compiled before anything is drawn."""
    vram: int | None = None
    """Gigabytes of a GPU's memory that all has to fit: 8, 12, 16 or 24."""

    def __post_init__(self) -> None:
        """Raises CidmError USAGE for no name of a precision."""
        check_precision(self.precision)

    def settled(self, kind: str, work: str, on_note: Callable[[str], None]) -> Machine:
        """How a piece of work is computed on a kind of base.

        Args:
            work: "learn" or "draw".

        Raises:
            CidmError: USAGE for a memory there is no plan for.
        """
        plan = None if self.vram is None else preset(self.vram, work, kind)
        if self.vram is not None and plan is None:
            on_note(f"--vram {self.vram}: a base like {kind} fits anywhere; nothing is filled in")
        filled = dict(plan.options) if plan else {}
        if filled.get("optimizer") == "adamw8bit" and find_spec("bitsandbytes") is None:
            on_note(
                "--vram: bitsandbytes is not installed, so AdamW keeps its moments in 32 bits "
                "(pip install bitsandbytes)"
            )
            del filled["optimizer"]
        return Machine(
            device=self.device,
            precision=plan.precision if plan and self.precision == "auto" else self.precision,
            offload=bool(plan and plan.offload) if self.offload is None else self.offload,
            compiled=self.compiled and work == "draw",
            whole=plan.whole if plan else None,
            filled=filled,
        )


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
