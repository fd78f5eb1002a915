"""Layout files: what to draw, and where in the picture."""

from cidm_cli.layout.load import check_concepts, load_layout
from cidm_cli.layout.model import MAX_REGIONS, Base, Box, ImageSettings, Layout, Region, thin_regions

__all__ = [
    "MAX_REGIONS",
    "Base",
    "Box",
    "ImageSettings",
    "Layout",
    "Region",
    "check_concepts",
    "load_layout",
    "thin_regions",
]
