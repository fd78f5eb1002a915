"""An evaluation as files: figures, plots, a page to look at."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..files.writing import write_whole
from ..terminal.output import Table
from ..terminal.pages import DARK, Plot, Strip, page
from . import samples
from .report import ConceptScores, Evaluation
from .subjects import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SHOWN = 6
"""Images of each kind on the page."""
SHORT = {"clip": "CLIP", "dino": "DINO"}
Figures = Mapping[str, tuple[str, str, str]]
"""By key: short for a terminal, in full for a page, and what it measures."""
BASE = "class noun, no concept"
"""The row of what the base draws by itself."""
FIGURES: Figures = {
    "ia": ("IA", "Image alignment ↑", "mean cosine of samples and reference images. Higher is better; the base's own "
           "row, with the class noun in the concept's place, is where it begins."),
    "forgetting": ("FORGOT", "Forgetting ↓", "the best image alignment since the concept was learned, minus the final "
                   "one. Lower is better; 0 means that nothing was lost."),
    "retention": ("KEPT", "Retention ↑", "what is left of the image alignment that the concept's own weights gain over "
                  "the base. Higher is better; 100 % is the concept drawn alone."),
    "confusion": ("CONFUSED", "Confusion ↓", "share of samples that are closer to another concept's reference images. "
                  "Lower is better."),
}  # fmt: skip
"""Figures that each judge gives."""
TEXT_FIGURES: Figures = {
    "ta": ("TA", "Text alignment ↑", "mean cosine of samples and prompts, with the class noun in the concept's place, "
           "by CLIP. Higher is better."),
    "clip_score": ("CLIPSCORE", "CLIPScore ↑", "mean of 2.5 · max(cosine, 0) of the same. Higher is better."),
}  # fmt: skip
SHARES = ("retention", "confusion", "identity_ratio", "kept", "presence", "taken")
"""Figures that are told in percent."""
COLOURS = "viridis"
"""From 0 to 1 in every heat map: cosines and shares alike."""
LARGEST = 24.0
"""Inches of a plot's side."""
DOTS = 160
"""An inch, in a plot; pages show it at half of that."""


def table(evaluation: Evaluation, *, whole: bool = False) -> Table:
    """A row for each concept, their means, and the base's; ``whole`` writes the headings in full, for a page."""
    rows: list[tuple[str, str, Mapping[str, Any]]] = [
        (concept.name, str(concept.learned), {
            "ia": concept.final.ia, "forgetting": concept.forgetting, "retention": concept.retention,
            "confusion": concept.final.confusion, "ta": concept.final.ta, "clip_score": concept.final.clip_score,
        })
        for concept in evaluation.concepts
    ]  # fmt: skip
    rows += [("mean", "", evaluation.means()), (BASE, "", evaluation.base_means())]
    heads = figure_heads(FIGURES, evaluation.judges, whole=whole)
    texts = [title if whole else word for word, title, _ in TEXT_FIGURES.values()]
    body = [
        (
            name,
            learned,
            *figure_cells(FIGURES, found, evaluation.judges),
            *(number(found[one]) for one in TEXT_FIGURES),
        )
        for name, learned, found in rows
    ]
    return Table(("Concept" if whole else "CONCEPT", "#", *heads, *texts), body)


def figure_heads(figures: Figures, judges: Iterable[str], *, whole: bool) -> list[str]:
    """Headings of figures that each judge gives, in full or for a terminal."""
    names = [SHORT[judge] for judge in judges]
    if whole:
        return [f"{title} {name}" for _, title, _ in figures.values() for name in names]
    # The figure's name over its first column only: the table has to fit a terminal.
    first, *others = names
    return [head for word, _, _ in figures.values() for head in (f"{word} {first}", *others)]


def figure_cells(figures: Figures, found: Mapping[str, Any], judges: Iterable[str]) -> list[str]:
    """What each judge says; nothing where a figure is not found."""
    return [number(found.get(name, {}).get(judge), name) for name in figures for judge in judges]


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
        subjects: where the page takes the reference images from.
    """
    plots = {"heatmap": heatmap, "forgetting": curves, "confusion": confusion}
    files = {name: _rendered(plot, evaluation) for name, plot in plots.items()}
    paths = {name: folder / f"{name}.png" for name in plots}
    for name, content in files.items():
        write_whole(paths[name], content)
    paths["results"] = folder / "results.json"
    write_json(paths["results"], evaluation.to_json())
    paths["report"] = folder / "report.html"
    ground = dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), DARK)
    dark = {name: _rendered(plot, evaluation, "dark_background", ground) for name, plot in plots.items()}
    images = {name: [Image.open(io.BytesIO(one[name])) for one in (files, dark)] for name in plots}
    shown = [Plot(*PLOTS[name], *images[name]) for name in plots]
    write_whole(paths["report"], _page(evaluation, pictures, subjects, shown).encode())
    return paths


PLOTS = {
    "heatmap": (
        "Image alignment of each concept, after each task",
        "Mean cosine of samples and reference images, from 0 to 1. Higher is better. A column that stays as it is from "
        "its concept's task on was not forgotten.",
    ),
    "forgetting": (
        "Image alignment over the tasks",
        "The same as curves. Dotted: what the base draws of the class noun. A curve that falls to its dotted line is "
        "forgotten.",
    ),
    "confusion": (
        "Which concept samples are taken for",
        "Share of each concept's final samples (rows) that are closest to each concept's reference images (columns). "
        "On the diagonal higher is better, elsewhere lower.",
    ),
}
"""Titles on the page, and how to read each."""


def heatmap(evaluation: Evaluation) -> Figure:
    """IA of every concept (columns): the base's, and after every task (rows); a panel for each judge."""
    names = [BASE, *_state_names(evaluation)]
    figure, panels = _panels(evaluation, len(names))
    for axes, judge in zip(panels, evaluation.judges, strict=True):
        values = np.array(
            [[c.base.ia[judge] for c in evaluation.concepts], *evaluation.matrix(judge)], dtype=float
        )
        image = _grid(axes, values, [c.name for c in evaluation.concepts], names, "{:.2f}")
        axes.set_title(f"image alignment, {SHORT[judge]}", loc="left")
        axes.set_ylabel("after learning")
    figure.colorbar(image, ax=panels, location="bottom", aspect=40, label="cosine: higher is better")
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
        axes.set_title(f"image alignment, {SHORT[judge]}", loc="left")
        axes.set_xlabel("after learning")
        axes.set_ylabel("cosine: higher is better")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """Share of each concept's final samples (rows) that are nearest to each concept's references (columns)."""
    figure, panels = _panels(evaluation, len(evaluation.concepts))
    for axes, judge in zip(panels, evaluation.judges, strict=True):
        values = np.array(evaluation.confusion(judge), dtype=float)
        image = _grid(
            axes, values / values.sum(1, keepdims=True), list(evaluation.rivals),
            [c.name for c in evaluation.concepts], "{:.0%}",
        )  # fmt: skip
        axes.set_title(f"taken for, {SHORT[judge]}", loc="left")
        axes.set_ylabel("drawn")
    figure.colorbar(
        image,
        ax=panels,
        location="bottom",
        aspect=40,
        label="share of samples",
        format=lambda share, _: f"{share:.0%}",
    )
    return figure


def _panels(evaluation: Evaluation, height: int) -> tuple[Figure, list[Axes]]:
    # Imported here: nothing else needs it, and it takes a while. No pyplot: it keeps figures and picks a display.
    from matplotlib.figure import Figure

    count = len(evaluation.judges)
    # Names stand beside the axes and, aslant, under them.
    longest = 0.2 * max(0, max(map(len, evaluation.rivals)) - 12)
    wide = min(max(4.4, 0.6 * len(evaluation.rivals) + 2.4) + longest, LARGEST)
    high = min(max(2.8, 0.45 * height + 1.6 + longest / 2) * count + 0.5, LARGEST)
    figure = Figure(figsize=(wide, high), layout="constrained")
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def _grid(axes: Axes, values: np.ndarray, columns: list[str], names: list[str], form: str) -> AxesImage:
    image = axes.imshow(values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and values.size <= 400:
            axes.text(
                column, row, form.format(value), ha="center", va="center", fontsize="x-small",
                color="black" if value > 0.6 else "white",
            )  # fmt: skip
    return image


def _state_names(evaluation: Evaluation) -> list[str]:
    return [f"{state} {name}".strip() for state, name in evaluation.states]


def _rendered(plot: Callable[[Evaluation], Figure], evaluation: Evaluation, *styles: Any) -> bytes:
    from matplotlib import style

    stream = io.BytesIO()
    with warnings.catch_warnings(), style.context([*styles]):
        # Concepts may be named in any script, and the font that comes along does not know them all.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        plot(evaluation).savefig(stream, format="png", dpi=DOTS, metadata={"Software": "cidm"})
    return stream.getvalue()


def judged_by(judges: Mapping[str, str]) -> str:
    """The judges, by name, each with where it comes from."""
    return "Judges: " + ", ".join(f"{SHORT[judge]} ({source})" for judge, source in judges.items()) + "."


def _page(evaluation: Evaluation, pictures: Path, subjects: Sequence[Subject], plots: Sequence[Plot]) -> str:
    by_key = {subject.record.key: subject for subject in subjects}
    samples_each = evaluation.concepts[0].final.samples
    opening = [
        f"Method: {evaluation.method}. Samples: {samples_each} of <{evaluation.concepts[0].name}>.",
        judged_by(evaluation.judges),
        *(f"{name} was not judged: {why}." for name, why in evaluation.skipped),
    ]
    strips = [
        strip for concept in evaluation.concepts for strip in _strips(concept, by_key[concept.key], pictures)
    ]
    count = len(evaluation.concepts)
    return page(
        f"Evaluation of {count} {'concept' if count == 1 else 'concepts'}", opening, strips, [],
        tables=[table(evaluation, whole=True)], plots=plots,
        terms={title: text for _, title, text in (*FIGURES.values(), *TEXT_FIGURES.values())},
    )  # fmt: skip


def _strips(concept: ConceptScores, subject: Subject, folder: Path) -> list[Strip]:
    first, last = min(concept.states), max(concept.states)
    texts = subject.texts[:SHOWN]

    def drawn(shown: Sequence[str]) -> list[tuple[Image.Image, str]]:
        files = [samples.read(folder, Path(name).stem) for name in shown[:SHOWN]]
        return list(zip(files, texts, strict=True))

    references = [(e.image, e.path.name) for e in subject.references().examples[:SHOWN]]
    what = f"<{concept.name}>"
    strips = [
        Strip(f"{what}: reference images", "Samples are compared with these.", references),
        Strip(
            f"{what}: {BASE}", f'What the base draws of "{concept.class_noun}".', drawn(concept.base.shown)
        ),
        Strip(f"{what}: just learned", f"After task {first}.", drawn(concept.states[first].shown)),
    ]
    if last != first:
        strips.append(Strip(f"{what}: at the end", f"After task {last}.", drawn(concept.final.shown)))
    return strips
