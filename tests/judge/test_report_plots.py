"""The plots of an evaluation: whatever concepts are called, all of it is to be read, and colours mean the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cidm_cli.judge.report import Cell, ConceptScores, Evaluation
from cidm_cli.judge.report_files import BASE, confusion, curves, heatmap, table

JUDGES = ("clip", "dino")


def cell(ia: float, row: list[int]) -> Cell:
    return Cell(
        samples=sum(row), ia=dict.fromkeys(JUDGES, ia), ia_error=dict.fromkeys(JUDGES, 0.0), ta=0.25,
        clip_score=0.625, confusion=dict.fromkeys(JUDGES, 0.5), nearest=dict.fromkeys(JUDGES, row), shown=(),
    )  # fmt: skip


def evaluation(*names: str) -> Evaluation:
    concepts = tuple(
        ConceptScores(
            name=name, key=name, class_noun="dog", style=False, blob="", learned=number, prompts=1, references=1,
            states={state: cell(0.7 + number / 100, [3, *[1] * (len(names) - 1)]) for state in range(number, 3)},
            base=cell(0.5, [1] * len(names)), single=cell(0.8, [1] * len(names)),
            forgetting=dict.fromkeys(JUDGES, 0.0), retention=dict.fromkeys(JUDGES, None),
        )
        for number, name in enumerate(names, 1)
    )  # fmt: skip
    return Evaluation(
        base="", method="auto", draw={}, judges=dict.fromkeys(JUDGES, "here"),
        states=tuple(enumerate(names, 1)), rivals=names, concepts=concepts, skipped=(),
    )  # fmt: skip


@pytest.mark.parametrize("plot", [heatmap, curves, confusion])
@pytest.mark.parametrize("names", [("dog", "cat"), ("a_rather_long_name_of_a_concept", "cat")])
def test_nothing_that_is_written_is_cut_off(
    plot: Callable[[Evaluation], Figure], names: tuple[str, str]
) -> None:
    figure = plot(evaluation(*names))
    figure.draw_without_rendering()
    whole = figure.bbox
    for text in figure.findobj(Text):
        # Numbers of ticks that lie outside the axes are not drawn.
        if text.get_text().strip("0123456789.") and text.get_visible():
            box = text.get_window_extent()
            assert whole.x0 <= box.x0, text
            assert box.x1 <= whole.x1, text
            assert whole.y0 <= box.y0, text
            assert box.y1 <= whole.y1, text


def test_one_colour_means_the_same_in_every_heat_map_and_each_has_its_legend() -> None:
    for plot in (heatmap, confusion):
        *maps, legend = plot(evaluation("dog", "cat")).axes
        assert [axes.images[0].get_clim() for axes in maps] == [(0, 1)] * len(JUDGES)
        assert {axes.images[0].get_cmap().name for axes in maps} == {"viridis"}
        assert legend.get_xlabel()


def test_the_base_has_a_row_of_its_own() -> None:
    found = evaluation("dog", "cat")
    panel = heatmap(found).axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == [BASE, "1 dog", "2 cat"]
    assert panel.images[0].get_array()[0].tolist() == [0.5, 0.5]
    assert table(found).rows[-1] == (BASE, "", "0.500", "0.500", *["-"] * 6, "0.250", "0.625")
