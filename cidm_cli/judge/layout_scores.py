"""What an evaluation of layouts found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from ..method import neglect
from .crops import Part
from .rivals import ALONE, BASE, SINGLE

FORMAT = 1
"""Of ``results.json``."""


@dataclass(frozen=True)
class Seen:
    """A box in all pictures drawn in one way, judged; everything by judge."""

    identity: Mapping[str, float]
    """IA of the box: mean cosine to the concept's reference pictures."""
    presence: Mapping[str, float]
    """Share of pictures in which the concept is the one found in its box."""
    taken: Mapping[str, float]
    """Share of pictures in which a concept of another box is likelier in this one."""


@dataclass(frozen=True)
class BoxScores:
    """A concept in the box where a layout wants it."""

    region: int
    """Counted from 0."""
    name: str
    """The concept's."""
    key: str
    part: Part
    """The box in pixels."""
    ways: Mapping[str, Seen]
    """By rival, and "alone", "single" and "base"."""


@dataclass(frozen=True)
class LayoutScores:
    """One layout's figures."""

    name: str
    size: tuple[int, int]
    boxes: tuple[BoxScores, ...]
    background_part: Part | None
    """The part outside all boxes that is judged; None where there is too little of it."""
    background: Mapping[str, Mapping[str, float]]
    """IA that the background gains by the layout's concepts over the base's drawing, by rival and judge."""
    shown: Mapping[str, str]
    """File of the first picture drawn in each way, in the folder of samples; alone and single by region: "alone 0"."""


@dataclass(frozen=True)
class NeglectScores:
    """Everything that was measured."""

    base: str
    """Fingerprint of the base."""
    draw: Mapping[str, Any]
    """Settings of the drawing, but for what layouts say themselves."""
    judges: Mapping[str, str]
    """Where each judge comes from."""
    concepts: tuple[str, ...]
    """Whose references boxes were compared to."""
    rivals: tuple[str, ...]
    """The ways of drawing that were compared."""
    layouts: tuple[LayoutScores, ...]
    skipped: tuple[tuple[str, str], ...]
    """(what, why) of regions that were not judged."""

    def figures(self, way: str, layouts: Sequence[LayoutScores] | None = None) -> dict[str, Any]:
        """The figures of one way of drawing over all boxes of all layouts, or of some layouts, by judge."""
        some = self.layouts if layouts is None else layouts
        boxes = [box for layout in some for box in layout.boxes]

        def by_judge(figure: Callable[[str], Any]) -> dict[str, Any]:
            return {judge: figure(judge) for judge in self.judges}

        def identity(which: str, judge: str) -> list[float]:
            return [box.ways[which].identity[judge] for box in boxes]

        def each_layout(judge: str) -> list[float]:
            return [fmean(box.ways[way].presence[judge] for box in layout.boxes) for layout in some]

        out: dict[str, Any] = {
            "identity": by_judge(lambda judge: fmean(identity(way, judge))),
            "identity_ratio": by_judge(
                lambda judge: neglect.identity_ratio(identity(way, judge), identity(ALONE, judge))
            ),
            "single_ratio": by_judge(
                lambda judge: neglect.identity_ratio(identity(way, judge), identity(SINGLE, judge))
            ),
            "kept": by_judge(
                lambda judge: neglect.kept(
                    identity(way, judge), identity(BASE, judge), identity(ALONE, judge)
                )
            ),
            "presence": by_judge(lambda judge: fmean(box.ways[way].presence[judge] for box in boxes)),
            "presence_error": by_judge(lambda judge: _error(each_layout(judge))),
            "taken": by_judge(lambda judge: fmean(box.ways[way].taken[judge] for box in boxes)),
            "background": by_judge(
                lambda judge: _mean([o.background[way][judge] for o in some if way in o.background])
            ),
        }
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        ways = (*self.rivals, ALONE, SINGLE, BASE)
        return {"format": FORMAT, **asdict(self), "figures": {way: self.figures(way) for way in ways}}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean over layouts: boxes of one layout resemble each other, layouts are independent."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
