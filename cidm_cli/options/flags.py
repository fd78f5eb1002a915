"""Command-line flags made from an options dataclass: the line under a field is its help, its default the default.

A value is looked for in the flag, then in the environment (CIDM_LEARN_STEPS), then in the settings files
(``[learn] steps``), then in the dataclass.
"""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from ..errors import CidmError, ExitCode

if TYPE_CHECKING:
    from .settings import Settings


def documented(cls: type) -> dict[str, str]:
    """The line under each field of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    out = {}
    for field, line in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(line, ast.Expr)
            and isinstance(line.value, ast.Constant)
        ):
            assert isinstance(field.target, ast.Name)
            out[field.target.id] = str(line.value.value)
    return out


def flags(cls: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command whose last parameter is ``given: dict``: the dataclass's fields become its flags.

    The command finds in ``given`` only what was said; ``chosen`` completes it.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
        names = [field.name for field in fields(cls)]

        def run(*args: Any, **values: Any) -> Any:
            given = {name: value for name in names if (value := values.pop(name)) is not None}
            return command(*args, **values, given=given)

        parameters = [*own, *_parameters(cls)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        return run

    return decorate


def chosen(cls: type, table: str, given: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What was said on the command line, in the environment or in settings files, by field.

    Raises:
        CidmError: USAGE for a size that is not WIDTHxHEIGHT.
    """
    out = {}
    for field in fields(cls):
        value = given.get(field.name)
        if value is None and (found := settings.find(f"{table}.{field.name}")):
            value = found.value
        if value is not None:
            out[field.name] = _size(value) if field.name == "size" and isinstance(value, str) else value
    return out


def setting_types(table: str, cls: type) -> dict[str, type]:
    """The settings of a dataclass, "learn.steps", with the type each takes."""
    return {f"{table}.{name}": plain_type(hint) for name, hint in get_type_hints(cls).items()}


def _parameters(cls: type) -> list[inspect.Parameter]:
    hints, help_lines = get_type_hints(cls), documented(cls)
    return [_parameter(field, hints[field.name], help_lines[field.name]) for field in fields(cls)]


def _parameter(field: Field[Any], hint: Any, line: str) -> inspect.Parameter:
    kind = plain_type(hint)
    dashed = "--" + field.name.replace("_", "-")
    name = f"{dashed}/--no-{dashed[2:]}" if kind is bool else dashed
    if field.default not in (None, ""):
        default = field.default if kind is not bool else "on" if field.default else "off"
        line = f"{line} [default: {default}]"
    metavar = "WIDTHxHEIGHT" if field.name == "size" else None
    names = [name, field.metadata["short"]] if "short" in field.metadata else [name]
    option = typer.Option(*names, help=line, metavar=metavar, show_default=False)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def plain_type(hint: Any) -> type:
    """The type a flag or setting takes for a field: without None; a size is text."""
    options = (
        [t for t in get_args(hint) if t is not types.NoneType]
        if isinstance(hint, types.UnionType)
        else [hint]
    )
    return options[0] if options[0] in (int, float, bool, str) else str


def _size(value: str) -> tuple[int, int]:
    width, cross, height = value.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and len(value) < 12):
        raise CidmError(
            f"--size {value}: not WIDTHxHEIGHT", "write for instance --size 512x768", ExitCode.USAGE
        )
    return int(width), int(height)
