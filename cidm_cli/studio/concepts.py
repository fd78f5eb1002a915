"""The registry's concepts: told, shown, renamed, removed, brought back."""

from __future__ import annotations

from typing import Any

from .place import Place


def listed(place: Place) -> dict[str, Any]:
    """The base, and a card for each concept, newest first."""
    registry = place.workspace().registry
    cards = [
        {
            "name": one.name, "noun": one.class_noun, "style": one.style, "number": one.sequence,
            "version": one.version, "method": one.method, "created": one.created, "image": one.preview,
            "size": path.stat().st_size if (path := registry.blob_path(one.blob)).exists() else None,
        }
        for one in reversed(registry.records())
    ]  # fmt: skip
    removed = [
        {"name": one.name, "noun": one.class_noun, "number": one.sequence} for one in registry.removed()
    ]
    source = place.shown(registry.base.source)
    return {"base": source, "kind": registry.base.kind, "concepts": cards, "removed": removed[::-1]}


def renamed(place: Place, name: str, to: str) -> dict[str, Any]:
    """Gives a concept another name."""
    return {"name": place.workspace().registry.rename(name, to).name}


def removed(place: Place, name: str) -> dict[str, Any]:
    """Removes a concept with all its versions; it can be brought back until `cidm gc`."""
    plan = place.workspace().registry.remove(name)
    return {"versions": len(plan.records)}


def restored(place: Place, name: str) -> dict[str, Any]:
    """Brings a removed concept back."""
    return {"name": place.workspace().registry.restore(name).name}
