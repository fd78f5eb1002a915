"""A layout in the making, from another program's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cidm_cli.layout.model import MAX_SIDE, SIDE_FITTING, SIDE_STEP, Box, fitting
from cidm_cli.layout.templates import noun_of

from ..options.prompts import escaped, parse_prompt

_RANGES = {"seed": (0, 2**63 - 1), "steps": (1, 1000), "guidance": (0, 100), "count": (1, 1000)}


@dataclass(frozen=True)
class Wishes:
    """What the user says besides the file."""

    size: tuple[int, int] | None = None
    """width, height in pixels; where the file says another, this one counts"""
    ratio: str | None = None
    """Regional Prompter's "divide ratio" """
    split: str | None = None
    """Regional Prompter's "main splitting": "columns" or "rows" """


@dataclass(frozen=True)
class DraftRegion:
    """One region."""

    prompt: str
    box: Box
    """shares of the picture's width and height"""
    negative: str | None = None


@dataclass
class Draft:
    """What was found, and what of it a layout cannot say."""

    kind: str
    """"comfyui" or "regional-prompter" """
    prompt: str = ""
    """of the whole picture; empty if the file has none"""
    negative: str = ""
    alpha: float | None = None
    image: dict[str, Any] = field(default_factory=dict)
    """keys of `[image]`"""
    regions: list[DraftRegion] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Remember what is not carried over."""
        self.notes.append(text)


def drafted(draft: Draft) -> dict[str, Any]:
    """The draft as the data of a layout file. Sizes that no layout can have are rounded, and that is noted."""
    prompt = draft.prompt
    if not prompt and draft.regions:
        prompt = _summed(draft.regions)
        draft.note("no prompt of the whole image: it is made of the regions' own, without the concepts")
    base: dict[str, Any] = {"prompt": prompt}
    if draft.negative:
        base["negative"] = draft.negative
    if draft.alpha is not None and draft.regions:
        base["alpha"] = round(draft.alpha, 4)
    regions = []
    for region in draft.regions:
        table: dict[str, Any] = {"prompt": region.prompt, "box": [_rounded(edge) for edge in region.box]}
        if region.negative is not None and region.negative != draft.negative:
            table["negative"] = region.negative
        regions.append(table)
    return {"image": _image(draft), "base": base, "region": regions}


def clipped(box: Box) -> Box | None:
    """The part of a box that lies in the picture, or None if no part does. Not a number is nowhere."""
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in box)
    return (x0, y0, x1, y1) if _rounded(x0) < _rounded(x1) and _rounded(y0) < _rounded(y1) else None


def _image(draft: Draft) -> dict[str, Any]:
    image = dict(draft.image)
    if (size := image.get("size")) is not None:
        fit = [
            side if 0 < side <= MAX_SIDE and not side % SIDE_STEP else fitting(side, SIDE_FITTING)
            for side in size
        ]
        if fit != list(size):
            draft.note(f"size {size[0]} x {size[1]}: {fit[0]} x {fit[1]} is taken")
        image["size"] = fit
    for key, (low, high) in _RANGES.items():
        if key in image and not low <= image[key] <= high:
            draft.note(f"{key} {str(image.pop(key))[:24]}: a layout's lies between {low} and {high}")
    return image


def _summed(regions: Sequence[DraftRegion]) -> str:
    """The regions' prompts one after the other, with plain nouns where they name concepts."""
    prompts = [parse_prompt(region.prompt).filled(noun_of) for region in regions]
    return escaped(", ".join(dict.fromkeys(prompts)))[:1000].rstrip(" ,\\")


def _rounded(edge: float) -> float:
    return round(edge, 6)
