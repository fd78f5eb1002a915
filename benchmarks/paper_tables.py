"""The tables of ``benchmarks/paper.py``: figures out of results, what the paper prints, and the page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cidm_cli.judge.tasks import Task

SOURCE = (
    "Dong et al., NeurIPS 2024, arXiv 2410.17594: means over V1 to V10 as printed there, not measured here"
)
PRINTED: Mapping[str, Mapping[str, tuple[float, float | None]]] = {
    "sd15": {
        "Finetuning": (73.7, 70.0),
        "EWC": (75.9, 72.7),
        "LwF": (74.1, 73.4),
        "LoRA-M": (74.6, None),
        "LoRA-C": (74.9, None),
        "C-LoRA": (76.9, 73.6),
        "L2DM": (76.1, 72.7),
        "CIDM": (78.0, 74.8),
        "CIDM without R1 and R2": (77.3, None),
    },
    "sdxl": {
        "Finetuning": (71.5, 75.3),
        "EWC": (77.6, 77.1),
        "LwF": (76.5, 77.7),
        "LoRA-M": (74.3, None),
        "LoRA-C": (74.5, None),
        "C-LoRA": (77.8, 77.8),
        "L2DM": (77.1, 78.7),
        "CIDM": (79.5, 80.0),
    },
}
"""(IA, TA) that the paper prints, by base and method; None where it prints no TA."""
COLUMNS = (("ia clip", "IA"), ("ta", "TA"), ("ia dino", "IA, DINO"), ("cosine", "TA, cosine"))
DIFFERENCES = """\
Known differences from the paper's own runs: one GPU with batch 1, where the paper had two; concepts are drawn at full
strength, where the published inference script takes 0.8; what the published code does beyond the paper (weight decay,
noise offset, attention regularisation) is left out; the published script draws the duck toy as "yellow rubber" and the
backpack as "red", here they are named alone."""

SHRUNK = "**This is less than the paper's protocol: its figures are no measure for these.**"
SAMPLES = 50
"""Pictures of each prompt in the paper."""


@dataclass(frozen=True)
class Line:
    """One line of the tables."""

    name: str
    """On the command line."""
    title: str
    row: str
    """Its name in continual.ROWS."""
    paper: str | None = None
    """What of PRINTED to compare it with."""


def printed(family: str) -> dict[str, dict[str, float | None]]:
    """The paper's figures for a family of bases; none for those it has not tried."""
    return {name: {"ia": ia, "ta": ta} for name, (ia, ta) in PRINTED.get(family, {}).items()}


def figures(results: Sequence[Mapping[str, Any]], tasks: Sequence[Task], *, way: str) -> dict[str, Any]:
    """Figures times 100, as the paper prints them: of each task, and means over all, objects and styles.

    Args:
        results: of each seed, as ``Evaluation.to_json`` has them.
        way: "final", "single" or "base": which drawings.
    """
    ids = {task.name: task.id for task in tasks}
    by_task = []
    for places in zip(*(result["concepts"] for result in results), strict=True):
        concept = places[0]
        cells = [_cell(place, way) for place in places]
        by_task.append(
            {"id": ids[concept["name"]], "name": concept["name"], "style": concept["style"],
             "by_seed": [_of(cell) for cell in cells]}
        )  # fmt: skip
    groups = {
        "all": by_task,
        "objects": [task for task in by_task if not task["style"]],
        "styles": [task for task in by_task if task["style"]],
    }
    return {"means": {name: _means(group) for name, group in groups.items() if group}, "tasks": by_task}


def _cell(concept: Mapping[str, Any], way: str) -> Mapping[str, Any]:
    return concept["states"][max(concept["states"], key=int)] if way == "final" else concept[way]


def _of(cell: Mapping[str, Any]) -> dict[str, float]:
    """TA is what the published code counts: 2.5 times the cosine, never below 0."""
    alignments = {f"ia {judge}": 100 * value for judge, value in cell["ia"].items()}
    return {**alignments, "ta": 100 * cell["clip_score"], "cosine": 100 * cell["ta"]}


def _means(group: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean over tasks for each seed, then mean and standard deviation over seeds."""
    out = {}
    for name in group[0]["by_seed"][0]:
        seeds = [
            statistics.fmean(values) for values in zip(*([s[name] for s in t["by_seed"]] for t in group), strict=True)
        ]  # fmt: skip
        out[name] = {
            "mean": statistics.fmean(seeds), "sd": statistics.stdev(seeds) if len(seeds) > 1 else None,
            "by_seed": seeds,
        }  # fmt: skip
    return out


def page(report: Mapping[str, Any]) -> str:
    """paper.md."""
    lines = [
        "# The paper's tables, run again", "",
        "Made by `benchmarks/paper.py`; all numbers are in `paper.json`. *IA*: mean cosine of pictures and reference",
        "pictures, by CLIP. *TA*: 2.5 · max(cosine, 0) of pictures and prompts, as the paper's published code counts",
        "it. Both times 100, after the last task.",
        "",
        f"Columns marked *paper*: {report['source']}.",
        "",
        DIFFERENCES,
        "",
        f"Settings: {_settings(report['protocol'])}.",
        *(["", SHRUNK] if _is_shrunk(report["protocol"]) else []),
    ]  # fmt: skip
    for base, found in report["bases"].items():
        lines += ["", f"## {base}", "", f"{found['source']}, judged by {_judges(found['judges'])}.", ""]
        lines += [*_averages(found), "", *_split(found)]
        for figure, title in (("ia clip", "IA"), ("ta", "TA")):
            lines += ["", *_by_task(found, figure, title)]
    return "\n".join(lines) + "\n"


def _averages(found: Mapping[str, Any]) -> list[str]:
    rows, shown = found["rows"], _columns(found)
    lines = _head("method", [*(title for _, title in shown), "paper: IA", "paper: TA"])
    for row in rows.values():
        own = [_both(row["means"]["all"][name]) for name, _ in shown]
        lines.append(_line(row["title"], [*own, *_paper(row["paper"])]))
    if "L2DM" in found["printed"]:
        nothing = ["–"] * len(shown)
        lines.append(
            _line("L2DM (not run: its code is not public)", [*nothing, *_paper(found["printed"]["L2DM"])])
        )
    return lines


def _split(found: Mapping[str, Any]) -> list[str]:
    lines = _head("mean over", ["objects: IA", "objects: TA", "styles: IA", "styles: TA"])
    for row in found["rows"].values():
        groups = [row["means"].get(name) for name in ("objects", "styles")]
        lines.append(
            _line(row["title"], [_both(g[n]) if g else "–" for g in groups for n in ("ia clip", "ta")])
        )
    return lines


def _by_task(found: Mapping[str, Any], figure: str, title: str) -> list[str]:
    rows = list(found["rows"].values())
    lines = _head(f"{title} of", [f"{task['id']} {task['name']}" for task in rows[0]["tasks"]])
    for row in rows:
        means = [statistics.fmean(seed[figure] for seed in task["by_seed"]) for task in row["tasks"]]
        lines.append(_line(row["title"], [f"{mean:.1f}" for mean in means]))
    return lines


def _columns(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    there = next(iter(found["rows"].values()))["means"]["all"]
    return [column for column in COLUMNS if column[0] in there]


def _head(first: str, titles: Sequence[str]) -> list[str]:
    return [_line(first, titles), "|---" * (len(titles) + 1) + "|"]


def _line(first: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join([first, *cells])} |"


def _both(value: Mapping[str, Any]) -> str:
    return f"{value['mean']:.1f}" + (f" ± {value['sd']:.1f}" if value["sd"] is not None else "")


def _paper(value: Mapping[str, float | None] | None) -> list[str]:
    return ["–" if value is None or value[name] is None else f"{value[name]:.1f}" for name in ("ia", "ta")]


def _is_shrunk(told: Mapping[str, Any]) -> bool:
    """Whether less was asked for than the paper did."""
    return told["samples"] < SAMPLES or any(
        told[name] for name in ("tasks", "prompts", "steps", "draw_steps")
    )


def _settings(told: Mapping[str, Any]) -> str:
    said = {name: value for name, value in told.items() if value is not None}
    return ", ".join(f"{name.replace('_', '-')} {_plain(value)}" for name, value in said.items())


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(one) for one in value)
    return f'"{value}"' if isinstance(value, str) else str(value)


def _judges(told: Mapping[str, str | None]) -> str:
    return " and ".join(str(source) for source in told.values() if source)
