"""What bases have in common whose transformer takes text and picture as one sequence: how finely one sees. No torch."""

from __future__ import annotations

from pathlib import Path

from . import unet
from .family import Sizes

TARGETS = ("attn", "attn+ff")
"""Layers that may get low-rank weights: those of the attention, or feed-forward layers, too."""
CELL = 2
"""Cells of the VAE, across and down, that are one of the transformer's."""


def _side(folder: Path) -> tuple[int, int]:
    side = unet.number(folder, "vae", "sample_size")
    return side, side


def _multiple(folder: Path) -> int:
    return CELL * unet.factor(folder)


def _cells(folder: Path, size: tuple[int, int]) -> tuple[int, int]:
    across, down = (max(side // _multiple(folder), 1) for side in size)
    return across, down


SIZES = Sizes(_side, _multiple, _cells)
