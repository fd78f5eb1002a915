"""The demo, with trainings of a few steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cidm_cli import bases
from cidm_cli.demo import CONCEPTS
from cidm_cli.shell.main import main
from cidm_registry import Registry


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"steps": 2, "batch": 2, "lr": 1e-3, "token_lr": 1e-3}
    mini = bases.family("mini")
    hasty = replace(mini, learn={**mini.learn, **quick}, draw={"steps": 2, "guidance": 3.0})
    monkeypatch.setitem(bases._known, "mini", hasty)


@pytest.mark.usefixtures("short")
def test_demo_learns_three_concepts_and_writes_a_report_that_needs_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    assert main(["demo", "--json", "-o", str(folder)]) == 0
    told = json.loads(capsys.readouterr().out)
    registry = Registry.open(folder / "registry")
    assert [record.name for record in registry.records()] == list(CONCEPTS) == told["demo"]["concepts"]
    assert told["demo"]["unchanged"] == told["demo"]["compared"] == 4
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3 * 15
    assert 'src="http' not in page
    assert 'href="' not in page
    with Image.open(folder / "sheet.png") as sheet:
        assert min(sheet.size) > 300
    assert main(["generate", str(folder / "side-by-side.toml"), "--registry", str(folder / "registry"), "-q",
                 "-o", str(tmp_path / "again.png")]) == 0  # fmt: skip
    with Image.open(tmp_path / "again.png") as picture:
        assert picture.size == (128, 64)
    assert main(["demo", "-q", "-o", str(folder)]) == 0, "a second demo replaces the first"


@pytest.mark.usefixtures("short")
def test_demo_refuses_a_folder_with_a_registry_of_the_users_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--registry", str(tmp_path / "registry")]) == 0
    before = (tmp_path / "registry" / "registry.json").read_bytes()
    assert main(["demo", "-o", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert (tmp_path / "registry" / "registry.json").read_bytes() == before
