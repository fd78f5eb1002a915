"""What a base would draw in a size, as far as its configuration files tell. No torch, no library for images."""

from __future__ import annotations

from cidm_registry import Registry

from ..bases import family
from ..errors import CidmError
from ..layout.advice import Picture
from ..models.identity import folder_of


def picture_of(size: tuple[int, int] | None, registry: Registry | None) -> Picture:
    """What the registry's base would draw in a size, or its own, as far as its configuration files tell."""
    if registry is None:
        return Picture(size, None)
    try:
        folder = folder_of(registry.base)
        sizes = family(registry.base.kind).sizes
        drawn = size or sizes.default(folder)
        return Picture(drawn, sizes.coarsest(folder, drawn), sizes.multiple(folder))
    except CidmError:
        # A base that is not there, or not as a folder: what it would draw is not known, and nothing else is wrong.
        return Picture(size, None)
