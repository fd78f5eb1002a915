"""Layout files: opened, saved, begun with a template; the page's boxes and the TOML, each made of the other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

import cidm_templates

from ..api import Workspace
from ..errors import CidmError, ExitCode
from ..files.reading import read_text
from ..files.toml_files import MAX_BYTES, parse_toml
from ..files.writing import write_whole
from ..layout import Layout
from ..layout.templates import filled, noun_of, sized, slots
from ..options.settings import WORKING_FILE
from .place import Place

UNNAMED = "layout"
"""What a layout is called until it is saved."""


def looked_at(
    place: Place, text: str, layout: dict[str, Any] | None = None, name: str = UNNAMED
) -> dict[str, Any]:
    """A layout's TOML and its values, with all that is wrong with it.

    Args:
        layout: values that the text is to say first; its comments stay.
    """
    if layout is not None:
        text = rewritten(text, layout)
    path = file_of(place, name)
    checked = place.workspace().check_layout(path, text)

    def told(message: str) -> str:
        return place.shown(re.sub(rf"^{re.escape(str(path))}:(\d+)?", r"line \1", message)).strip()

    faults = [
        {"message": told(fault.message), "hint": fault.hint, "region": _region(fault.details.get("key", ""))}
        for fault in checked.faults
    ]
    warnings = [{"message": told(line), "hint": None, "region": _region(line)} for line in checked.warnings]
    values = checked.layout and checked.layout.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "text": text, "layout": values, "faults": faults, "warnings": warnings,
        "size": checked.picture.size, "multiple": checked.picture.multiple,
    }  # fmt: skip


def file_of(place: Place, name: str) -> Path:
    """Where a layout lies. Raises CidmError for what is no plain name, USAGE for that of a settings file."""
    if name == Path(WORKING_FILE).stem:
        raise CidmError(f"{WORKING_FILE} is a settings file", "give another name", ExitCode.USAGE)
    return place.within(f"{name}.toml")


def rewritten(text: str, layout: Mapping[str, Any]) -> str:
    """A TOML text with other values; where it cannot be read, one made of the values alone."""
    try:
        parse_toml(text, UNNAMED)
        document = tomlkit.parse(text)
    except (CidmError, TOMLKitError):
        document = tomlkit.document()
    _put(document, layout)
    return tomlkit.dumps(document)


def opened(place: Place, name: str) -> dict[str, Any]:
    """A layout file of the folder."""
    text = read_text(file_of(place, name), MAX_BYTES)
    return {"name": name, "was": _digest(text), **looked_at(place, text, name=name)}


def saved(place: Place, name: str, text: str, was: str | None) -> dict[str, Any]:
    """Writes a layout file, the very one that `cidm generate` takes.

    Args:
        was: the digest of what was opened or saved last; None for a new file.

    Raises:
        CidmError: FAILED where the file is another by now.
    """
    path = file_of(place, name)
    there = _digest(read_text(path, MAX_BYTES)) if path.exists() else None
    if there not in (None, was, _digest(text)):
        what = "was changed elsewhere" if was else "is there already"
        raise CidmError(f"{path.name} {what}", "open it, or save under another name")
    write_whole(path, text.encode())
    return {"name": name, "was": _digest(text)}


def listed(place: Place) -> list[str]:
    """The layout files of the folder, by name without ending."""
    return sorted(path.stem for path in Path(place.folder).glob("*.toml") if path.name != WORKING_FILE)


def templates() -> list[dict[str, str]]:
    """The templates there are."""
    return [{"name": name, "about": cidm_templates.about(name)} for name in cidm_templates.layouts()]


def begun(place: Place, template: str) -> dict[str, Any]:
    """A template's layout with the registry's newest concepts, sized for its base."""
    try:
        text = cidm_templates.layout(template)
    except LookupError as error:
        raise CidmError(f"there is no template {template}", code=ExitCode.NOT_FOUND) from error
    workspace = place.workspace()
    newest = [(one.name, one.class_noun) for one in reversed(workspace.concepts) if not one.style]
    newest += [(name, noun_of(name)) for name in slots(text)][len(newest) :]
    text = filled(text, dict(zip(slots(text), newest, strict=False)))
    picture = workspace.check_layout(UNNAMED, text).picture
    if picture.size and picture.multiple:
        text = sized(text, picture.size[0], picture.multiple)
    return looked_at(place, text)


def of_image(place: Place, image: str) -> dict[str, Any]:
    """The layout that an image was drawn from, else one that says what its prompt and options were."""
    facts = Workspace.facts(place.there(image))
    text, options = facts.get("layout"), facts["options"]
    if text is None:
        drawn = {"seed": facts["seed"], **{key: options[key] for key in ("size", "steps", "guidance")}}
        base = {"prompt": facts["prompt"], "negative": options["negative"]}
        text = Layout.model_validate({"image": drawn, "base": base}).to_toml()
    return looked_at(place, text)


def _put(table: Any, values: Mapping[str, Any]) -> None:
    """Makes a table of a document say these values and no others; what says them already stays as it is written."""
    for key in [key for key in table if key not in values]:
        del table[key]
    for key, value in values.items():
        if isinstance(value, Mapping):
            if not isinstance(table.get(key), Mapping):
                table[key] = tomlkit.table()
            _put(table[key], value)
        elif value and isinstance(value, list) and isinstance(value[0], Mapping):
            _put_all(table, key, value)
        elif key not in table or table[key] != value:
            table[key] = value


def _put_all(table: Any, key: str, rows: list[Mapping[str, Any]]) -> None:
    if not isinstance(table.get(key), tomlkit.items.AoT):
        table[key] = tomlkit.aot()
    tables = table[key]
    while len(tables) > len(rows):
        del tables[-1]
    for number, row in enumerate(rows):
        if number == len(tables):
            fresh = tomlkit.table()
            fresh.trivia.indent = "\n"  # an empty line before it
            tables.append(fresh)
        _put(tables[number], row)


def _region(text: str) -> int | None:
    """The region that a key or a message is about."""
    found = re.search(r"\bregion\.(\d+)", text)
    return int(found[1]) if found else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
