"""Layouts with something wrong in them are refused, with the line of what it is."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout import all_faults, load_layout

CASES: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[1] / "support" / "malformed.toml").read_text(encoding="utf-8")
)["case"]


def written(case: dict[str, Any]) -> str:
    return str(case["text"] + case.get("unit", "") * case.get("times", 0) + case.get("tail", ""))


def test_the_table_has_many_cases_and_none_twice() -> None:
    assert len(CASES) >= 100
    assert len({case["name"] for case in CASES}) == len({written(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_malformed_layout_is_refused_in_one_line_that_begins_with_its_place(case: dict[str, Any]) -> None:
    with pytest.raises(CidmError) as caught:
        load_layout("scene.toml", written(case))
    message = str(caught.value)
    assert caught.value.code == ExitCode.INVALID
    assert message.startswith(f"scene.toml:{case['line']}: " if case["line"] else "scene.toml: ")
    assert case["message"] in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_check_of_all_faults_tells_of_the_same_one(case: dict[str, Any]) -> None:
    text = written(case)
    with pytest.raises(CidmError) as caught:
        load_layout("scene.toml", text)
    found = all_faults("scene.toml", text)
    assert isinstance(found, list)
    assert str(found[0]) == str(caught.value)
