"""The optimizers of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def make(name: str, groups: Sequence[dict[str, Any]], *, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over groups of parameters, each with its learning rate; "adamw8bit" keeps its moments in 8 bits."""
    if name == "adamw8bit":
        # Optional, and slow to import.
        from bitsandbytes.optim import AdamW8bit

        optimizer: torch.optim.Optimizer = AdamW8bit(groups, weight_decay=weight_decay)
        return optimizer
    return torch.optim.AdamW(groups, weight_decay=weight_decay)
