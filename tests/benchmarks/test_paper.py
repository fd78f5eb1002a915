"""The command that runs the paper's tables again, whole, on very small bases: what it writes, and that it goes on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import judging
import tiny
from benchmarks import continual, lab, paper
from benchmarks.cifc import PROMPTS, TASKS, tasks_of
from benchmarks.paper_tables import PRINTED
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn import run as training
from cidm_cli.models import opening
from learning import files_of

Report = dict[str, Any]
Run = Callable[..., Report]


def runner(
    tmp_path: Path, bases: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    data, work = judging.cifc(tmp_path / "cifc"), tmp_path / "work"
    clip = judging.save_clip(tmp_path / "clip", with_tokenizer=True)
    vit = judging.save_vit(tmp_path / "vit")

    def run(*more: object) -> Report:
        said: tuple[object, ...] = (
            "paper", "--data", data, "--work", work, "--bases", *bases, "--judges", clip, vit, "--steps", 2,
            "--draw-steps", 2, "--samples", 2, "--negative", "", "--device", "cpu", "--precision", "fp32", *more,
        )  # fmt: skip
        monkeypatch.setattr(sys, "argv", [str(word) for word in said])
        paper.main()
        report: Report = json.loads(capsys.readouterr().out)
        assert report == json.loads((work / "paper.json").read_text())
        return report

    return run


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("what is there is made again")


def test_both_bases_are_learned_judged_and_tabled_beside_the_papers_figures_and_a_second_run_redoes_nothing(
    tiny_base: Path,
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = runner(tmp_path, [tiny_base, tiny_sdxl], monkeypatch, capsys)
    report = run("--methods", "finetune", "cidm")
    assert [(found["family"], list(found["rows"])) for found in report["bases"].values()] == [
        (family, ["base", "single", "finetune", "cidm"]) for family in ("sd15", "sdxl")
    ]
    for found in report["bases"].values():
        rows = found["rows"]
        for row in rows.values():
            assert [(task["id"], task["style"]) for task in row["tasks"]] == [("V1", False), ("V2", True)]
            each = [task["by_seed"][0] for task in row["tasks"]]
            for name in ("ia clip", "ia dino", "ta"):
                assert row["means"]["all"][name]["mean"] == pytest.approx(sum(e[name] for e in each) / 2)
                assert row["means"]["styles"][name]["mean"] == each[1][name]
        printed = PRINTED[found["family"]]
        assert tuple(rows["cidm"]["paper"].values()) == printed["CIDM"]
        assert tuple(rows["finetune"]["paper"].values()) == printed["Finetuning"]
        assert rows["single"]["paper"] is None
        # The first concept is drawn by what the second left of it.
        first = [rows[name]["tasks"][0]["by_seed"] for name in ("base", "single", "finetune", "cidm")]
        assert all(first[0] != other for other in first[1:])
        assert first[2] != first[3]
    page = (tmp_path / "work" / "paper.md").read_text()
    assert page.count("\n## ") == 2
    for line in ("Finetuning", "CIDM (this program's reading)", "L2DM (not run: its code is not public)"):
        assert page.count(f"\n| {line} | ") == (2 if line.startswith("L2DM") else 8)
    assert "less than the paper's protocol" in page
    assert "| 78.0 | 74.8 |" in page
    assert "| 79.5 | 80.0 |" in page

    before = files_of(tmp_path / "work")
    for module, name in ((opening, "open_base"), (lab, "open_judges"), (training, "learn")):
        monkeypatch.setattr(module, name, forbidden)
    assert run("--methods", "finetune", "cidm") == report
    assert files_of(tmp_path / "work") == before


def test_a_method_a_task_or_a_seed_more_makes_only_what_is_missing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(tmp_path, [tiny_base], monkeypatch, capsys)
    learned: list[str] = []
    learn = training.learn

    def counted(registry: Any, base: Any, task: Any, *rest: Any) -> Any:
        learned.append(f"{registry.root.name} {task.name}")
        return learn(registry, base, task, *rest)

    monkeypatch.setattr(training, "learn", counted)
    run("--methods", "lora-m", "--tasks", 1)
    assert learned == ["plain-2-0 rex"]
    run("--methods", "lora-m", "lora-c", "paper")
    assert learned[1:] == ["plain-2-0 ink", "literal-2-0 rex", "literal-2-0 ink"]
    again = run("--methods", "lora-m", "--tasks", 1)
    assert len(learned) == 4
    (found,) = again["bases"].values()
    assert [len(row["tasks"]) for row in found["rows"].values()] == [1, 1, 1]
    two = run("--methods", "lora-m", "--tasks", 1, "--seeds", 0, 1)
    assert learned[4:] == ["plain-2-1 rex"]
    (found,) = two["bases"].values()
    value = found["rows"]["lora-m"]["means"]["all"]["ia clip"]
    assert value["mean"] == pytest.approx(sum(value["by_seed"]) / 2)
    assert value["sd"] > 0


def test_other_pictures_than_those_learned_from_are_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(tmp_path, [tiny_base], monkeypatch, capsys)
    run("--methods", "lora-m", "--tasks", 1)
    shutil.rmtree(tmp_path / "cifc" / "concepts" / "rex")
    tiny.save_pictures(tmp_path / "cifc" / "concepts" / "rex", seed=9)
    with pytest.raises(CidmError, match="rex was learned with the pictures or captions unlike"):
        run("--methods", "lora-m", "--tasks", 1)


def test_a_stopped_training_goes_on_from_its_checkpoint(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(tmp_path, [tiny_base], monkeypatch, capsys)
    learn, steps = training.learn, []

    def watched(registry: Any, base: Any, task: Any, _events: Any, *rest: Any) -> Any:
        def stop() -> bool:
            return len(steps) == 1

        told = training.Events(on_step=lambda step, loss: steps.append(step), stop=stop)
        return learn(registry, base, task, told, *rest)

    monkeypatch.setattr(training, "learn", watched)
    with pytest.raises(SystemExit) as ended:
        lab.ending(lambda: run("--methods", "lora-m", "--tasks", 1))  # type: ignore[arg-type,return-value]
    assert ended.value.code == ExitCode.INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err
    run("--methods", "lora-m", "--tasks", 1)
    assert steps == [1, 2]


def test_every_line_is_a_row_there_is_and_every_printed_figure_has_a_line() -> None:
    assert {line.row for line in paper.LINES} <= {row.name for row in continual.ROWS}
    wanted = {line.paper for line in paper.LINES} - {None}
    assert {name for family in PRINTED.values() for name in family} == wanted | {"L2DM"}


def test_a_clone_of_the_papers_repository_is_laid_out_as_tasks(tmp_path: Path) -> None:
    clone = tmp_path / "CIFC"
    for number, (name, noun, _) in enumerate(TASKS):
        tiny.save_pictures(clone / "datasets" / "images" / name, (f"{noun} on a rock",), seed=number)
        captions = clone / "datasets" / "caption" / name
        captions.mkdir(parents=True)
        (clone / "datasets" / "images" / name / "0.txt").rename(captions / "0.txt")
    (clone / "datasets" / "evaluation_prompts").mkdir()
    for file in PROMPTS.values():
        (clone / "datasets" / "evaluation_prompts" / file).write_text("A <TOK> on a chair\n")
    tasks = tasks_of(clone, tmp_path / "laid")
    assert [(task.id, task.name, task.class_noun) for task in tasks] == [
        (f"V{number}", name, noun) for number, (name, noun, _) in enumerate(TASKS, 1)
    ]
    assert [task.name for task in tasks if task.style] == ["painting", "drawing", "ink_painting"]
    assert (tasks[1].images / "0.txt").read_text() == "duck toy on a rock\n"
    assert tasks_of(tmp_path / "laid", tmp_path / "elsewhere") == tasks
