"""The command line's commands. Adding one: a file in `commands/`, a line in COMMANDS, and an example in page.py.

A name of two words, "layout new", is a command of a group.
"""

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cidm_registry import RegistryError

from .. import __version__
from ..commands import (
    demo,
    doctor,
    edit,
    estimates,
    eval,
    explain,
    export,
    generate,
    import_,
    layout_check,
    layout_import,
    layout_new,
    layout_show,
    learn,
    merge,
    registry,
    studio,
    stylize,
)
from ..commands.invocation import Invocation
from ..errors import CidmError, ExitCode
from ..machine.interrupts import interrupted
from ..machine.processes import found
from ..options.settings import load_settings, user_folder
from ..terminal.output import Mode, Output, Result
from .heavy import heralded
from .page import EVERYWHERE, EXAMPLES, Page

RegistryOption = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        metavar="PATH",
        help="The registry's folder; `cidm path` prints the default.",
        rich_help_panel=EVERYWHERE,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=EVERYWHERE)
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print only names or paths, one a line.", rich_help_panel=EVERYWHERE),
]

COMMANDS: tuple[tuple[str, Callable[..., Result]], ...] = (
    ("demo", demo.demo),
    ("init", registry.init),
    ("learn", learn.learn),
    ("generate", generate.generate),
    ("stylize", stylize.stylize),
    ("edit", edit.edit),
    ("explain", explain.explain),
    ("merge", merge.merge),
    ("eval", eval.evaluate),
    ("export", export.export),
    ("import", import_.import_concepts),
    ("list", registry.list_concepts),
    ("show", registry.show),
    ("rm", registry.remove),
    ("restore", registry.restore),
    ("rename", registry.rename),
    ("doctor", doctor.doctor),
    ("estimate learn", estimates.estimate_learn),
    ("estimate generate", estimates.estimate_generate),
    ("verify", registry.verify),
    ("gc", registry.collect),
    ("path", registry.path),
    ("layout new", layout_new.new),
    ("layout check", layout_check.check),
    ("layout show", layout_show.show),
    ("layout import", layout_import.import_layout),
    ("studio", studio.studio),
)
"""In the order of the help page. Each takes an Invocation and its own options, and returns a Result."""

SHARED = ("learn", "generate", "eval")
"""What several processes can do together."""

LOADING = ("learn", "generate", "stylize", "edit", "explain", "merge", "eval", "export")
"""What loads the registry's base."""

TOLERANT = ("doctor",)
"""What goes on without a settings file that is broken, and tells of it itself."""

ALIASES = {"ls": "list"}

GROUPS = {
    "estimate": "What memory and time a plan would take, before anything is loaded.",
    "layout": "Layout files: begin one, check it, look at its boxes, bring one over from another program.",
}
"""What a group's help page says."""


def _typer(name: str, help_line: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        help=help_line,
        context_settings={"help_option_names": ["-h", "--help"]},
        # Plain help pages: text is never read as markup, and `--help` does not load a terminal library.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        suggest_commands=True,
    )


app = _typer("cidm", "Teach a text-to-image model one new concept after another, and draw them together.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cidm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options_before_the_command(
    context: typer.Context,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The same options work before and after the command's name."""
    _remember(context, registry, as_json, quiet)


def _remember(context: typer.Context, registry: Path | None, as_json: bool, quiet: bool) -> None:
    before = context.meta.get("cidm", {"registry": None, "as_json": False, "quiet": False})
    said = {"registry": registry, "as_json": as_json, "quiet": quiet}
    context.meta["cidm"] = {name: value or before[name] for name, value in said.items()}
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _group(name: str, help_line: str) -> typer.Typer:
    group = _typer(name, help_line)

    @group.callback(invoke_without_command=True)
    def options_before_the_verb(
        context: typer.Context,
        registry: RegistryOption = None,
        as_json: JsonOption = False,
        quiet: QuietOption = False,
    ) -> None:
        _remember(context, registry, as_json, quiet)

    app.add_typer(group, help=help_line)
    return group


def _add(name: str, function: Callable[..., Result], *, hidden: bool = False) -> None:
    """Registers a command, with the options every command has behind its own."""
    own = inspect.signature(function, eval_str=True)
    shared = inspect.signature(_shared_options, eval_str=True)
    _invocation, *options = own.parameters.values()

    def command(**values: Any) -> int:
        context: typer.Context = values.pop("context")
        before = context.meta["cidm"]
        given = {name: values.pop(name) or before[name] for name in ("registry", "as_json", "quiet")}
        try:
            return _run(context.obj, name, function, values, **given)
        except KeyboardInterrupt:
            # Caught here: typer would turn it into a bare exit code, without a word.
            raise interrupted() from None

    parameters = [*options, *shared.parameters.values()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = function.__doc__
    *group, verb = name.split()
    there = _groups[group[0]] if group else app
    there.command(verb, hidden=hidden, cls=Page, epilog=EXAMPLES.get(name))(command)


def _shared_options(
    *,
    context: typer.Context,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Only its signature is used."""


def _run(
    output: Any,
    name: str,
    function: Callable[..., Result],
    values: dict[str, Any],
    *,
    registry: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    if not isinstance(output, Output):
        output = Output(sys.stdout, sys.stderr, environment=os.environ)
    if as_json and quiet:
        raise CidmError("--json and --quiet exclude each other", "give one of them", ExitCode.USAGE)
    output.mode = Mode.JSON if as_json else Mode.QUIET if quiet else Mode.HUMAN
    crew = found(os.environ)
    if crew.count > 1 and name not in SHARED:
        raise CidmError(
            f"cidm {name}: is done by one process, and {crew.count} were launched",
            f"run it without accelerate launch; for {', '.join(SHARED)} it gives each its share",
            ExitCode.USAGE,
        )
    settings = load_settings(os.environ, Path.cwd(), user_folder(), tolerant=name in TOLERANT)
    call = Invocation(output, settings, registry, crew)
    with heralded(lambda: output.note(f"loading {_what_is_loaded(call, name)} …")):
        result = function(call, **values)
    crew.meet()
    output.result(result)
    return int(ExitCode.OK if result.failure is None else result.failure.code)


def _what_is_loaded(call: Invocation, name: str) -> str:
    try:
        return f"the base {call.open_registry().base.source}" if name in LOADING else "torch"
    except (RegistryError, OSError):
        return "torch"


_groups = {_name: _group(_name, _line) for _name, _line in GROUPS.items()}
for _name, _function in COMMANDS:
    _add(_name, _function)
for _alias, _name in ALIASES.items():
    _add(_alias, dict(COMMANDS)[_name], hidden=True)
