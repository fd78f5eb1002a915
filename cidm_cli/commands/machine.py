"""How a command's computing is done: on which device, how precisely, in how much memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..machine.vram import Preset, preset
from .invocation import Invocation

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..models.base import Base


@dataclass(frozen=True)
class Machine:
    """What the flags say, else environment and settings files, else what --vram stands for."""

    device: str
    precision: str
    offload: bool
    compiled: bool
    vram: int | None
    """Gigabytes of memory that were named."""
    preset: Preset | None
    """What they stand for; None where nothing has to be saved."""
    filled: Mapping[str, Any]
    """Settings of the command that the preset fills in."""
    insisted: bool
    """Whether --offload was asked for by name."""

    @property
    def whole(self) -> int:
        """Pixels of a picture up to which the VAE takes it as a whole."""
        from ..models.base import WHOLE

        return self.preset.whole if self.preset else WHOLE

    def completed(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The command's settings, by field: what was said, and what is filled in for the rest."""
        return {**self.filled, **said}

    def told(self, options: object) -> dict[str, Any]:
        """What a plan for this memory comes to, given the command's settings."""
        assert self.preset
        chosen = {
            name: getattr(options, name) for name in ("checkpointing", "batch", "accumulate", "optimizer")
        }
        return {**chosen, "precision": self.precision, "offload": self.offload, "whole": self.preset.whole}


def machine(
    call: Invocation,
    kind: str,
    work: str,
    *,
    device: str | None,
    precision: str | None,
    offload: bool | None,
    vram: int | None,
    compiled: bool | None = False,
) -> Machine:
    """Looks every choice up; each argument is what its flag says.

    Args:
        kind: of the registry's base.
        work: "learn" or "draw".

    Raises:
        CidmError: USAGE for a memory there is no plan for, or a precision there is not.
    """
    gigabytes = _found(call, "vram", vram)
    plan = None if gigabytes is None else preset(gigabytes, work, kind)
    if gigabytes is not None and plan is None:
        call.output.note(f"--vram {gigabytes}: a base like {kind} fits anywhere; nothing is filled in")
    asked = _found(call, "offload", offload)
    how = call.precision(precision)
    filled = dict(plan.options) if plan else {}
    if filled.get("optimizer") == "adamw8bit" and find_spec("bitsandbytes") is None:
        call.output.note(
            "--vram: bitsandbytes is not installed, so AdamW keeps its moments in 32 bits (pip install bitsandbytes)"
        )
        del filled["optimizer"]
    return Machine(
        device=call.device(device),
        precision=plan.precision if plan and how == "auto" else how,
        offload=bool(plan and plan.offload) if asked is None else asked,
        compiled=bool(_found(call, "compile", compiled)),
        vram=gigabytes,
        preset=plan,
        filled=filled,
        insisted=bool(asked),
    )


def open_on(call: Invocation, registry: Registry, where: Machine) -> Base:
    """The registry's base, opened as the machine is meant to compute. Raises what `open_base` raises."""
    from ..models.opening import open_base

    base = open_base(
        registry, device=where.device, precision=where.precision, offload=where.offload,
        whole=where.whole, compiled=where.compiled,
    )  # fmt: skip
    if where.insisted and not base.offload:
        call.output.note(f"--offload: {base.device.type} computes in main memory; there is nothing to move")
    return base


def _found(call: Invocation, name: str, flag: Any) -> Any:
    if flag is not None:
        return flag
    found = call.settings.find(name)
    return None if found is None else found.value
