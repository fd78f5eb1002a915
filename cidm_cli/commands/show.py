"""`cidm show`."""

import json
from typing import Annotated

import typer

from ..invocation import Invocation
from ..output import Result, readable_bytes


def show(call: Invocation, name: Annotated[str, typer.Argument(metavar="NAME", help="A concept.")]) -> Result:
    """Show everything that is known about a concept."""
    registry = call.open_registry()
    record = registry.get(name)
    file = registry.blob_path(record.blob)
    size = file.stat().st_size if file.exists() else None
    # One file imported twice is two concepts of one blob: its names in turn.
    names: dict[str, list[str]] = {}
    for one in registry.records(all_versions=True):
        names.setdefault(one.blob, []).append(one.name)
    turns = {blob: iter(each) for blob, each in names.items()}
    parents = [next(turns.get(parent, iter(())), "(removed)") for parent in record.parents]
    alone = "nothing: it came from a file" if record.method == "import" else "nothing: it was the first"
    lines = {
        "name": record.name,
        "class": record.class_noun,
        "kind": "style" if record.style else "object",
        "number": f"{record.sequence}, version {record.version}",
        "tokens": " ".join(record.tokens),
        "learned": f"{record.created} by {record.method}",
        "rank": f"{record.rank}, scale {record.scale:g}",
        "against": ", ".join(parents) or alone,
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
