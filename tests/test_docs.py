"""The documentation speaks of what is there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import tiny
from cidm_cli.data import load_examples, marked
from cidm_cli.data.nouns import in_folder
from cidm_cli.errors import CidmError
from cidm_cli.shell.app import COMMANDS, app
from cidm_cli.shell.page import EXAMPLES
from tools import options_page

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


def test_the_page_of_options_is_what_the_declarations_say() -> None:
    said = (ROOT / "docs" / "options.md").read_text()
    assert said == options_page.page(), "write it again: python -m tools.options_page"


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_every_command_has_an_example_that_it_takes(name: str) -> None:
    example = shlex.split(EXAMPLES[name])
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    assert example[: 1 + len(name.split())] == ["cidm", *name.split()]
    command.make_context(name, example[1 + len(name.split()) :])


def spoken(page: Path, program: str) -> list[str]:
    """What follows a program's name in the page's shell blocks, without comments, one for each call."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [
        re.sub(r"(^|\s)#.*", "", line) for block in blocks for line in block.replace("\\\n", " ").splitlines()
    ]
    calls = [call for line in lines for call in re.split(r"[;|&()]", line)]
    # It is called where it comes first, but for a loop's `do` and variables set for the call.
    opening = rf"\s*(?:do\s+|\w+=\S+\s+)*{re.escape(program)}[ .](.+)"
    return [found[1].strip() for call in calls if (found := re.match(opening, call))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_takes_the_options_it_is_shown_with(page: Path) -> None:
    for call in spoken(page, "cidm"):
        command, rest = typer.main.get_command(app), call.split()
        while rest and (inner := getattr(command, "commands", {}).get(rest[0])):
            command, rest = inner, rest[1:]
        assert not hasattr(command, "commands"), f"cidm {call}: no such command"
        known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        said = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert said <= known | {"--help"}, f"cidm {call}: {said - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_benchmark_shown_is_there_with_its_options(page: Path) -> None:
    shared = (ROOT / "benchmarks" / "lab.py").read_text()
    for call in spoken(page, "python -m benchmarks"):
        name, *rest = call.split()
        source = (ROOT / "benchmarks" / f"{name}.py").read_text() + shared
        for word in rest:
            assert not word.startswith("--") or f'"{word}"' in source, f"benchmarks.{call}: no {word}"


def test_the_check_of_commands_finds_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nexport A=1  # cidm none\nx; cidm learn dog ./a --stepps 3  # text\ncidm list $(cidm path -q)\n```\n"
    )
    assert spoken(page, "cidm") == ["learn dog ./a --stepps 3", "list $", "path -q"]
    with pytest.raises(AssertionError, match="--stepps"):
        test_every_command_shown_takes_the_options_it_is_shown_with(page)


def test_folders_and_captions_of_kohyas_kind_are_read_as_coming_from_says(tmp_path: Path) -> None:
    inner = tmp_path / "train" / "10_sks dog"
    tiny.save_pictures(inner, ("sks dog on a sofa", "a dog"))
    (inner / "1.txt").rename(inner / "1.caption")
    read = load_examples(inner.parent, class_noun="dog")
    assert read.digest == load_examples(inner, class_noun="dog").digest
    assert in_folder(inner.name) == "dog"
    assert {example.caption for example in read.examples} == {"sks dog on a sofa", "a photo of a dog"}
    assert any("1.caption" in warning for warning in read.warnings)
    (inner.parent / "5_tom cat").mkdir()
    with pytest.raises(CidmError, match="no image itself"):
        load_examples(inner.parent, class_noun="dog")
    assert marked("sks dog on a sofa", "rex", "dog").prompt == "<rex> on a sofa"
    assert marked("1girl, long hair", "rex", "girl").prompt == "<rex>, 1girl, long hair"
    assert marked("1girl, long hair", "rex", "1girl").prompt == "<rex>, long hair"
