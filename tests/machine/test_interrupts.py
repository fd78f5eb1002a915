"""Ctrl-C while the libraries load: one line and the exit code of an interrupt, whatever the libraries make of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.machine.interrupts import STOPPING, graceful, interrupted
from cidm_cli.shell.main import explain
from cidm_cli.terminal.output import Mode, Output
from cidm_registry import Registry

pytestmark = pytest.mark.usefixtures("plain_signals")

PRESSED = """
import os, runpy, signal, sys

name, *arguments = sys.argv[1:]

class Press:
    def find_spec(self, wanted, *_):
        if wanted == name:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
sys.argv = ["cidm", *arguments]
runpy.run_module("cidm_cli", run_name="__main__", alter_sys=True)
"""
"""The program, with Ctrl-C pressed as a module is looked for."""


def pressed(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRESSED, module, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "module", ["json", "cidm_cli.shell.main", "typer.main", "rich.cells", "cidm_cli.commands.registry"]
)
def test_ctrl_c_before_the_command_line_is_read_is_one_line(module: str, elsewhere: Path) -> None:
    ran = pressed(module, "list")
    assert (ran.returncode, ran.stdout, ran.stderr) == (ExitCode.INTERRUPTED, "", "error: interrupted\n")


@pytest.mark.parametrize(
    "module",
    ["torch", "torch.nn", "numpy", "transformers.models.clip.modeling_clip", "diffusers.models.unets"],
)
def test_ctrl_c_while_the_libraries_load_is_one_line(
    module: str, tiny_registry: Registry, elsewhere: Path
) -> None:
    ran = pressed(module, "generate", "-p", "a dog", "--steps", 1, "--registry", tiny_registry.root)
    *before, last = ran.stderr.splitlines()
    assert (ran.returncode, ran.stdout, last) == (ExitCode.INTERRUPTED, "", "error: interrupted")
    assert [line.split(" /")[0] for line in before] in ([], ["loading the base"])
    assert not [*elsewhere.iterdir()]


def test_ctrl_c_while_the_libraries_load_is_answered_in_json(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = pressed("typer.main", "list", "--json")
    Output(sys.stdout, sys.stderr, Mode.JSON).error(interrupted())
    assert json.loads(ran.stdout) == json.loads(capsys.readouterr().out)
    assert ran.returncode == ExitCode.INTERRUPTED


def test_an_interrupt_is_one_whatever_it_was_wrapped_in() -> None:
    for wrapped in (RuntimeError("cannot import"), CidmError("the base cannot be read"), ImportError()):
        wrapped.__cause__ = ModuleNotFoundError()
        wrapped.__cause__.__context__ = KeyboardInterrupt()
        assert explain(wrapped).code == ExitCode.INTERRUPTED
    said = CidmError("stopped at step 2; checkpoint saved", code=ExitCode.INTERRUPTED)
    said.__context__ = KeyboardInterrupt()
    assert explain(said) is said, "who knows more says more"


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_a_request_and_the_second_an_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with graceful() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", STOPPING)
def test_what_the_starter_has_ignored_stops_nothing(number: signal.Signals) -> None:
    """As ``nohup cidm learn …`` when the terminal closes, and ``cidm learn … &`` in a script on Ctrl-C."""
    signal.signal(number, signal.SIG_IGN)
    with graceful() as asked:
        os.kill(os.getpid(), number)
        assert not asked()
        os.kill(os.getpid(), next(other for other in STOPPING if other != number))
        assert asked(), "the others are heard"
