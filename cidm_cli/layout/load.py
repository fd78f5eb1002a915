"""Reading layout files, with the file, line and key of whatever is wrong in them."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout.model import (
    MAX_REGIONS,
    Base,
    ImageSettings,
    Layout,
    Origin,
    Region,
    shown_key,
)
from cidm_cli.prompts import find_unknown, parse_prompt
from cidm_cli.reading import decode_utf8, read_bounded, read_stream
from cidm_cli.safe_toml import MAX_BYTES, KeyPath, parse_toml
from cidm_cli.suggest import nearest

STANDARD_INPUT = "-"

_TABLES: dict[str | int, type[BaseModel]] = {"image": ImageSettings, "base": Base, "region": Region}
_OVERRIDE = re.compile(r"\s*([\w-]+(?:\s*\.\s*[\w-]+)*)\s*=(.*)", re.DOTALL)


def load_layout(path: str | Path, text: str | None = None, overrides: Sequence[str] = ()) -> Layout:
    """Read and check a layout file; `-` is standard input.

    With `text`, that is read instead and `path` only names it in messages. Each of `overrides` is a
    "key=value", as in "image.seed=7" or "region.0.box=[0, 0, 0.5, 1]", which replaces what the file says;
    a value that is no TOML is taken as text.

    Raises CidmError: NOT_FOUND if there is no such file; INVALID, with file, line and key, for whatever is
    wrong in it; USAGE for an override at fault.
    """
    source = "standard input" if str(path) == STANDARD_INPUT else str(path)
    if text is None and str(path) == STANDARD_INPUT:
        text = decode_utf8(read_stream(sys.stdin.buffer, MAX_BYTES, source), source)
    elif text is None:
        text = decode_utf8(read_bounded(Path(path), MAX_BYTES), source)
    document = parse_toml(text, source)
    data = document.data
    overridden = tuple(_override(data, override) for override in overrides)
    origin = Origin(source, document.lines, overridden)
    regions = data.get("region", [])
    if isinstance(regions, list) and len(regions) > MAX_REGIONS:
        # Before the models see them: a hundred thousand complaints take long to write.
        raise _error(origin, ("region", MAX_REGIONS), f"is one too many: at most {MAX_REGIONS} regions")
    try:
        layout = Layout.model_validate(data)
    except ValidationError as error:
        raise _explained(error, origin) from None
    layout._origin = origin
    return layout


def check_concepts(layout: Layout, names: Iterable[str]) -> None:
    """Raise CidmError NOT_FOUND, with place and suggestion, if a prompt names a concept not among `names`."""
    names = tuple(names)
    prompts: list[tuple[KeyPath, str]] = [(("base", "prompt"), layout.base.prompt)]
    prompts += [(("region", i, "prompt"), region.prompt) for i, region in enumerate(layout.regions)]
    for path, prompt in prompts:
        unknown = find_unknown(parse_prompt(prompt), names)
        if unknown is not None:
            message = f"{layout.origin.place(path)}: {shown_key(path)}: {unknown}"
            raise CidmError(message, hint=unknown.hint, code=unknown.code)


def _override(data: dict[str, Any], override: str) -> KeyPath:
    """Set one key of `data` in place and return its path."""
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        raise _usage(f"--set {override!r} is no key=value", "write for instance --set image.seed=7")
    parts = [part.strip() for part in match.group(1).split(".")]
    path: KeyPath = ()
    target: Any = data
    for part in parts[:-1]:
        target, path = _step(target, part, path)
    last, value = parts[-1], _value(match.group(2).strip())
    if isinstance(target, list):
        _, path = _step(target, last, path)
        target[cast(int, path[-1])] = value
        return path
    if not isinstance(target, dict):
        raise _usage(f"--set {shown_key((*path, last))}: {shown_key(path)} is not a table")
    target[last] = value
    return (*path, last)


def _step(target: Any, part: str, path: KeyPath) -> tuple[Any, KeyPath]:
    if isinstance(target, dict):
        return target.setdefault(part, [] if (*path, part) == ("region",) else {}), (*path, part)
    if not isinstance(target, list):
        raise _usage(f"--set {shown_key((*path, part))}: {shown_key(path)} is not a table")
    if not part.isdecimal() or len(part) > 6 or int(part) >= len(target):
        raise _usage(
            f"--set {shown_key((*path, part))}: no such element",
            f"{shown_key(path)} has {len(target)}, from 0",
        )
    return target[int(part)], (*path, int(part))


def _value(text: str) -> Any:
    try:
        data = parse_toml(f"value = {text}", "--set").data
    except CidmError:
        # A shell takes the quotes off; `base.prompt=a dog` must serve.
        return text
    # A line break could bring in other keys.
    return data["value"] if len(data) == 1 else text


def _explained(error: ValidationError, origin: Origin) -> CidmError:
    """The first complaint in the order of the file, in our words."""
    found = [(_path(details), details) for details in error.errors(include_url=False, include_input=False)]
    path, details = min(found, key=lambda entry: origin.line(entry[0]) or math.inf)
    context = details.get("ctx", {})
    kind, message = details["type"], details["msg"]
    if kind == "extra_forbidden":
        meant = nearest(str(path[-1]), _known_keys(path))
        return _error(origin, path, "is not a known key", f"did you mean {meant}?" if meant else "")
    if kind == "missing":
        return _error(origin, path, "is missing")
    if kind == "model_type":
        return _error(origin, path, "must be a table")
    if kind == "tuple_type":
        return _error(origin, path, "must be a list of tables", "write [[region]] with two brackets")
    if kind == "layout":
        return _error(origin, path, context["message"], context["hint"])
    return _error(origin, path, message.replace("Input should", "must").replace("String should", "must"))


def _path(details: ErrorDetails) -> KeyPath:
    return (*details["loc"], *details.get("ctx", {}).get("path", ()))


def _known_keys(path: KeyPath) -> Iterable[str]:
    table = _TABLES.get(path[0], Layout) if len(path) > 1 else Layout
    return [field.alias or name for name, field in table.model_fields.items()]


def _error(origin: Origin, path: KeyPath, message: str, hint: str = "") -> CidmError:
    place = origin.place(path)
    code = ExitCode.USAGE if place.startswith("--set ") else ExitCode.INVALID
    return CidmError(f"{place}: {shown_key(path)} {message}", hint=hint or None, code=code)


def _usage(message: str, hint: str | None = None) -> CidmError:
    return CidmError(message, hint=hint, code=ExitCode.USAGE)
