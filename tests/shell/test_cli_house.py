"""The house around the commands: parsing, settings, the three output forms, errors and exit codes."""

import errno
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cidm_cli import __version__
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.options import settings as config
from cidm_cli.options.settings import load_settings
from cidm_cli.shell.app import app
from cidm_cli.shell.main import explain, main
from cidm_cli.terminal.output import Mode, Output, Result, Table, plain, readable_bytes
from cidm_cli.terminal.progress import Progress, duration
from cidm_registry import Against, BaseRef, Registry
from command import Ran
from registry_support import BASE, PNG, add, make_draft, make_weights

HOSTILE = "dog \x1b[2J\x1b]0;owned\x07 [bold red]x[/] \u202etxt\r\nerror: forged"


pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A registry with two concepts, one of them with hostile text about it."""
    registry = Registry.create(tmp_path / "registry", BASE)
    add(registry, "dog", 1)
    add(registry, "狐", 2, preview=PNG)
    return registry.root


# The three forms


def test_list_for_people(cidm: Callable[..., Ran], root: Path) -> None:
    ran = cidm("list", "--registry", root)
    assert (ran.code, ran.err) == (0, "")
    head, dog, fox = ran.out.splitlines()
    assert head.split()[:3] == ["#", "NAME", "CLASS"]
    assert dog.split()[:2] == ["1", "dog"]
    assert fox.split()[:2] == ["2", "狐"]
    assert dog.index("dog", dog.index("dog") + 1) == fox.index("dog") + 1, "a wide letter takes two columns"


def test_list_as_json(cidm: Callable[..., Ran], root: Path) -> None:
    answer = cidm("list", "--registry", root, "--json").answer
    assert answer["ok"] is True
    assert [(one["name"], one["sequence"]) for one in answer["concepts"]] == [("dog", 1), ("狐", 2)]
    assert answer["registry"] == str(root)
    assert answer["base"]["kind"] == "mini"
    assert answer["problems"] == []


@pytest.mark.parametrize("arguments", [("list", "-q"), ("ls", "--quiet"), ("-q", "list"), ("--quiet", "ls")])
def test_list_quietly(arguments: tuple[str, ...], cidm: Callable[..., Ran], root: Path) -> None:
    ran = cidm("--registry", root, *arguments)
    assert ran == Ran(0, "dog\n狐\n", "")


def test_list_of_an_empty_registry_says_what_to_do(cidm: Callable[..., Ran], tmp_path: Path) -> None:
    Registry.create(tmp_path / "empty", BASE)
    ran = cidm("list", "--registry", tmp_path / "empty")
    assert ran.code == 0
    assert "cidm learn" in ran.out
    assert cidm("list", "--registry", tmp_path / "empty", "-q").out == ""


def test_a_damaged_record_is_warned_about_and_the_rest_listed(cidm: Callable[..., Ran], root: Path) -> None:
    damaged = root / "concepts" / "000001.json"
    damaged.write_bytes(b"")
    ran = cidm("list", "--registry", root, "--json")
    assert ran.code == 0
    assert str(damaged) in ran.err
    assert [one["name"] for one in ran.answer["concepts"]] == ["狐"]
    assert ran.answer["problems"][0]["path"] == str(damaged)


def test_show(cidm: Callable[..., Ran], root: Path) -> None:
    ran = cidm("show", "DOG", "--registry", root)
    assert ran.code == 0
    assert "<dog-0> <dog-1>" in ran.out
    answer = cidm("show", "dog", "--registry", root, "--json").answer
    assert answer["concept"]["config"] == {"steps": 800, "rates": [0.001, 0.0001]}
    assert answer["concept"]["tokens"] == ["<dog-0>", "<dog-1>"]
    assert Path(answer["path"]).stat().st_size == answer["size"]
    assert cidm("show", "dog", "--registry", root, "-q").out == answer["concept"]["blob"] + "\n"


def test_show_says_what_a_concept_was_learned_against(cidm: Callable[..., Ran], root: Path) -> None:
    registry = Registry.open(root)

    def against(name: str) -> str:
        ran = cidm("show", name, "--registry", root)
        return next(line for line in ran.out.splitlines() if line.startswith("against")).split(maxsplit=1)[1]

    def learn(name: str, **changes: Any) -> None:
        registry.commit(make_draft(name, **changes), make_weights(50), expected_head=registry.head())

    learn("taken", method="import")
    learn("taken-again", method="import")
    learn("bird", against=Against.of(registry.records(), registry.head()))
    assert against("dog") == "nothing: it was the first"
    assert against("taken") == "nothing: it came from a file"
    assert against("bird") == "dog, 狐, taken, taken-again", "two of one file are two"
    registry.rename("dog", "wolf")
    registry.remove("taken")
    assert against("bird") == "wolf, 狐, taken-again, 1 no longer here"
    for number in range(30):
        add(registry, f"c{number}", 60 + number)
    learn("late", against=Against.of(registry.records(), registry.head()))
    assert against("late").endswith(", c15, 14 more")


@pytest.mark.parametrize(
    "bad", ['"scale": 1' + "0" * 400, '"scale": 1e999', '"scale": ' + "[" * 900 + "]" * 900]
)
def test_a_record_that_no_program_can_take_is_left_out_and_told_and_the_rest_lives(
    bad: str, cidm: Callable[..., Ran], root: Path
) -> None:
    path = root / "concepts" / "000001.json"
    path.write_text(path.read_text().replace('"scale": 1.0', bad))
    for command in (("list",), ("show", "狐"), ("rename", "狐", "fox"), ("path", "fox"), ("rm", "fox", "-y")):
        ran = cidm(*command, "--registry", root)
        assert ran.code == 0, ran.err
        assert ran.err.startswith(f"warning: {path}: the record of 'dog' cannot be read"), command
    ran = cidm("verify", "--registry", root)
    assert ran.code == ExitCode.REGISTRY
    assert "warning" not in ran.err


def test_an_older_registry_is_migrated_by_the_first_command_that_writes_and_says_where_the_copy_is(
    cidm: Callable[..., Ran], root: Path
) -> None:
    head = root / "registry.json"
    head.write_text(head.read_text().replace('"format": 2', '"format": 1'))
    assert cidm("list", "--registry", root).err == ""
    ran = cidm("rename", "dog", "wolf", "--registry", root)
    (copy,) = root.glob("format-1-*.zip")
    assert ran.code == 0
    assert str(copy) in ran.err


def test_json_and_quiet_together_are_a_usage_error(cidm: Callable[..., Ran], root: Path) -> None:
    ran = cidm("list", "--registry", root, "--json", "-q")
    assert ran.code == ExitCode.USAGE
    assert ran.answer["ok"] is False


# Errors


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "dgo"), 3, "did you mean 'dog'"),
        (("show", "../dog"), 2, "not allowed"),
        (("rm", "dog", "cta"), 3, "'cta'"),
        (("rename", "dog", "狐"), 1, "already is a concept"),
        (("rename", "dog", "CON"), 2, "reserved"),
        (("show",), 2, "missing argument"),
        (("show", "dog", "--colour"), 2, "no such option"),
        (("lst",), 2, "did you mean"),
        (("rename", "dog"), 2, "`cidm rename --help`"),
    ],
)
def test_an_error_is_one_line_with_a_way_out_and_json_when_asked(
    arguments: tuple[str, ...], code: int, words: str, cidm: Callable[..., Ran], root: Path
) -> None:
    ran = cidm("--registry", root, *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert re.fullmatch(r"error: .+; .+\n", ran.err), "one line, with a hint"
    assert words in ran.err.lower()
    asked = cidm("--registry", root, *arguments, "--json")
    assert asked.code == code
    assert asked.answer["ok"] is False
    assert asked.answer["error"]["code"] == code
    assert asked.answer["error"]["hint"]
    assert len(Registry.open(root).records()) == 2


def test_no_registry(cidm: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cidm("list", "--registry", tmp_path / "none")
    assert ran.code == ExitCode.NOT_FOUND
    assert "cidm init" in ran.err
    assert not (tmp_path / "none").exists()


def test_a_newer_registry_is_refused(cidm: Callable[..., Ran], root: Path) -> None:
    (root / "registry.json").write_text('{"format": 99}')
    ran = cidm("list", "--registry", root)
    assert ran.code == ExitCode.REGISTRY
    assert "99" in ran.err


def raising(error: BaseException) -> Callable[..., Result]:
    def command(*_: Any, **__: Any) -> Result:
        raise error

    return command


class OutOfMemoryError(RuntimeError):
    """As torch's."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CidmError("no", "so", ExitCode.INVALID), 4, "error: no; so\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 5, "out of memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate"), 5, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 5, "out of memory"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            1,
            "/x/y: No space left on device; free some",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png"), 3, "a.png: No such file"),
        (
            ZeroDivisionError("division by zero\nsecond line"),
            1,
            "unexpected ZeroDivisionError: division by zero;",
        ),
        (CidmError(HOSTILE), 1, r"dog \x1b[2J\x1b]0;owned\x07 [bold red]x[/] \u202etxt\r\nerror: forged"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("form", ["human", "json"])
def test_every_exception_becomes_one_line_and_a_code(
    error: BaseException,
    code: int,
    words: str,
    form: str,
    cidm: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cidm_cli.commands.invocation.Invocation.open_registry", raising(error))
    ran = cidm("list", *(["--json"] if form == "json" else []))
    assert ran.code == code
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    assert "\x1b" not in ran.err + ran.out
    if form == "json":
        assert ran.answer["error"]["code"] == code
    else:
        assert ran.out == ""


def test_the_traceback_is_there_for_who_asks(
    cidm: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cidm_cli.commands.invocation.Invocation.open_registry", raising(ZeroDivisionError("x"))
    )
    monkeypatch.setenv("CIDM_TRACEBACK", "1")
    ran = cidm("list", "--json")
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-1].startswith("error: unexpected ZeroDivisionError")
    assert ran.answer["ok"] is False


def test_an_error_after_the_result_adds_no_second_object(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(sys.stdout, sys.stderr, Mode.JSON)
    output.result(Result({"a": 1}, []))
    output.error(CidmError("late"))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"ok": True, "a": 1}
    assert captured.err == "error: late\n"


def test_details_of_an_error_are_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(sys.stdout, sys.stderr, Mode.JSON).error(CidmError("no", details={"line": 3}))
    assert json.loads(capsys.readouterr().out)["error"]["line"] == 3


def test_explain_keeps_the_order_of_kinds() -> None:
    from cidm_registry import Busy, Conflict, Damaged, Exists, Invalid, InvalidName, NewerFormat, NotFound

    codes = [explain(kind("x")).code for kind in (NotFound, InvalidName, Invalid, Exists)]
    assert codes == [3, 2, 4, 1]
    assert {explain(kind("x")).code for kind in (Busy, Conflict, Damaged, NewerFormat)} == {6}


# Verbs


def test_init_makes_a_registry_once_and_keeps_it(
    cidm: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases = {"mini": BASE, "other": BaseRef("sd", "/other", "0" * 64)}
    monkeypatch.setattr("cidm_cli.models.identity.identify", lambda base, *_: bases[base])
    target = tmp_path / "new" / "registry"
    assert cidm("init", "--registry", target, "--json").answer["created"] is True
    assert Registry.open(target).base == BASE
    again = cidm("init", "--registry", target, "-q")
    assert again == Ran(0, f"{target}\n", "")
    refused = cidm("init", "--registry", target, "--base", "other")
    assert refused.code == ExitCode.FAILED
    assert "another base" in refused.err
    assert Registry.open(target).base == BASE


def test_rm_looks_everything_up_before_it_removes_anything(cidm: Callable[..., Ran], root: Path) -> None:
    assert cidm("rm", "dog", "nobody", "--registry", root).code == ExitCode.NOT_FOUND
    assert cidm("list", "-q", "--registry", root).out == "dog\n狐\n"
    plan = cidm("rm", "dog", "Dog", "--dry-run", "--json", "--registry", root).answer
    assert plan["removed"] == ["dog"]
    assert plan["dry_run"] is True
    assert cidm("list", "-q", "--registry", root).out == "dog\n狐\n"
    assert cidm("rm", "dog", "Dog", "-q", "--registry", root) == Ran(0, "dog\n", "")
    assert cidm("list", "-q", "--registry", root).out == "狐\n"


def test_what_rm_removes_restore_lists_and_brings_back(cidm: Callable[..., Ran], root: Path) -> None:
    where = ("--registry", root)
    before = cidm("list", *where).out
    assert cidm("restore", *where).out == "nothing that was removed can be brought back\n"
    assert "`cidm restore dog 狐` brings back" in cidm("rm", "dog", "狐", *where).out
    assert cidm("restore", "-q", *where).out == "dog\n狐\n"
    (dog, _fox) = cidm("restore", *where, "--json").answer["removed"]
    assert (dog["name"], dog["sequence"]) == ("dog", 1)
    ran = cidm("restore", "dog", "nobody", *where)
    assert (ran.code, "'nobody' cannot be brought back" in ran.error) == (ExitCode.NOT_FOUND, True)
    assert cidm("list", "-q", *where).out == "", "nothing is done by half"
    assert [one["name"] for one in cidm("restore", "狐", "Dog", *where, "--json").answer["restored"]] == [
        "狐",
        "dog",
    ]
    assert cidm("list", *where).out == before
    assert cidm("verify", *where).code == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [(True, 1), (False, 2)])
def test_rm_asks_on_a_terminal(answer: bool, left: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdin", Terminal("y\n" if answer else "n\n"))
    assert main(["rm", "dog", "--registry", str(root)]) == (0 if answer else ExitCode.FAILED)
    assert len(Registry.open(root).records()) == left
    assert main(["rm", "狐", "--yes", "--registry", str(root)]) == 0
    assert len(Registry.open(root).records()) == left - 1


def test_rename_verify_gc_and_path(cidm: Callable[..., Ran], root: Path) -> None:
    assert cidm("rename", "dog", "Hund", "--registry", root, "--json").answer["name"] == "Hund"
    blob = Path(cidm("path", "hund", "--registry", root).out.strip())
    assert blob.is_file()
    assert cidm("path", "--registry", root, "-q").out == f"{root}\n"
    assert cidm("verify", "--registry", root).code == 0
    cidm("rm", "hund", "--registry", root)
    young = cidm("gc", "--registry", root, "--json")
    assert young.answer["deleted"] == []
    assert young.answer["waiting"] == 1
    assert "--now" in young.err
    assert cidm("gc", "--now", "--dry-run", "-q", "--registry", root).out == f"{blob}\n"
    assert blob.exists()
    assert cidm("gc", "--now", "-q", "--registry", root).out == f"{blob}\n"
    assert not blob.exists()


def test_verify_reports_damage_as_result_and_as_failure(cidm: Callable[..., Ran], root: Path) -> None:
    blob = Path(cidm("path", "dog", "-q", "--registry", root).out.strip())
    blob.write_bytes(bytes(blob.stat().st_size))
    ran = cidm("verify", "--registry", root, "--json")
    assert ran.code == ExitCode.REGISTRY
    assert ran.answer["ok"] is False
    assert ran.answer["error"]["code"] == 6
    assert [problem["path"] for problem in ran.answer["problems"]] == [str(blob)]
    assert cidm("verify", "--registry", root, "-q").out == f"{blob}\n"
    assert str(blob) in cidm("verify", "--registry", root).out


def test_path_works_before_there_is_a_registry(cidm: Callable[..., Ran], tmp_path: Path) -> None:
    answer = cidm("path", "--json").answer
    assert answer == {"ok": True, "path": str(tmp_path / "data" / "cidm"), "exists": False}


# Settings


def test_the_registry_comes_from_flag_then_environment_then_files(
    cidm: Callable[..., Ran], elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path() -> str:
        return str(cidm("path", "-q").out.strip())

    user = tmp_path / "config" / "cidm"
    user.mkdir(parents=True)
    (user / "config.toml").write_text('registry = "own"\n')
    assert path() == str(user / "own"), "relative to the file it stands in"
    (elsewhere / "cidm.toml").write_text('registry = "here"\n')
    assert path() == str(elsewhere / "here")
    monkeypatch.setenv("CIDM_REGISTRY", "")
    assert path() == str(elsewhere / "here"), "empty counts as unset"
    monkeypatch.setenv("CIDM_REGISTRY", "~/there")
    assert path() == str(Path("~/there").expanduser())
    assert cidm("path", "-q", "--registry", "flag").out == f"{elsewhere / 'flag'}\n"
    assert cidm("--registry", "before", "path", "-q").out == f"{elsewhere / 'before'}\n"
    assert cidm("--registry", "before", "path", "-q", "--registry", "after").out == f"{elsewhere / 'after'}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('registri = "x"', r"cidm\.toml:1: unknown setting 'registri'; did you mean 'registry'"),
        ("\n\nregistry = 5", r"cidm\.toml:3: registry must be text"),
        ('registry = "x', r"cidm\.toml:1"),
        ("[nonsense]\nkey = 1", r"cidm\.toml:2: unknown setting 'nonsense\.key'"),
        (".".join("a" * 20_000) + " = 1", r"cidm\.toml:1"),
        ("a = " + "[" * 5000, r"cidm\.toml:1"),
        ("registry = 'x'\n" * 10_000, r"cidm\.toml"),
    ],
)
def test_a_bad_settings_file_is_refused_quickly_with_its_line(
    text: str, words: str, cidm: Callable[..., Ran], elsewhere: Path
) -> None:
    (elsewhere / "cidm.toml").write_text(text)
    started = time.process_time()
    ran = cidm("path")
    assert time.process_time() - started < 0.5
    assert ran.code == ExitCode.INVALID
    assert re.search(words, ran.err)


def test_settings_have_the_type_they_were_declared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"learn.steps": int, "learn.rate": float, "learn.masked": bool, "base": str}
    monkeypatch.setattr(config, "SETTINGS", kinds)
    (tmp_path / "cidm.toml").write_text("[learn]\nsteps = 5\nrate = 1\nmasked = true\n")
    environment = {"CIDM_LEARN_STEPS": "7", "CIDM_LEARN_MASKED": "off"}
    settings = load_settings(environment, tmp_path, tmp_path / "none")
    found = [settings.find(name) for name in kinds]
    assert [one.value if one else None for one in found] == [7, 1.0, False, None]
    assert [one.source if one else None for one in found[:2]] == [
        "CIDM_LEARN_STEPS",
        str(tmp_path / "cidm.toml"),
    ]
    with pytest.raises(CidmError, match="CIDM_LEARN_STEPS must be a whole number, not 'many'"):
        load_settings({"CIDM_LEARN_STEPS": "many"}, tmp_path, tmp_path).find("learn.steps")
    with pytest.raises(CidmError, match="true or false"):
        load_settings({"CIDM_LEARN_MASKED": "maybe"}, tmp_path, tmp_path).find("learn.masked")


# Output


def test_nothing_a_terminal_obeys_gets_out() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr)
    output.result(Result({}, [HOSTILE, Table((HOSTILE,), [(HOSTILE,)])]))
    output.note(HOSTILE)
    output.warn(HOSTILE)
    with output.progress(HOSTILE, 1) as progress:
        progress.update(1)
    for text in (stdout.getvalue(), stderr.getvalue()):
        assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}
        assert text.count("\n") == 3
        assert "[bold red]x[/]" in text, "markup is only text"


def test_plain_keeps_what_languages_need() -> None:
    for text in ("Grüße", "犬", "कुत्ता", "می\u200cخواهم", "👩\u200d🚀"):
        assert plain(text) == text


def test_quiet_paths_are_exact_in_a_pipe_and_harmless_on_a_terminal() -> None:
    for stream, expected in ((io.StringIO(), "a\x1bb\n"), (Terminal(), "a\\x1bb\n")):
        Output(stream, io.StringIO(), Mode.QUIET).result(Result({}, [], ["a\x1bb"]))
        assert stream.getvalue() == expected


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal, {}, True),
        (io.StringIO, {}, False),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"NO_COLOR": ""}, True),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (Terminal, {"TERM": "dumb"}, False),
    ],
)
def test_colour(stream: type[io.StringIO], environment: dict[str, str], coloured: bool) -> None:
    target = stream()
    Output(io.StringIO(), target, environment=environment).error(CidmError("no"))
    assert ("\x1b[31m" in target.getvalue()) == coloured


def test_json_says_null_where_there_is_no_number_and_survives_any_name() -> None:
    stdout = io.StringIO()
    data = {
        "loss": float("nan"),
        "scores": (1.5, float("inf")),
        "path": Path("a"),
        "name": HOSTILE,
        "code": ExitCode.OK,
    }
    Output(stdout, io.StringIO(), Mode.JSON).result(Result(data, []))
    assert stdout.getvalue().isascii()
    assert json.loads(stdout.getvalue()) == {
        "ok": True,
        "loss": None,
        "scores": [1.5, None],
        "path": "a",
        "name": HOSTILE,
        "code": 0,
    }


def test_progress_is_a_line_every_few_percent_off_a_terminal() -> None:
    stream, clock = io.StringIO(), iter(range(10_000))
    with Progress("learning", 800, stream, lambda: float(next(clock))) as progress:
        for step in range(1, 801):
            progress.update(step, loss=0.5)
    lines = stream.getvalue().splitlines()
    assert 18 <= len(lines) <= 21
    assert lines[0] == "learning 40/800   5%  12m40s left  loss 0.5"
    assert lines[-1].startswith("learning 800/800 100%  in 13m2")


def test_progress_of_resumed_work_does_not_promise_too_much() -> None:
    stream, clock = io.StringIO(), iter([0.0, 10.0])
    with Progress("learning", 800, stream, lambda: next(clock)) as progress:
        progress.update(701)
    assert "16m30s left" in stream.getvalue()


def test_progress_on_a_terminal_redraws_one_line_and_leaves_the_last() -> None:
    stream, clock = Terminal(), iter(range(100))
    with Progress("learning", 2, stream, lambda: float(next(clock))) as progress:
        progress.update(1)
        progress.update(2)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r\x1b[2K") == 3


def test_a_terminal_that_was_closed_does_not_end_the_work() -> None:
    class Closed(Terminal):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    with Progress("learning", 2, Closed()) as progress:
        progress.update(1)
        progress.update(2)


def test_quiet_work_shows_no_progress() -> None:
    stderr = io.StringIO()
    with Output(io.StringIO(), stderr, Mode.QUIET).progress("learning", 2) as progress:
        progress.update(2)
    assert stderr.getvalue() == ""


def test_sizes_and_times_for_people() -> None:
    assert [readable_bytes(size) for size in (0, 999, 1000, 1_234_567, 999_990_000)] == [
        *("0 B", "999 B", "1.0 kB", "1.2 MB", "1.0 GB")
    ]
    assert [duration(seconds) for seconds in (0.4, 59.4, 60, 3599, 7500)] == [
        "0s",
        "59s",
        "1m00s",
        "59m59s",
        "2h05m",
    ]


# The program as installed


def test_typers_own_runner_gets_the_same_results(root: Path) -> None:
    ran = CliRunner().invoke(app, ["list", "--json", "--registry", str(root)])
    assert ran.exit_code == 0
    assert len(json.loads(ran.stdout)["concepts"]) == 2
    missing = CliRunner().invoke(app, ["show", "nobody", "--registry", str(root)])
    assert missing.exit_code != 0
    assert "nobody" in str(missing.exception)


def test_help_and_version(cidm: Callable[..., Ran]) -> None:
    assert cidm("--version") == Ran(0, f"cidm {__version__}\n", "")
    bare = cidm()
    assert bare.code == 0
    assert bare == cidm("--help") == cidm("-h")
    for name in ("init", "list", "show", "rm", "rename", "verify", "gc", "path"):
        assert name in bare.out
        help_page = cidm(name, "--help")
        assert help_page.code == 0
        for option in ("--registry", "--json", "--quiet"):
            assert option in help_page.out


def run_installed(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cidm_cli", *map(str, arguments)],
        capture_output=True,
        check=False,
        text=True,
        encoding="utf-8",
        timeout=60,
        env={**os.environ, **environment},
    )


LIGHT = """
import sys
from cidm_cli.shell.main import main
code = main({arguments!r})
heavy = {{"torch", "diffusers", "transformers", "numpy", "PIL", "peft", "accelerate", "starlette", "uvicorn"}}
heavy = sorted(heavy & set(sys.modules))
print(code, heavy, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["list"], ["show", "dog"], ["learn", "--help"], ["studio", "--help"], ["verify"]],
)
def test_light_commands_import_nothing_heavy(arguments: list[str], root: Path) -> None:
    script = LIGHT.format(arguments=["--registry", str(root), *arguments])
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, text=True, timeout=60
    )
    assert ran.stderr.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cidm show d", {"dog"}),
        ("cidm stylize a.png --style ", {"dog", "狐"}),
        ("cidm generate --sampler d", {"dpm++", "ddim"}),
        ("cidm learn dog dogs --token-groups ", {"block", "layer"}),
        ("cidm --registry nowhere show ", set()),
        ("cidm restore ", {"bird"}),
        ("cidm learn --update ", {"dog", "狐"}),
        ("cidm learn --update dog ", set()),
        ("cidm learn d", set()),
        ("cidm eval --concepts dog,", {"dog,dog", "dog,狐"}),
        ("cidm eval --rivals full,fa", {"full,fast"}),
        ("cidm eval --prompts ", {"object", "pet", "style"}),
        ("cidm init --base ", {"mini", "sd15", "sdxl", "flux2-klein", "z-image"}),
        ("cidm layout new two-s", {"two-side-by-side"}),
        ("cidm generate --device c", {"cpu", "cuda"}),
        ("cidm learn --targets attn1", {"attn1+attn2"}),
    ],
)
def test_a_command_line_is_completed_with_choices_and_concepts(
    line: str, found: set[str], root: Path
) -> None:
    add(Registry.open(root), "bird", 3)
    Registry.open(root).remove("bird")
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_CIDM_COMPLETE": "complete_bash"}
    ran = run_installed(CIDM_REGISTRY=str(root), **words)
    assert (set(ran.stdout.split()), ran.stderr) == (found, "")


def test_names_survive_a_terminal_that_cannot_show_them(root: Path) -> None:
    ran = run_installed(
        "list", "-q", "--registry", root, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C"
    )
    assert (ran.returncode, ran.stdout) == (0, "dog\n\\u72d0\n")


def test_a_reader_that_stops_early_is_no_error(root: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "cidm_cli", "list", "--registry", str(root)],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_thousand_concepts_list_almost_as_fast_as_none(tmp_path: Path) -> None:
    empty, full = (Registry.create(tmp_path / name, BASE) for name in ("empty", "full"))
    add(full, "c1", 1)
    template = (full.root / "concepts" / "000001.json").read_text()
    for number in range(2, 1001):
        text = template.replace('"c1"', f'"c{number}"')
        text = text.replace('"sequence": 1,', f'"sequence": {number},').replace(
            '"origin": 1,', f'"origin": {number},'
        )
        (full.root / "concepts" / f"{number:06d}.json").write_text(text)

    def fastest(root: Path) -> float:
        times = []
        for _ in range(2):
            started = time.perf_counter()
            ran = run_installed("list", "--json", "--registry", root)
            times.append(time.perf_counter() - started)
            assert ran.returncode == 0
        return min(times)

    assert fastest(full.root) < 2 * fastest(empty.root) + 0.3
