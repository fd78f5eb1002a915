"""Layout files: what to draw, and where in the picture."""

from cidm_cli.layout.load import all_faults, check_concepts, load_layout, unfit_size, unknown_concepts
from cidm_cli.layout.model import (
    MAX_REGIONS,
    Base,
    Box,
    ImageSettings,
    Layout,
    Region,
    Structure,
    thin_regions,
)

__all__ = [
    "MAX_REGIONS",
    "Base",
    "Box",
    "ImageSettings",
    "Layout",
    "Region",
    "Structure",
    "all_faults",
    "check_concepts",
    "load_layout",
    "thin_regions",
    "unfit_size",
    "unknown_concepts",
]
