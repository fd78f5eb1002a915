"""What an evaluation found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

FORMAT = 1
"""Of ``results.json``."""


@dataclass(frozen=True)
class Cell:
    """One concept drawn in one way, judged."""

    samples: int
    ia: Mapping[str, float]
    """Image alignment, by judge: mean cosine to the reference pictures."""
    ia_error: Mapping[str, float]
    """Standard error of each, the prompts taken as independent."""
    ta: float
    """Text alignment: mean cosine to the prompt with the class noun, by CLIP."""
    clip_score: float
    """The same as the published code counts it: mean of 2.5 · max(cosine, 0)."""
    confusion: Mapping[str, float]
    """Share of samples nearest to another concept's references, by judge."""
    nearest: Mapping[str, Sequence[int]]
    """Samples nearest to each of the evaluation's ``rivals``, by judge: a row of the confusion matrix."""
    shown: Sequence[str]
    """File of each prompt's first picture, in the folder of samples."""


@dataclass(frozen=True)
class ConceptScores:
    """One concept's figures."""

    name: str
    key: str
    class_noun: str
    style: bool
    blob: str
    """sha256 of its weights."""
    learned: int
    """Its number in the registry."""
    prompts: int
    references: int
    """Pictures it is compared to."""
    states: Mapping[int, Cell]
    """By the registry's number after which it was drawn; the last is the final state."""
    base: Cell
    """The base's own drawing of the class noun, same prompts and seeds."""
    single: Cell
    """The concept's own low-rank weights alone."""
    forgetting: Mapping[str, float | None]
    """Best IA since learned less the final one, by judge; None where only the final state was drawn."""
    retention: Mapping[str, float | None]
    """(final - base) / (single - base) of IA, by judge; None where its own weights gain too little to tell."""

    @property
    def final(self) -> Cell:
        """In the last state."""
        return self.states[max(self.states)]


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured."""

    base: str
    """Fingerprint of the base."""
    method: str
    """How the concepts were put together; "merged" for a merged file."""
    draw: Mapping[str, Any]
    """Settings of the drawing."""
    judges: Mapping[str, str]
    """Where each judge comes from."""
    states: tuple[tuple[int, str], ...]
    """(number, concept learned by it) of every state of the registry that was looked at."""
    rivals: tuple[str, ...]
    """The concepts whose references samples were compared to: the columns of the confusion matrix."""
    concepts: tuple[ConceptScores, ...]
    """In the order they were learned."""
    skipped: tuple[tuple[str, str], ...]
    """(name, why) of concepts that were not judged."""

    def means(self) -> dict[str, Any]:
        """Means over the concepts, by figure.

        A retention that is unknown for a concept is left out. Forgetting is None unless it is known for all: where only
        the last state was drawn it is known for the newest concept alone, which has had no time to be forgotten.
        """
        out: dict[str, Any] = {
            "ta": fmean(c.final.ta for c in self.concepts),
            "clip_score": fmean(c.final.clip_score for c in self.concepts),
        }
        for name in ("ia", "confusion"):
            out[name] = {j: fmean(getattr(c.final, name)[j] for c in self.concepts) for j in self.judges}
        for way in ("base", "single"):
            out[f"ia_{way}"] = {j: fmean(getattr(c, way).ia[j] for c in self.concepts) for j in self.judges}
        for name in ("forgetting", "retention"):
            known = {
                j: [v for c in self.concepts if (v := getattr(c, name)[j]) is not None] for j in self.judges
            }
            enough = {"forgetting": len(self.concepts), "retention": 1}[name]
            out[name] = {j: fmean(v) if len(v) >= enough else None for j, v in known.items()}
        return out

    def base_means(self) -> dict[str, Any]:
        """Means of the base's own drawings of the class nouns, by figure."""
        out: dict[str, Any] = {
            name: fmean(getattr(c.base, name) for c in self.concepts) for name in ("ta", "clip_score")
        }
        return {**out, "ia": self.means()["ia_base"]}

    def matrix(self, judge: str) -> list[list[float | None]]:
        """IA of each concept (columns) after each task (rows); None where it was not drawn."""
        return [
            [c.states[number].ia[judge] if number in c.states else None for c in self.concepts]
            for number, _ in self.states
        ]

    def confusion(self, judge: str) -> list[list[int]]:
        """Final samples of each concept (rows) nearest to each of ``rivals`` (columns)."""
        return [list(c.final.nearest[judge]) for c in self.concepts]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        whole = asdict(self)
        for told in whole["concepts"]:
            told["states"] = {str(number): cell for number, cell in told["states"].items()}
        return {
            "format": FORMAT,
            **whole,
            "means": self.means(),
            "ia_matrix": {judge: self.matrix(judge) for judge in self.judges},
        }
