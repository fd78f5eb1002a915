"""The tables of results: made of parts, and honest about where the default stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import results


def figure(*by_seed: float, sd: float = 0.01) -> dict[str, Any]:
    return {"mean": sum(by_seed) / len(by_seed), "sd": sd, "by_seed": list(by_seed)}


def row(ia: float, forgetting: float = 0.0, seeds: int = 3) -> dict[str, Any]:
    return {
        name: figure(*[forgetting if name.startswith("forgetting") else ia] * seeds)
        for name, _ in results.COLUMNS
    }


def test_what_was_run_in_parts_is_put_together_and_nothing_is_overwritten(tmp_path: Path) -> None:
    parts: list[dict[str, Any]] = [
        {"protocol": {"seeds": [0, 1]}, "rows": {"cidm": row(0.6)}},
        {"protocol": {"seeds": [0]}, "rows": {"cidm": row(0.1), "ewc": row(0.5, seeds=1)}},
    ]
    files = [tmp_path / f"{number}.json" for number in range(2)]
    for file, part in zip(files, parts, strict=True):
        file.write_text(json.dumps(part))
    whole = results.together(files)
    assert whole["protocol"]["seeds"] == [0, 1]
    assert whole["rows"]["cidm"] == parts[0]["rows"]["cidm"]
    assert whole["rows"]["ewc"] == parts[1]["rows"]["ewc"]


def test_a_baseline_is_behind_only_by_more_than_the_spread_and_less_forgetting_is_better() -> None:
    rows = {"cidm": row(0.6, 0.0), "ewc": row(0.595, 0.05), "lwf": row(0.7, 0.005), "finetune": row(0.3, 0.2)}
    by_figure = {line.split(" | ")[0]: line for line in results.standing(rows)}
    assert by_figure["| IA"] == "| IA | finetune | ewc | lwf |"
    assert by_figure["| forgetting"] == "| forgetting | finetune, ewc | lwf | – |"


def test_a_row_of_fewer_seeds_says_so() -> None:
    found = {
        "protocol": {"seeds": [0, 1, 2], "learning_steps": 1, "prompts": 1, "samples": 1, "drawing_steps": 1},
        "rows": {"cidm": row(0.6), "ewc": row(0.5, seeds=1)},
    }
    table = "\n".join(results.methods_table(found))
    assert "| ewc (1 seed) |" in table
    assert "| cidm |" in table
