"""The rows that every table has, and what is carried away, whole, on a very small base."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import judging
from benchmarks import figures
from benchmarks.carried import carried
from benchmarks.continual import DEFAULT, NAMED, ROWS, TOKENS, Pass, made
from benchmarks.lab import Lab, protocol
from benchmarks.pictures import apart
from cidm_cli.judge.tasks import load_tasks
from cidm_cli.models.identity import identify


@pytest.fixture
def lab(tiny_base: Path, tmp_path: Path) -> Lab:
    judges = (judging.save_clip(tmp_path / "clip", with_tokenizer=True), judging.save_vit(tmp_path / "vit"))
    return Lab(tmp_path / "work", identify(str(tiny_base)), "cpu", "fp32", *map(str, judges))


@pytest.fixture
def run(tmp_path: Path) -> Pass:
    given = Namespace(samples=1, prompts=2, draw_steps=2)
    tasks = load_tasks(judging.cifc(tmp_path / "cifc"))
    return Pass(tasks, {"steps": 2, "rank": 2}, protocol(given, 7), learned="0", judged="0")


def found_rows(lab: Lab, run: Pass, *names: str) -> dict[str, list[dict[str, Any]]]:
    return {row.name: [made(lab, row, run)] for row in ROWS if row.name in names}


def test_tokens_alone_are_neither_the_base_nor_the_concept_and_files_are_judged_beside_them(
    lab: Lab, run: Pass
) -> None:
    found = found_rows(lab, run, NAMED, TOKENS, DEFAULT)
    assert all(result["draw"]["method"] != "tokens" for each in found.values() for result in each)
    for way, method in (("exported", None), ("merged", "mean")):
        found[way] = [carried(lab, "shared-tokens", run, method, found[NAMED][0])]
    rows = figures.table(found, named=NAMED, tokens=TOKENS, default=DEFAULT)
    values = {name: row["ia"]["clip"]["value"] for name, row in rows.items()}
    assert len({round(values[name], 9) for name in ("base", NAMED, TOKENS)}) == 3
    assert set(rows) == {"base", NAMED, TOKENS, DEFAULT, "exported", "merged"}
    assert all("low" in row["ia"][judge] for row in rows.values() for judge in ("clip", "dino"))
    again = {name: carried(lab, "shared-tokens", run, None, {}) for name in ("exported",)}
    assert again["exported"] == found["exported"][0], "kept, and not made again"


def test_pictures_are_as_far_apart_as_they_are_different(lab: Lab) -> None:
    one, other = Image.new("RGB", (32, 32), (10, 20, 30)), Image.new("RGB", (32, 32), (20, 20, 20))
    assert apart(lab.judges, [one], [one]) == pytest.approx({"pixels": 0, "clip": 0, "dino": 0}, abs=1e-6)
    moved = apart(lab.judges, [one], [other])
    assert moved["pixels"] == pytest.approx(20 / 3)
    assert moved["clip"] > 0
