"""Options declared once: flags, settings, bounds, help and defaults all come from the declaration."""

from __future__ import annotations

import math
import re
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Lt

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.options.declared import (
    BASELINES,
    Asked,
    Group,
    Held,
    Only,
    Short,
    check_said,
    declared,
    documented,
    settled,
    spelled,
)
from cidm_cli.options.draw import DrawOptions, resolve_draw
from cidm_cli.options.flags import chosen
from cidm_cli.options.learn import WatchOptions, resolve_learn
from cidm_cli.options.settings import SETTINGS, TABLES, load_settings, variable_for
from cidm_registry import Registry
from command import Cidm

TAKING = {table: table or "generate" for table in TABLES} | {"draw": "generate"}
"""By table, a command that takes its options."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    """What another holds."""

    steps: Annotated[int, Ge(1), Group("Inside")]
    """How many."""
    seed: int = 0
    """Where it begins."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """With lines under most of its fields."""

    name: Annotated[str, Group("Outside"), Short("-x")] = ""
    """What it is called,
    over two lines."""
    bare: int = 1
    way: Literal["a", "b", "c"] = "a"
    """Which way."""
    share: Annotated[float, Gt(0), Lt(1)] | None = None
    """How much."""
    only_b: Annotated[int, Only("way", "b"), Only("bare")] = 2
    """How often."""
    inner: Annotated[Asked, Held(Inner, without=("seed",), lines={"steps": "How many inside."})] = field(
        default_factory=dict
    )
    """Asked of the other."""


def test_documented_reads_the_line_under_each_field() -> None:
    assert documented(Inner) == {"steps": "How many.", "seed": "Where it begins."}
    assert documented(Example)["name"] == "What it is called,\n    over two lines."
    assert "bare" not in documented(Example)


def test_an_option_is_read_from_its_declaration_alone() -> None:
    """Type, bounds, choices, group, default: none of them is written down a second time."""
    options = declared(Example)
    assert [*options] == ["name", "bare", "way", "share", "only_b", "steps"]
    assert [one.kind for one in options.values()] == [str, int, str, float, int, int]
    assert [one.group for one in options.values()] == ["Outside"] * 5 + ["Inside"]
    assert [one.rule for one in options.values()] == [
        "",
        "",
        "a, b or c",
        "above 0 and below 1",
        "",
        "at least 1",
    ]
    assert [one.usual for one in options.values()] == ["", "1", "a", "", "2", "the base's own"]
    assert options["way"].choices == ("a", "b", "c")
    assert (options["steps"].line, options["steps"].inside) == ("How many inside.", "inner")


def test_what_was_asked_is_settled_with_nothing_open() -> None:
    assert settled(Inner, {"seed": None}, {"steps": 5}) == Inner(steps=5, seed=0), (
        "None leaves a default as it is"
    )
    assert settled(Inner, {"steps": 3}, {"steps": 5}).steps == 3
    with pytest.raises(TypeError):
        settled(Inner, {})
    assert settled(Example, {"steps": 3, "share": 0.5}) == Example(share=0.5, inner={"steps": 3})
    assert spelled(Inner, {"seed": 4}) == {"steps": None, "seed": 4}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"steps": 0}, "--steps 0: must be at least 1"),
        ({"steps": "many"}, "--steps many: must be a whole number"),
        ({"way": "d"}, "--way d: must be a, b or c"),
        ({"share": math.nan}, "--share nan: must be above 0 and below 1"),
        ({"share": 1.0}, "--share 1.0: must be above 0 and below 1"),
        ({"only_b": True}, "--only-b True: must be a whole number"),
        ({"shar": 1.0}, "--shar: there is no such option"),
        ({"seed": 1}, "--seed: there is no such option"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_flag(said: dict[str, Any], message: str) -> None:
    with pytest.raises(CidmError) as caught:
        settled(Example, said)
    assert caught.value.message == message
    assert caught.value.code == ExitCode.USAGE


def test_from_a_program_paths_may_be_text_and_texts_a_tuple_but_no_single_text() -> None:
    given = {"preview": ("a <dog>", "a <dog> at night"), "preview_to": "looks"}
    assert settled(WatchOptions, given) == WatchOptions(preview=[*given["preview"]], preview_to=Path("looks"))
    with pytest.raises(CidmError, match="--preview a <dog>: must be a list of texts"):
        settled(WatchOptions, {"preview": "a <dog>"})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "--only-b: belongs to --way b, and this is a"),
        ({"way": "b", "bare": 0}, "belongs to --bare, which is 0"),
    ],
)
def test_an_option_that_means_nothing_is_refused_where_it_was_said(
    changed: dict[str, Any], words: str
) -> None:
    options = Example(**changed)
    check_said((), options)
    with pytest.raises(CidmError, match=words) as caught:
        check_said(("only_b",), options)
    assert caught.value.code == ExitCode.USAGE
    check_said(("only_b",), Example(way="b"))


@pytest.mark.parametrize("cls", TABLES.values())
def test_every_option_is_documented_and_its_default_is_within_its_bounds(cls: type) -> None:
    for name, option in declared(cls).items():
        assert option.line.endswith("."), name
        assert "\n" not in option.line, name
        if option.default not in (MISSING, None):
            assert option.checked(option.default) == option.default, name


@pytest.mark.parametrize("kind", ["mini", "sd15", "sdxl"])
def test_every_family_fills_in_all_that_is_open(kind: str) -> None:
    """Of drawing and learning; what is filled in is within its bounds."""
    drawn, learned = resolve_draw({}, kind, 64), resolve_learn({}, kind)
    assert drawn.size == (64, 64)
    assert None not in (*vars(drawn).values(), *vars(learned).values())
    assert resolve_learn({"consolidation": "paper"}, kind).gamma2 == 1.0


@pytest.mark.parametrize("table", TABLES)
def test_help_shows_every_option_under_its_head_with_its_line_choices_and_default(
    table: str, cidm: Cidm
) -> None:
    command = TAKING[table]
    ran = cidm(command, "--help")
    assert ran.code == 0
    pages = dict(re.findall(r"^(\S[^\n]*):\n((?:  .*\n|\n(?=  ))+)", ran.out, re.MULTILINE))
    options = declared(TABLES[table])
    for option in options.values():
        shown = " ".join(pages[option.group].split())
        assert re.search(rf"(?<!\S){option.flag}\b", shown), option.flag
        line = f"{option.line} [default: {option.usual}]" if option.usual else option.line
        assert line in shown, option.flag
        assert all(choice in shown for choice in option.choices), option.flag
    assert ("--no-crop" in ran.out) == (command in ("learn", "edit"))


def test_what_only_comparisons_need_comes_last(cidm: Cidm) -> None:
    heads = re.findall(r"^(\S[^\n]*):$", cidm("learn", "--help").out, re.MULTILINE)
    assert heads[0] == "Arguments"
    assert heads[-3:] == ["In every command", BASELINES, "Example"]


def test_a_short_flag_is_the_long_one(cidm: Cidm) -> None:
    assert "--count, -n" in " ".join(cidm("generate", "--help").out.split()).replace(
        "-n, --count", "--count, -n"
    )


@pytest.mark.parametrize("table", TABLES)
def test_every_option_can_be_set_in_files_and_in_the_environment(table: str) -> None:
    for name, option in declared(TABLES[table]).items():
        assert SETTINGS[f"{table}.{name}" if table else name] is option.kind
    assert variable_for("draw.steps") == "CIDM_DRAW_STEPS"


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
