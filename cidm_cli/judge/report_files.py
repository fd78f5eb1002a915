"""An evaluation as files: figures, plots, a page to look at."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..files.writing import write_whole
from ..terminal.output import Table
from ..terminal.pages import Strip, page
from . import samples
from .report import ConceptScores, Evaluation
from .subjects import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6
"""Pictures of each kind on the page."""
SHORT = {"clip": "CLIP", "dino": "DINO"}
SHARES = ("retention", "confusion", "identity_ratio", "kept", "presence", "taken")
"""Figures that are told in percent."""
COLOURS = "viridis"
LARGEST = 24.0
"""Inches of a plot's side."""


def table(evaluation: Evaluation) -> Table:
    """A row for each concept, and their means."""
    judges = list(evaluation.judges)
    per_judge = [("ia", "IA"), ("forgetting", "FORGOT"), ("retention", "KEPT"), ("confusion", "CONFUSED")]
    heads = ["CONCEPT", "#"]
    for _, word in per_judge:
        # The figure's name over its first column only: the table has to fit a terminal.
        heads += [f"{word} {SHORT[judges[0]]}", *(SHORT[judge] for judge in judges[1:])]
    heads += ["TA", "CLIPSCORE"]
    body = []
    for concept in evaluation.concepts:
        found: dict[str, Mapping[str, float | None]] = {
            "ia": concept.final.ia, "forgetting": concept.forgetting,
            "retention": concept.retention, "confusion": concept.final.confusion,
        }  # fmt: skip
        cells = [number(found[name][judge], name) for name, _ in per_judge for judge in judges]
        body.append(
            (
                concept.name,
                str(concept.learned),
                *cells,
                number(concept.final.ta),
                number(concept.final.clip_score),
            )
        )
    means = evaluation.means()
    cells = [number(means[name][judge], name) for name, _ in per_judge for judge in judges]
    body.append(("mean", "", *cells, number(means["ta"]), number(means["clip_score"])))
    return Table(tuple(heads), body)


def number(value: float | None, kind: str = "") -> str:
    """A figure for people: cosines with three decimals, shares in percent."""
    if value is None:
        return "-"
    return f"{value:.0%}" if kind in SHARES else f"{value:.3f}"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes figures for programs."""
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, text.encode() + b"\n")


def write(
    evaluation: Evaluation, folder: Path, pictures: Path, subjects: Sequence[Subject]
) -> dict[str, Path]:
    """Writes results.json, the plots and report.html into a folder; returns their paths.

    Args:
        pictures: the folder of samples the evaluation was made with.
        subjects: where the page takes the reference pictures from.
    """
    plots = {
        "heatmap": heatmap(evaluation),
        "forgetting": curves(evaluation),
        "confusion": confusion(evaluation),
    }
    files = {name: _rendered(figure) for name, figure in plots.items()}
    paths = {name: folder / f"{name}.png" for name in plots}
    for name, content in files.items():
        write_whole(paths[name], content)
    paths["results"] = folder / "results.json"
    write_json(paths["results"], evaluation.to_json())
    paths["report"] = folder / "report.html"
    shown = {name: Image.open(io.BytesIO(content)) for name, content in files.items()}
    write_whole(paths["report"], _page(evaluation, pictures, subjects, shown).encode())
    return paths


def heatmap(evaluation: Evaluation) -> Figure:
    """IA of every concept (columns) after every task (rows), a panel for each judge."""
    figure, panels = _panels(evaluation, len(evaluation.states))
    for axes, judge in zip(panels, evaluation.judges, strict=True):
        values = np.array(evaluation.matrix(judge), dtype=float)
        _grid(axes, values, [c.name for c in evaluation.concepts], _state_names(evaluation), "{:.2f}")
        axes.set_title(f"IA by {SHORT[judge]} of each concept, after each task")
        axes.set_ylabel("after learning")
    return figure


def curves(evaluation: Evaluation) -> Figure:
    """IA of each concept from its own task on, with what the base draws of its class as a level."""
    figure, panels = _panels(evaluation, 6)
    places = {state: place for place, (state, _) in enumerate(evaluation.states)}
    for axes, judge in zip(panels, evaluation.judges, strict=True):
        for concept in evaluation.concepts:
            known = sorted(concept.states)
            line, = axes.plot(
                [places[state] for state in known], [concept.states[state].ia[judge] for state in known],
                marker="o", label=concept.name,
            )  # fmt: skip
            axes.axhline(concept.base.ia[judge], color=line.get_color(), linestyle=":", linewidth=0.8)
        axes.set_xticks(range(len(places)), _state_names(evaluation), rotation=45, ha="right")
        axes.set_title(f"IA by {SHORT[judge]}; dotted: the base's own drawing of the class")
        axes.set_xlabel("after learning")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """Share of each concept's final samples (rows) that are nearest to each concept's references (columns)."""
    figure, panels = _panels(evaluation, len(evaluation.concepts))
    for axes, judge in zip(panels, evaluation.judges, strict=True):
        values = np.array(evaluation.confusion(judge), dtype=float)
        _grid(
            axes, values / values.sum(1, keepdims=True), list(evaluation.rivals),
            [c.name for c in evaluation.concepts], "{:.0%}", (0, 1),
        )  # fmt: skip
        axes.set_title(f"drawn (rows) and taken for (columns), by {SHORT[judge]}")
    return figure


def _panels(evaluation: Evaluation, height: int) -> tuple[Figure, list[Axes]]:
    # Imported here: nothing else needs it, and it takes a while. No pyplot: it keeps figures and picks a display.
    from matplotlib.figure import Figure

    count = len(evaluation.judges)
    wide = min(max(4.0, 0.6 * len(evaluation.rivals) + 2), LARGEST)
    high = min(max(3.2, 0.45 * height + 2), LARGEST)
    figure = Figure(figsize=(wide * count, high), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _grid(
    axes: Axes,
    values: np.ndarray,
    columns: list[str],
    names: list[str],
    form: str,
    limits: tuple[float, float] | None = None,
) -> None:
    low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    axes.imshow(values, cmap=COLOURS, vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and values.size <= 400:
            bright = high > low and (value - low) / (high - low) > 0.6
            axes.text(
                column, row, form.format(value), ha="center", va="center", fontsize="x-small",
                color="black" if bright else "white",
            )  # fmt: skip


def _state_names(evaluation: Evaluation) -> list[str]:
    return [f"{state} {name}".strip() for state, name in evaluation.states]


def _rendered(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # Concepts may be named in any script, and the font that comes along does not know them all.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": "cidm"})
    return stream.getvalue()


def _page(
    evaluation: Evaluation, pictures: Path, subjects: Sequence[Subject], plots: Mapping[str, Image.Image]
) -> str:
    by_key = {subject.record.key: subject for subject in subjects}
    counts = evaluation.concepts[0].final.samples
    opening = [
        f"{len(evaluation.concepts)} concepts, {counts} samples of the first, method {evaluation.method}; judged by "
        + ", ".join(f"{SHORT[judge]} ({source})" for judge, source in evaluation.judges.items())
        + ".",
        "IA: mean cosine of samples and reference pictures. FORGOT: best IA since learned less the final one. KEPT: "
        "share of what the concept's own weights gain over the base that is left. CONFUSED: share of samples nearer "
        "to another concept's pictures. TA: cosine of samples and prompt; CLIPSCORE: 2.5 · max(TA, 0).",
        *(f"{name} was not judged: {why}." for name, why in evaluation.skipped),
    ]
    strips = [
        strip for concept in evaluation.concepts for strip in _strips(concept, by_key[concept.key], pictures)
    ]
    return page("cidm eval", opening, strips, [], tables=[table(evaluation)], figures=list(plots.items()))


def _strips(concept: ConceptScores, subject: Subject, folder: Path) -> list[Strip]:
    first, last = min(concept.states), max(concept.states)
    texts = subject.texts[:SHOWN]

    def drawn(shown: Sequence[str]) -> list[tuple[Image.Image, str]]:
        files = [samples.read(folder, Path(name).stem) for name in shown[:SHOWN]]
        return list(zip(files, texts, strict=True))

    references = [(e.image.copy(), e.path.name) for e in subject.references().examples[:SHOWN]]
    for image, _ in references:
        image.thumbnail((288, 288))
    what = f"<{concept.name}>"
    strips = [
        Strip(f"{what}: references", "What samples are compared to.", references),
        Strip(f"{what}: the base", f'Its own idea of "{concept.class_noun}".', drawn(concept.base.shown)),
        Strip(f"{what}: just learned", f"After task {first}.", drawn(concept.states[first].shown)),
    ]
    if last != first:
        strips.append(Strip(f"{what}: at the end", f"After task {last}.", drawn(concept.final.shown)))
    return strips
