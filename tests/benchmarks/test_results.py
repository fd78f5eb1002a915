"""The page of results: made of parts, with every row's interval and the command that made it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results

TOLD = {
    "command": "python -m benchmarks.x",
    "learning_steps": 1,
    "prompts": 1,
    "samples": 1,
    "drawing_steps": 1,
}


def figure(value: float) -> dict[str, Any]:
    return {"clip": {"value": value, "low": value - 0.01, "high": value + 0.01}, "dino": {"value": value / 2}}


def row(value: float, **more: Any) -> dict[str, Any]:
    return {
        "ia": figure(value),
        "retention": {"clip": None},
        "ta": {"all": {"value": 0.2}},
        "forgetting": {},
        **more,
    }


def test_what_was_run_in_parts_is_put_together_and_nothing_is_overwritten(tmp_path: Path) -> None:
    parts: list[dict[str, Any]] = [
        {"protocol": {"seeds": [0, 1]}, "rows": {"cidm": row(0.6)}},
        {"protocol": {"seeds": [0]}, "rows": {"cidm": row(0.1), "ewc": row(0.5)}},
    ]
    files = [tmp_path / f"{number}.json" for number in range(2)]
    for file, part in zip(files, parts, strict=True):
        file.write_text(json.dumps(part))
    whole = results.together(files)
    assert whole["protocol"]["seeds"] == [0, 1]
    assert whole["rows"]["cidm"] == parts[0]["rows"]["cidm"]
    assert whole["rows"]["ewc"] == parts[1]["rows"]["ewc"]


def test_a_cell_has_its_interval_and_the_second_judge_in_brackets() -> None:
    assert results.cell(figure(0.6)) == "0.600 ± 0.010 (0.300)"
    assert results.cell({"clip": None}) == "–"
    lines = results.table({"base": row(0.1), "cidm": row(0.6, drift=figure(0.05))})
    assert lines[0] == "| | IA | TA | drift |", "no column without a figure"
    assert lines[2] == "| base | 0.100 ± 0.010 (0.050) | 0.200 | – |"


def test_every_table_names_its_command_and_the_data_keeps_rows_static_and_what_is_carried_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"base": row(0.1), "tokens only": row(0.4), "cidm": row(0.6)}
    part = {"default": True, "with": "cidm", "without": "tokens only", "brings": figure(0.2)}
    pair = {"time_ratio": 1.3} | {
        judge: {name: {"value": 0.7, "low": 0.6, "high": 0.8} for name, _ in results.MET}
        for judge in ("clip", "dino")
    }
    printed: dict[str, Any] = {
        "continual": {"protocol": TOLD, "rows": rows, "parts": {"R1": part}},
        "sweep": {"protocol": TOLD, "rows": rows, "chosen": {"ewc": "ewc, ewc_weight 3"}},
        "promises": {"protocol": TOLD, "promises": {"cidm": {"static": {"10": rows}}}},
        "apart": {"protocol": TOLD, "composed": {"two": {"lookalike": {"named": pair, "found": pair}}}},
        "carried": {"protocol": TOLD, "rows": rows},
    }
    said = ["results", "--out", str(tmp_path)]
    for name, content in printed.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        said += [f"--{name}", str(tmp_path / f"{name}.json")]
    monkeypatch.setattr(sys, "argv", said)
    results.main()
    known = json.loads((tmp_path / "results.json").read_text())
    assert known["rows"] == known["static"]["10"] == known["carried_away"] == rows
    assert set(known["protocol"]["sets"]) == {"tune", "judge"}
    page = (tmp_path / "results.md").read_text()
    assert page.count("| tokens only |") == 4
    assert page.count("`python -m benchmarks.x`") == 5
    assert known["composed"]["two"]["lookalike"]["found"] == pair
    (named,) = [line for line in page.splitlines() if line.startswith("| `named` |")]
    assert named.count("–") == 2, "it is not beside itself"
    assert "- R1 (on by default) brings 0.200 ± 0.010 (0.100) in IA." in page
    assert "| R1 | yes | 0.200 ± 0.010 (0.100) | cidm less tokens only |" in page
    assert "Chosen: ewc, ewc_weight 3." in page
