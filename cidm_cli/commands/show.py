"""`cidm show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ..invocation import Invocation
from ..output import Result, readable_bytes

if TYPE_CHECKING:
    from cidm_registry import Record

SHOWN = 20
"""Names of older concepts that are listed."""


def show(call: Invocation, name: Annotated[str, typer.Argument(metavar="NAME", help="A concept.")]) -> Result:
    """Show everything that is known about a concept."""
    registry = call.open_registry()
    record, older = registry.get_with_older(name)
    file = registry.blob_path(record.blob)
    size = file.stat().st_size if file.exists() else None
    lines = {
        "name": record.name,
        "class": record.class_noun,
        "kind": "style" if record.style else "object",
        "number": f"{record.sequence}, version {record.version}",
        "tokens": " ".join(record.tokens),
        "learned": f"{record.created} by {record.method}",
        "rank": f"{record.rank}, scale {record.scale:g}",
        "against": _against(record, [one.name for one in older]),
        "weights": f"{file} ({'missing' if size is None else readable_bytes(size)})",
        "settings": json.dumps(record.config, ensure_ascii=False),
        "losses": json.dumps(record.losses, ensure_ascii=False),
        "scores": json.dumps(record.scores, ensure_ascii=False),
        "made with": ", ".join(f"{tool} {version}" for tool, version in record.tools.items()),
    }
    return Result(
        data={"concept": record.to_json(), "path": file, "size": size},
        human=[f"{label:<10} {text}" for label, text in lines.items() if text and text != "{}"],
        ids=[record.blob],
    )


def _against(record: Record, names: list[str]) -> str:
    """The older concepts it was learned against: the names of those that are still here, and how many are not."""
    against = record.against
    if not against.count:
        return "nothing: it came from a file" if record.method == "import" else "nothing: it was the first"
    if not against.sequence:
        return f"{against.count} of the registry it comes from"
    parts = names[:SHOWN]
    if len(names) > SHOWN:
        parts.append(f"{len(names) - SHOWN} more")
    if gone := against.count - len(names):
        parts.append(f"{gone} no longer here")
    return ", ".join(parts)
