"""The documentation speaks of what is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from cidm_cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert all((page.parent / link).exists() for link in local), local


def test_every_equation_names_a_function_and_a_test_that_exist() -> None:
    rows = re.findall(
        r"`(cidm_cli/\S+)\.py: (\w+)` \| `(tests/\S+)`", (ROOT / "docs" / "equations.md").read_text()
    )
    assert len(rows) >= 7
    for module, function, test in rows:
        assert callable(getattr(importlib.import_module(module.replace("/", ".")), function))
        assert (ROOT / test).is_file(), test


def test_each_equation_of_the_paper_has_one_function() -> None:
    method = (ROOT / "cidm_cli" / "method").glob("*.py")
    found = re.findall(r'"""(Eq\. \d+) —', "\n".join(file.read_text() for file in method))
    assert "Eq. 1" in found
    assert len(found) == len(set(found))


def test_the_list_of_commands_is_complete() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    table = page[page.index("| command |") : page.index("## Output")]
    assert all(re.search(rf"`(?:cidm )?{name}\b", table) for name, _ in COMMANDS)
