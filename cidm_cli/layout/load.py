"""Reading layout files, with the file, line and key of whatever is wrong in them."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout.model import (
    FORMAT_VERSION,
    MAX_REGIONS,
    OTHER_VERSION,
    Base,
    Fault,
    ImageSettings,
    Layout,
    Origin,
    Region,
    Structure,
    faults_together,
    fitting,
    shown_key,
)

from ..errors import nearest
from ..files.reading import decode_utf8, read_standard_input, read_start, read_text
from ..files.toml_files import MAX_BYTES, KeyPath, parse_toml
from ..options.prompts import find_unknown, parse_prompt

STANDARD_INPUT = "-"
MAX_FAULTS = 100

_TABLES: dict[str | int, type[BaseModel]] = {
    "image": ImageSettings,
    "base": Base,
    "structure": Structure,
    "region": Region,
}
_OTHERS = {
    "global": "base", "background": "base", "whole": "base", "canvas": "image", "picture": "image", "output": "image",
    "layer": "region", "area": "region", "object": "region", "bbox": "box", "rect": "box", "weight": "strength",
    "scale": "strength", "text": "prompt", "caption": "prompt", "negative_prompt": "negative", "cfg": "guidance",
    "cfg_scale": "guidance", "guidance_scale": "guidance", "num_inference_steps": "steps", "width": "size",
    "height": "size", "resolution": "size", "batch_size": "count", "num_images": "count", "blur": "feather",
}  # fmt: skip
"""What other programs call a key of ours."""
_PNG = b"\x89PNG\r\n\x1a\n"
_OVERRIDE = re.compile(r"\s*([\w-]+(?:\s*\.\s*[\w-]+)*)\s*=(.*)", re.DOTALL)


def load_layout(path: str | Path, text: str | None = None, overrides: Sequence[str] = ()) -> Layout:
    """Read and check a layout file; `-` is standard input.

    With `text`, that is read instead and `path` only names it in messages. Each of `overrides` is a
    "key=value", as in "image.seed=7" or "region.0.box=[0, 0, 0.5, 1]", which replaces what the file says;
    a value that is no TOML is taken as text.

    Raises CidmError: NOT_FOUND if there is no such file; INVALID, with file, line and key, for whatever is
    wrong in it; USAGE for an override at fault.
    """
    data, origin = _read(path, text, overrides)
    return layout_from(data, origin)


def all_faults(path: str | Path, text: str | None = None) -> Layout | list[CidmError]:
    """The layout, or what is wrong with it in the order of the file: everything, up to MAX_FAULTS.

    Takes what `load_layout` takes, without overrides. What that would raise is returned, with its line (0 if it has
    none) and key in `details`.
    """
    try:
        data, origin = _read(path, text, ())
        return _validated(data, origin)
    except CidmError as error:
        return [error]
    except ValidationError as error:
        complaints = {_path(details): details for details in _details(error)}
    others = {
        fault.path: fault for fault in _faults_of_the_sound(data, complaints) if fault.path not in complaints
    }
    found: list[KeyPath] = sorted([*complaints, *others], key=lambda key: origin.line(key) or math.inf)
    return [
        _explained(key, complaints[key], origin)
        if key in complaints
        else _error(origin, key, others[key].message, others[key].hint)
        for key in found[:MAX_FAULTS]
    ]


def layout_from(data: dict[str, Any], origin: Origin) -> Layout:
    """The layout that parsed TOML says. Raises CidmError as `load_layout` does, for the first thing wrong."""
    try:
        return _validated(data, origin)
    except ValidationError as error:
        found = [(_path(details), details) for details in _details(error)]
        path, details = min(found, key=lambda entry: origin.line(entry[0]) or math.inf)
        raise _explained(path, details, origin) from None


def _validated(data: dict[str, Any], origin: Origin) -> Layout:
    """Raises CidmError for what is wrong with the whole file, ValidationError for what is wrong in it."""
    regions = data.get("region", [])
    if isinstance(regions, list) and len(regions) > MAX_REGIONS:
        # Before the models see them: a hundred thousand complaints take long to write.
        raise _error(origin, ("region", MAX_REGIONS), f"is one too many: at most {MAX_REGIONS} regions")
    version = data.get("version")
    if type(version) is int and version != FORMAT_VERSION:
        # Before the keys are looked at: those of a later version are no mistakes.
        raise _error(origin, ("version",), *OTHER_VERSION)
    layout = Layout.model_validate(data)
    layout._origin = origin
    return layout


def _read(path: str | Path, text: str | None, overrides: Sequence[str]) -> tuple[dict[str, Any], Origin]:
    source = "standard input" if str(path) == STANDARD_INPUT else str(path)
    if text is None and str(path) == STANDARD_INPUT:
        text = decode_utf8(read_standard_input(MAX_BYTES, source), source)
    elif text is None:
        text = _text(Path(path), source)
    document = parse_toml(text, source)
    data = document.data
    overridden = tuple(_override(data, override) for override in overrides)
    return data, Origin(source, document.lines, overridden)


def _text(path: Path, source: str) -> str:
    try:
        start = read_start(path, len(_PNG))
    except CidmError as error:
        if error.code == ExitCode.NOT_FOUND and path.suffix != ".toml":
            hint = 'a prompt is given with --prompt: cidm generate --prompt "a photo of a <dog>"'
            raise CidmError(error.message, hint, error.code) from None
        raise
    if start == _PNG:
        raise CidmError(
            f"{source} is an image, not a layout",
            hint=f"if cidm drew it, this draws it again: cidm generate --from {shlex.quote(source)}",
            code=ExitCode.INVALID,
        )
    return read_text(path, MAX_BYTES)


def _details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False)


def _faults_of_the_sound(data: dict[str, Any], faulty: Collection[KeyPath]) -> Iterator[Fault]:
    """What is wrong between values that are each right, where others are not: `faulty` says which."""
    keys = {path[:2] for path in faulty}
    if keys & {("image", "size"), ("image", "units"), ("image",), ("region",)}:
        return
    image = ImageSettings.model_validate(_without(data.get("image", {}), ("image",), faulty))
    regions = []
    for index, table in enumerate(data.get("region", ())):
        if ("region", index) in faulty:
            continue
        sound = _without(table, ("region", index), faulty)
        # What says nothing is not missing, and a faulty box does not lack a feather's box.
        if "box" in table and "box" not in sound:
            sound = {"mask": "stand-in"}
        elif "mask" in table and "mask" not in sound:
            sound["mask"] = "stand-in"
        regions.append((index, Region.model_validate({"prompt": "stand-in", **sound})))
    yield from faults_together(image, regions)


def _without(table: dict[str, Any], path: KeyPath, faulty: Collection[KeyPath]) -> dict[str, Any]:
    depth = len(path)
    wrong = {key[depth] for key in faulty if key[:depth] == path and len(key) > depth}
    return {name: value for name, value in table.items() if name not in wrong}


def check_concepts(layout: Layout, names: Iterable[str]) -> None:
    """Raise CidmError NOT_FOUND, with place and suggestion, if a prompt names a concept not among `names`."""
    for error in unknown_concepts(layout, names):
        raise error


def unknown_concepts(layout: Layout, names: Iterable[str]) -> Iterator[CidmError]:
    """An error for every place where a prompt names a concept not among `names`, in the order of the file."""
    names = tuple(names)
    prompts: list[tuple[KeyPath, str]] = [
        (("base", "prompt"), layout.base.prompt), (("base", "negative"), layout.base.negative),
    ]  # fmt: skip
    for index, region in enumerate(layout.regions):
        prompts.append((("region", index, "prompt"), region.prompt))
        prompts.append((("region", index, "negative"), region.negative or ""))
    for path, text in sorted(prompts, key=lambda one: layout.origin.line(one[0])):
        prompt = parse_prompt(text)
        for name in prompt.names:
            unknown = find_unknown(replace(prompt, names=(name,)), names)
            if unknown is not None:
                message = f"{layout.origin.place(path)}: {shown_key(path)}: {unknown}"
                yield CidmError(message, unknown.hint, unknown.code, _details_at(layout.origin, path))


def unfit_size(layout: Layout, multiple: int | None) -> CidmError | None:
    """An error for a size that a base cannot draw which takes ``multiple`` pixels at a time.

    None where it can, or where that is not known of the base.
    """
    size = layout.image.size
    if size is None or multiple is None or not any(side % multiple for side in size):
        return None
    width, height = (fitting(side, multiple) for side in size)
    message = f"is {size[0]} x {size[1]}, and this base draws multiples of {multiple}"
    return _error(layout.origin, ("image", "size"), message, f"try [{width}, {height}]")


def _override(data: dict[str, Any], override: str) -> KeyPath:
    """Set one key of `data` in place and return its path."""
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        raise _usage(f"--set {override!r} is not key=value", "write for instance --set image.seed=7")
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


def _explained(path: KeyPath, details: ErrorDetails, origin: Origin) -> CidmError:
    """A complaint of the models in our words."""
    context = details.get("ctx", {})
    kind, message = details["type"], details["msg"]
    if kind == "extra_forbidden":
        meant = _meant(path)
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


def _meant(path: KeyPath) -> str | None:
    """The key that an unknown one was probably meant to be: here, by another name, or in another table."""
    name, known = str(path[-1]), [*_known_keys(path)]
    ours = _OTHERS.get(name.casefold(), name)
    if ours in known:
        return ours
    if meant := nearest(name, known):
        return meant
    holders = [str(table) for table in _TABLES if ours in _known_keys((table, ours))]
    return f"{holders[0]}.{ours}" if holders else None


def _known_keys(path: KeyPath) -> Iterable[str]:
    table = _TABLES.get(path[0], Layout) if len(path) > 1 else Layout
    return [field.alias or name for name, field in table.model_fields.items()]


def _error(origin: Origin, path: KeyPath, message: str, hint: str = "") -> CidmError:
    place = origin.place(path)
    code = ExitCode.USAGE if place.startswith("--set ") else ExitCode.INVALID
    message = f"{place}: {shown_key(path)} {message}"
    return CidmError(message, hint or None, code, _details_at(origin, path))


def _details_at(origin: Origin, path: KeyPath) -> dict[str, Any]:
    return {"line": origin.line(path), "key": shown_key(path)}


def _usage(message: str, hint: str | None = None) -> CidmError:
    return CidmError(message, hint=hint, code=ExitCode.USAGE)
