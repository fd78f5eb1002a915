"""The optimizers of a training."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch

from ..errors import CidmError, ExitCode


def check(name: str) -> None:
    """Refuses an optimizer whose package is not there.

    Raises:
        CidmError: USAGE, with what to install.
    """
    if name == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise CidmError(
            "--optimizer adamw8bit: bitsandbytes is not installed",
            hint="pip install bitsandbytes, or leave it out: adamw needs no package",
            code=ExitCode.USAGE,
        )


def make(name: str, groups: Sequence[dict[str, Any]], *, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over groups of parameters, each with its learning rate; "adamw8bit" keeps its moments in 8 bits."""
    if name == "adamw8bit":
        # Optional, and slow to import.
        from bitsandbytes.optim import AdamW8bit

        optimizer: torch.optim.Optimizer = AdamW8bit(groups, weight_decay=weight_decay)
        return optimizer
    return torch.optim.AdamW(groups, weight_decay=weight_decay)
