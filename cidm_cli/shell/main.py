"""The one error boundary: every exception becomes one line, a hint and an exit code."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import MutableMapping, Sequence
from typing import NoReturn

import typer
from typer.main import get_command

from cidm_registry import (
    Busy,
    Conflict,
    Damaged,
    Invalid,
    InvalidName,
    NewerFormat,
    NotFound,
    RegistryError,
)

from ..errors import CidmError, ExitCode, is_out_of_memory, wants_json
from ..machine.interrupts import interrupted, was_interrupted
from ..machine.processes import join, launched
from ..terminal.output import Mode, Output
from .app import app

REGISTRY_CODES: tuple[tuple[type[RegistryError], ExitCode], ...] = (
    (NotFound, ExitCode.NOT_FOUND),
    (InvalidName, ExitCode.USAGE),
    (Invalid, ExitCode.INVALID),
    (Conflict, ExitCode.REGISTRY),
    (Damaged, ExitCode.REGISTRY),
    (Busy, ExitCode.REGISTRY),
    (NewerFormat, ExitCode.REGISTRY),
    (RegistryError, ExitCode.FAILED),
)
"""The first that fits counts."""

ELSEWHERE = {
    "--base": "a registry is bound to its base: cidm init --base sd15 --registry PATH",
    "--model": "a registry is bound to its base: cidm init --base sd15 --registry PATH",
}
"""Where to say what a command does not take."""

SMALLER = "use fewer or smaller images at a time, or close other programs"


def run() -> NoReturn:
    """The program: runs the process's own command line and ends it with its exit code."""
    code = main()
    if launched(os.environ):
        # The threads by which processes talk may still be ending, and an interpreter that goes meanwhile is aborted.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    # All is said, and the exit code stands: what the interpreter has left to do is not to be disturbed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code. Every failure becomes a message; none raises.

    With CIDM_TRACEBACK=1 in the environment the traceback is printed too, before the message.
    """
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    _set_up()
    mode = Mode.JSON if wants_json(given) else Mode.HUMAN
    try:
        crew = join(os.environ)
    except CidmError as error:
        Output(sys.stdout, sys.stderr, mode, os.environ).error(error)
        return int(error.code)
    with crew.only_main_prints():
        output = Output(sys.stdout, sys.stderr, mode, os.environ)
        try:
            code = get_command(app).main(args=given, prog_name="cidm", standalone_mode=False, obj=output)
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("CIDM_TRACEBACK") == "1":
                traceback.print_exc(file=sys.stderr if crew.main else sys.__stderr__)
            failure = crew.agreed(explain(error))
            output.error(failure)
            code = failure.code
        crew.leave()
    return int(code or 0)


def explain(error: BaseException) -> CidmError:
    """Any exception as something to show: what happened, what to do, which exit code."""
    match error:
        case CidmError(code=ExitCode.INTERRUPTED):
            return error
        case _ if was_interrupted(error):
            return interrupted()
        case CidmError():
            return error
        case RegistryError():
            code = next(code for kind, code in REGISTRY_CODES if isinstance(error, kind))
            return CidmError(error.message, error.hint, code)
        case typer.TyperException():
            return _explain_usage(error)
        case typer.Abort():
            return CidmError("stopped, nothing was changed")
        case OSError():
            return _explain_system(error)
    if is_out_of_memory(error):
        return CidmError("out of memory", SMALLER, ExitCode.OUT_OF_MEMORY)
    first_line = next(iter(str(error).splitlines()), "")
    return CidmError(
        f"unexpected {type(error).__name__}: {first_line}",
        "this is a fault in cidm; CIDM_TRACEBACK=1 shows where",
    )


def _explain_usage(error: typer.TyperException) -> CidmError:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "cidm"
    message = message[:1].lower() + message[1:]
    hint = ELSEWHERE.get(getattr(error, "option_name", ""), f"`{command} --help` shows how")
    return CidmError(message, hint, ExitCode.USAGE)


def _explain_system(error: OSError) -> CidmError:
    reason = error.strerror or str(error) or type(error).__name__
    name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    hint = "free some space, then try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    code = ExitCode.NOT_FOUND if isinstance(error, FileNotFoundError) else ExitCode.FAILED
    return CidmError(f"{name}{reason}", hint, code)


def allow_the_same_kernels(environment: MutableMapping[str, str]) -> None:
    """Forbids oneDNN what ATEN_CPU_CAPABILITY forbids torch. Before torch is imported.

    In bfloat16, torch's attention asks the one whether a processor has AVX-512, and then computes with the other.
    """
    if environment.get("ATEN_CPU_CAPABILITY") in ("default", "avx2"):
        environment.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


def _set_up() -> None:
    for number in range(3):
        # A stream that is closed (`>&-`): what is printed goes nowhere, and no file that is opened takes its place.
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
    # No code from a model's repository is ever run, whatever a library's default is.
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    # Read when the libraries are imported: their advice to programmers is not for the user.
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    allow_the_same_kernels(os.environ)
    for stream in (sys.stdout, sys.stderr):
        # A name the terminal cannot show must not end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
