"""How an option is declared: once, as a field of a frozen dataclass. Flags, settings, help and tables are read from it.

The field's type holds its bounds, as pydantic reads them, and its choices; marks beside the type say what only help
pages and messages need; the line under the field is its help. The class is the resolved form, in which nothing is open:
a field without a default is filled in by what the options are for. The asked form is a mapping, by field, of what was
said.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from itertools import pairwise
from math import inf
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from ..errors import CidmError, ExitCode, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Mark = TypeVar("Mark")
Asked = Mapping[str, Any]
"""What was said of a declaration's options, by field; all others, and those that are None, are open."""
NOTHING: Asked = MappingProxyType({})

Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0), Lt(inf)]
Weight = Annotated[float, Ge(0), Lt(inf)]
Share = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]

WORDS: Mapping[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false",
    Path: "a path", list[str]: "a list of texts",
}  # fmt: skip
"""What each kind of option takes."""
BASELINES = "Baselines and ablations"
"""The group of options that only comparisons need: the last on a help page."""


@dataclass(frozen=True)
class Group:
    """A mark: the option, and those declared after it, stand under this head on a help page."""

    head: str


@dataclass(frozen=True)
class Short:
    """A mark: a second, short flag."""

    flag: str


@dataclass(frozen=True)
class Form:
    """A mark: what stands for the value on a help page."""

    form: str


@dataclass(frozen=True)
class Offered:
    """A mark: what a shell completes a value with, though it may be another."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A mark: what a help page tells as the default."""

    default: str


@dataclass(frozen=True)
class Written:
    """A mark: a value that is text in flags and settings."""

    form: str
    read: Callable[[str], Any]
    """Raises CidmError USAGE for another text."""


@dataclass(frozen=True)
class Only:
    """A mark: the option means something only where another is not 0, or has a certain value."""

    other: str
    value: str | None = None


@dataclass(frozen=True)
class Held:
    """A mark on a field that keeps what was asked of another declaration, whose options stand among one's own."""

    cls: type
    without: tuple[str, ...] = ()
    """Its options that the holder sets itself."""
    lines: Mapping[str, str] = field(default_factory=dict)
    """Help of its options where it differs, by field."""


@dataclass(frozen=True)
class Option:
    """A declared option, as all others read it."""

    name: str
    line: str
    """Its help."""
    group: str
    hint: Any
    """Its type, as pydantic checks it."""
    default: Any
    """MISSING where it is filled in."""
    marks: tuple[object, ...] = ()
    kind: Any = str
    """What a flag or setting takes: int, float, bool, str, or for flags alone Path or list[str]."""
    choices: tuple[str, ...] = ()
    inside: str = ""
    """The field that holds it, where it is another declaration's."""

    @property
    def flag(self) -> str:
        """As on the command line."""
        return flag(self.name)

    def mark(self, kind: type[Mark]) -> Mark | None:
        """The mark of a kind that is on it."""
        return next((mark for mark in self.marks if isinstance(mark, kind)), None)

    @property
    def usual(self) -> str:
        """Its default in words; empty where there is none to tell."""
        if shown := self.mark(Shown):
            return shown.default
        if self.default is MISSING:
            return "the base's own"
        if self.kind is bool:
            return "on" if self.default else "off"
        return "" if self.default in (None, "") else str(self.default)

    @property
    def rule(self) -> str:
        """What a value must be: "from 1 to 12"; empty where the type says it all."""
        if self.choices:
            return one_of(self.choices)
        if written := self.mark(Written):
            return written.form
        least, above = self.mark(Ge), self.mark(Gt)
        most, below = self.mark(Le), self.mark(Lt)
        low = f"{least.ge}" if least else f"above {above.gt}" if above else ""
        high = f"{most.le}" if most else f"below {below.lt}" if below and below.lt != inf else ""
        if low and high:
            return f"from {low} to {high}" if least else f"{low} and {high}"
        return f"at least {low}" if least else low

    def checked(self, value: Any) -> Any:
        """A value within its bounds. Raises CidmError USAGE for another."""
        # Imported here: it takes a fifth of a second, and the list of commands needs none of it.
        from pydantic import ValidationError

        try:
            # A path may be text, and texts a tuple; a number is no text.
            return _adapter(self.hint).validate_python(value, strict=self.kind not in (Path, list[str]))
        except ValidationError as error:
            is_type = error.errors()[0]["type"].endswith("_type") and not self.mark(Written)
            raise usage(self.name, value, f"must be {WORDS[self.kind] if is_type else self.rule}") from None


def flag(name: str) -> str:
    """A field's name as a flag."""
    return f"--{name.replace('_', '-')}"


def one_of(choices: Sequence[str]) -> str:
    """Choices as words: "a, b or c"."""
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def usage(name: str, value: object, rule: str) -> CidmError:
    """The error for a value that an option cannot have."""
    return CidmError(f"{flag(name)} {value}: {rule}", code=ExitCode.USAGE)


@cache
def declared(cls: type) -> dict[str, Option]:
    """The options of a declaration by name, those that it holds of others in their place."""
    hints, lines = get_type_hints(cls, include_extras=True), documented(cls)
    out: dict[str, Option] = {}
    group = "Options"
    for each in fields(cls):
        kind, marks = _parts(hints[each.name])
        held = next((mark for mark in marks if isinstance(mark, Held)), None)
        if held:
            for name, option in declared(held.cls).items():
                if name not in held.without:
                    line = held.lines.get(name, option.line)
                    out[name] = replace(option, line=line, inside=each.name)
            continue
        group = next((mark.head for mark in marks if isinstance(mark, Group)), group)
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        plain = kind if kind in WORDS else str
        out[each.name] = Option(
            each.name, lines.get(each.name, ""), group, hints[each.name], each.default, marks, plain, choices
        )
    return out


def some(cls: type, *names: str) -> dict[str, Option]:
    """Those of a declaration's options."""
    return {name: declared(cls)[name] for name in names}


def settled(cls: type[T], said: Asked, defaults: Asked = NOTHING) -> T:
    """A declaration with nothing open: as said, else as the defaults given, else as declared.

    What a held declaration is asked for stays so, checked.

    Raises:
        CidmError: USAGE, naming the option, for a value that it cannot have, or an option that there is not.
        TypeError: where an option without a default is not among the defaults given.
    """
    options = declared(cls)
    values: dict[str, Any] = {}
    told = {name: value for name, value in said.items() if value is not None}
    for name, value in {**defaults, **told}.items():
        if name not in options:
            meant = nearest(name, options)
            hint = f"did you mean {flag(meant)}?" if meant else None
            raise CidmError(f"{flag(name)}: there is no such option", hint, ExitCode.USAGE)
        place = options[name].inside
        (values.setdefault(place, {}) if place else values)[name] = options[name].checked(value)
    return cls(**values)


def spelled(cls: type, said: Asked = NOTHING) -> dict[str, Any]:
    """Every option of a declaration: as said, else as declared, else None."""
    usual = {name: None if one.default is MISSING else one.default for name, one in declared(cls).items()}
    return {**usual, **said}


def check_said(said: Collection[str], options: DataclassInstance) -> None:
    """Refuses what was asked for by name and means nothing beside the other options; in a settings file it may stand.

    Raises:
        CidmError: USAGE, naming the option and what it belongs to.
    """
    marked = [(name, mark) for name in said for mark in declared(type(options))[name].marks]
    for name, only in ((name, mark) for name, mark in marked if isinstance(mark, Only)):
        owner, chosen = flag(only.other), getattr(options, only.other)
        if only.value is None and not chosen:
            raise usage(name, getattr(options, name), f"belongs to {owner}, which is 0")
        if only.value not in (None, chosen):
            raise CidmError(
                f"{flag(name)}: belongs to {owner} {only.value}, and this is {chosen}",
                hint=f"leave it out, or give {owner} {only.value}",
                code=ExitCode.USAGE,
            )


def documented(cls: type) -> dict[str, str]:
    """The line under each field of a dataclass."""
    # The module's source, of which the class is a part: to cut the class out of it takes longer than to read it all.
    tree = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    body = next(
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    out = {}
    for each, line in pairwise(body):
        match each, line:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                out[name] = text
    return out


def _parts(hint: Any) -> tuple[Any, tuple[object, ...]]:
    """The bare type under a hint, without None, and all marks on it."""
    inner, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    others = [each for each in get_args(inner) if each is not NoneType]
    if NoneType in get_args(inner):
        inner, own = _parts(others[0])
        return inner, (*own, *marks)
    return inner, tuple(marks)


@cache
def _adapter(hint: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(hint)
