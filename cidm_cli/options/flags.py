"""Command-line flags made from a declaration of options.

A value is looked for in the flag, then in the environment (CIDM_LEARN_STEPS), then in the settings files
(``[learn] steps``), then in the declaration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .declared import Form, Offered, Option, Short, Written, declared

if TYPE_CHECKING:
    from .settings import Settings


def flags(**groups: Mapping[str, Option]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command whose last parameters are dicts of these names: their options become its flags.

    In each, the command finds only what was said; ``chosen`` completes it.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True).parameters.values()

        def run(*args: Any, **values: Any) -> Any:
            for group, options in groups.items():
                said = {name: values.pop(name) for name in options}
                values[group] = {name: value for name, value in said.items() if value is not None}
            return command(*args, **values)

        parameters = [one for one in own if one.name not in groups]
        parameters += [_parameter(option) for options in groups.values() for option in options.values()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__doc__, run.__name__ = command.__doc__, command.__name__
        return run

    return decorate


def chosen(cls: type, table: str, given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What was said on the command line, in the environment or in settings files, by field.

    Raises:
        CidmError: USAGE for a text that is not of the form its option is written in.
    """
    # A name that is none of the options stays, to be refused by it.
    out = {name: value for name, value in given.items() if name not in declared(cls)}
    for name, option in declared(cls).items():
        value = given.get(name)
        if value is None and (found := settings.find(f"{table}.{name}".lstrip("."))):
            value = found.value
        if value is not None:
            written = option.mark(Written)
            out[name] = written.read(value) if written and isinstance(value, str) else value
    return out


def as_flags(options: Mapping[str, Option], said: Mapping[str, Any]) -> list[str]:
    """What was said on the command line, as it can be said again."""
    words = []
    for name, value in said.items():
        flag = options[name].flag
        if options[name].kind is bool:
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [
                word for one in (value if isinstance(value, list) else [value]) for word in (flag, str(one))
            ]
    return words


def _parameter(option: Option) -> inspect.Parameter:
    names = [f"{option.flag}/--no-{option.flag[2:]}" if option.kind is bool else option.flag]
    if short := option.mark(Short):
        names.append(short.flag)
    written = option.mark(Written) or option.mark(Form)
    offered = option.mark(Offered)
    values = offered.values if offered else option.choices
    metavar = written.form if written else f"[{'|'.join(option.choices)}]" if option.choices else None
    shown = typer.Option(
        *names,
        help=f"{option.line} [default: {option.usual}]" if option.usual else option.line,
        metavar=metavar,
        show_default=False,
        rich_help_panel=option.group,
        autocompletion=(lambda: [*values]) if values else None,
    )
    kind: Any = option.kind
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, shown]
    )
