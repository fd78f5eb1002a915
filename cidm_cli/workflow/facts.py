"""What pictures say of how they were drawn."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from cidm_registry import Registry

from ..models.base import Base
from .mixtures import Mixture


def told_base(registry: Registry, base: Base) -> dict[str, Any]:
    """The base, how it computed and with what, as pictures tell it."""
    return {
        "base": registry.base.fingerprint,
        "compute": str(base.compute).removeprefix("torch."),
        "device": base.device.type,
        "tools": {name: version(name) for name in ("cidm", "torch", "diffusers", "transformers")},
    }


def told_mixture(chosen: Mixture) -> dict[str, Any]:
    """A mixture, as pictures tell it."""
    weights = dict(zip([record.blob for record in chosen.used], chosen.weights, strict=True))
    # In the order in which their weights are added: in another one the last digits differ.
    shown = {record.blob: record for record in (*chosen.used, *chosen.named)}
    concepts = [
        {
            "name": record.name,
            "key": record.key,
            "blob": blob,
            "named": record in chosen.named,
            "weights": list(weights.get(blob, ())),
        }
        for blob, record in shown.items()
    ]
    return {"method": chosen.method, "concepts": concepts}
