"""What a family of bases takes where nothing is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The paper's for SD-1.5 and SDXL, which it trains and draws alike (arXiv 2410.17594, section 4.1), measured ones for
# the small base.
_PAPER = {
    "learn": {"steps": 800, "batch": 1, "lr": 1e-4, "token_lr": 1e-3, "buckets": True},
    "draw": {"steps": 50, "guidance": 7.5},
}
DEFAULTS: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "mini": {
        "learn": {"steps": 100, "batch": 8, "lr": 2e-3, "token_lr": 1e-2, "buckets": False},
        "draw": {"steps": 20, "guidance": 4.0},
    },
    "sd15": _PAPER,
    "sdxl": _PAPER,
}


def defaults(kind: str) -> Mapping[str, Mapping[str, Any]]:
    """By table of settings, "learn" and "draw", the options that are a family's own. ``kind`` is the base's."""
    return DEFAULTS[kind]
