"""Flags that come from an options dataclass: one place says what there is, what it does and what it is by default."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.options.draw import DrawOptions
from cidm_cli.options.flags import chosen, documented, plain_type
from cidm_cli.options.judge import EvalOptions
from cidm_cli.options.learn import LearnOptions
from cidm_cli.options.merge import MergeOptions
from cidm_cli.options.over import EditOptions, StylizeOptions
from cidm_cli.options.settings import SETTINGS, load_settings, variable_for
from cidm_registry import Registry
from command import Cidm

COMMANDS = (
    ("learn", LearnOptions),
    ("generate", DrawOptions),
    ("merge", MergeOptions),
    ("eval", EvalOptions),
    ("stylize", StylizeOptions),
    ("edit", EditOptions),
)
TABLES = (("draw", DrawOptions), *((command, cls) for command, cls in COMMANDS if command != "generate"))


@dataclass(frozen=True)
class Example:
    """With lines under most of its fields."""

    steps: int | None = None
    """How many."""
    name: str = field(default="", metadata={"short": "-x"})
    """What it is called,
    over two lines."""
    bare: int = 1


def test_documented_reads_the_line_under_each_field() -> None:
    assert documented(Example) == {"steps": "How many.", "name": "What it is called,\n    over two lines."}


@pytest.mark.parametrize("cls", [cls for _, cls in COMMANDS])
def test_every_option_is_documented(cls: type) -> None:
    lines = documented(cls)
    assert set(lines) == {option.name for option in fields(cls)}
    assert all(line.endswith(".") and "\n" not in line for line in lines.values())


@pytest.mark.parametrize(("command", "cls"), COMMANDS)
def test_help_shows_every_option_with_its_line_and_default(command: str, cls: type, cidm: Cidm) -> None:
    ran = cidm(command, "--help")
    assert ran.code == 0
    shown = " ".join(ran.out.split())
    for option in fields(cls):
        flag = "--" + option.name.replace("_", "-")
        assert re.search(rf"(?<!\S){flag}\b", shown), flag
        line = documented(cls)[option.name]
        if option.default not in (None, ""):
            default = str(option.default).replace("True", "on").replace("False", "off")
            line += f" [default: {default}]"
        assert line in shown, flag
    assert shown.count("--no-crop") == (command in ("learn", "edit"))


def test_a_short_flag_is_the_long_one(cidm: Cidm) -> None:
    assert "--count, -n" in " ".join(cidm("generate", "--help").out.split()).replace(
        "-n, --count", "--count, -n"
    )


@pytest.mark.parametrize(("table", "cls"), TABLES)
def test_every_option_can_be_set_in_files_and_in_the_environment(table: str, cls: type) -> None:
    for option in fields(cls):
        assert f"{table}.{option.name}" in SETTINGS
    assert variable_for(f"{table}.batch") == f"CIDM_{table.upper()}_BATCH"


def test_plain_type_is_what_a_flag_takes() -> None:
    assert [plain_type(hint) for hint in (int, int | None, float | None, bool, str, tuple[int, int] | None)] == [
        int, int, float, bool, str, str,
    ]  # fmt: skip


# Precedence, through a real command


def planned(cidm: Cidm, registry: Registry, pictures: Path, *flags: object) -> dict[str, Any]:
    ran = cidm("learn", "dog", pictures, "--registry", registry.root, "--dry-run", "--json", *flags)
    assert ran.code == 0, ran.err
    plan: dict[str, Any] = ran.answer["plan"]
    return plan


def test_flag_beats_environment_beats_file_beats_default(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(*flags: object) -> int:
        return int(planned(cidm, tiny_registry, pictures, *flags)["steps"])

    assert steps() == 800, "the base's own default"
    user = Path(cidm_user_folder())
    user.mkdir(parents=True)
    (user / "config.toml").write_text("[learn]\nsteps = 11\n")
    assert steps() == 11
    Path("cidm.toml").write_text("[learn]\nsteps = 22\n")
    assert steps() == 22
    monkeypatch.setenv("CIDM_LEARN_STEPS", "33")
    assert steps() == 33
    assert steps("--steps", 44) == 44
    monkeypatch.setenv("CIDM_LEARN_STEPS", "")
    assert steps() == 22, "an empty variable is none"


def cidm_user_folder() -> str:
    from platformdirs import user_config_dir

    return user_config_dir("cidm", appauthor=False)


def test_an_off_flag_beats_an_on_setting(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False and 0 are said, too: only what was not said is looked for elsewhere."""
    arguments = ("learn", "dog", pictures, "--registry", tiny_registry.root, "--steps", 1, "--json")
    Path("cidm.toml").write_text("[learn]\ncrop = true\nmirror = true\nseed = 9\nweight_decay = 0.5\n")
    ran = cidm(*arguments, "--no-crop", "--seed", 0, "--weight-decay", 0)
    options = ran.answer["concept"]["config"]["options"]
    assert (options["crop"], options["mirror"]) == (False, True)
    assert (options["seed"], options["weight_decay"]) == (0, 0.0)


def test_a_setting_for_learning_is_none_for_drawing(cidm: Cidm, tiny_registry: Registry) -> None:
    Path("cidm.toml").write_text('[learn]\nseed = 9\n[draw]\nsize = "32x64"\nsteps = 1\n')
    answer = cidm("generate", "-p", "a dog", "--registry", tiny_registry.root, "--json").answer
    options = answer["images"][0]["options"]
    assert (options["seed"], options["size"], options["steps"]) == (0, [32, 64], 1)


@pytest.mark.parametrize("value", ["many", "1.5", "1e3"])
def test_a_variable_of_the_wrong_type_is_refused_by_name(
    value: str, cidm: Cidm, tiny_registry: Registry, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIDM_LEARN_STEPS", value)
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root)
    assert ran.code == ExitCode.USAGE
    assert "CIDM_LEARN_STEPS" in ran.error


def test_a_misspelt_setting_is_refused_with_its_place_and_a_suggestion(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    Path("cidm.toml").write_text("[learn]\nrank = 2\nstesp = 3\n")
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root)
    assert ran.code == ExitCode.INVALID
    assert "cidm.toml:3" in ran.error
    assert "learn.steps" in ran.error


# Sizes


@pytest.mark.parametrize(("text", "size"), [("512x768", (512, 768)), ("64X32", (64, 32))])
def test_a_size_is_width_and_height(text: str, size: tuple[int, int], tmp_path: Path) -> None:
    settings = load_settings({}, tmp_path, tmp_path)
    assert chosen(DrawOptions, "draw", {"size": text}, settings) == {"size": size}


@pytest.mark.parametrize(
    "text", ["512", "x", "5x", "-8x8", "8x8x8", "8 x 8", "1" * 20 + "x8", "²x8", "infx8"]
)
def test_a_size_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    settings = load_settings({}, tmp_path, tmp_path)
    with pytest.raises(CidmError) as caught:
        chosen(DrawOptions, "draw", {"size": text}, settings)
    assert caught.value.code == ExitCode.USAGE
    assert text in caught.value.message
