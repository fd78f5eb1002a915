"""The families of bases that are known, and what comes along of each: settings, a vocabulary, a small base. No torch.

A family that comes from elsewhere says so with ``register``; nothing else has to know of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import flux2, mini, sd15, sdxl, zimage
from .family import Family, InFiles, Preset, Sizes

_known: dict[str, Family] = {}


def register(one: Family) -> None:
    """Makes a family known, under its name. Raises ValueError where another one has the name."""
    if _known.setdefault(one.name, one) != one:
        raise ValueError(f"there already is a family {one.name!r}")


def family(name: str) -> Family:
    """The family of a name. Raises KeyError for one that is not known."""
    return _known[name]


def described_by(index: Mapping[str, Any], schedule: Mapping[str, Any]) -> Family | None:
    """The family of a folder by its model_index.json and scheduler_config.json; None where none is known."""
    own = (one for one in _known.values() if one.pipeline == index.get("_class_name"))
    return next((one for one in own if one.marks(index, schedule)), None)


def families() -> tuple[Family, ...]:
    """All that are known, in the order they were made known."""
    return tuple(_known.values())


for _one in (
    mini.FAMILY, sd15.FAMILY, sdxl.FAMILY, flux2.FAMILY, flux2.DISTILLED, zimage.FAMILY, zimage.TURBO,
):  # fmt: skip
    register(_one)

__all__ = ["Family", "InFiles", "Preset", "Sizes", "described_by", "families", "family", "register"]
