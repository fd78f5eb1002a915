"""What pictures say of how they were drawn."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from cidm_registry import Registry

from ..models.base import WHOLE, Base
from .mixtures import Mixture


def told_base(registry: Registry, base: Base, size: tuple[int, int]) -> dict[str, Any]:
    """The base, how it computed a picture of a size, and with what, as the picture tells it."""
    # Told only where it made a difference.
    tiled = base.whole != WHOLE and size[0] * size[1] > min(base.whole, WHOLE)
    unusual: dict[str, Any] = {"whole": base.whole} if tiled else {}
    if base.compiled:
        unusual["compiled"] = True
    return {
        "base": registry.base.fingerprint,
        "compute": str(base.compute).removeprefix("torch."),
        "device": base.device.type,
        **unusual,
        "tools": {name: version(name) for name in ("cidm", "torch", "diffusers", "transformers")},
    }


def told_mixture(chosen: Mixture) -> dict[str, Any]:
    """A mixture, as pictures tell it."""
    weights = dict(zip([record.key for record in chosen.used], chosen.weights, strict=True))
    # In the order in which their weights are added: in another one the last digits differ.
    shown = {record.key: record for record in (*chosen.used, *chosen.named, *chosen.against)}
    concepts = [
        {
            "name": record.name,
            "key": key,
            "blob": record.blob,
            "class_noun": record.class_noun,
            "named": record in chosen.named,
            "weights": list(weights.get(key, ())),
            **({"against": True} if record in chosen.against else {}),
        }
        for key, record in shown.items()
    ]
    return {"method": chosen.method, "concepts": concepts}
