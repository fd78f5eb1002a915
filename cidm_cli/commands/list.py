"""`cidm list`, `cidm ls`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..invocation import Invocation
from ..output import Result, Table

if TYPE_CHECKING:
    from cidm_registry import Record

SUMMARY = (
    "name",
    "key",
    "sequence",
    "version",
    "class_noun",
    "style",
    "tokens",
    "rank",
    "scale",
    "method",
    "blob",
    "preview",
    "created",
    "scores",
)
"""Fields of a record that a list shows under `--json`; `show` shows the others."""


def list_concepts(
    call: Invocation,
    all_versions: Annotated[bool, typer.Option("--all", "-a", help="Older versions too.")] = False,
) -> Result:
    """List the concepts learned so far, in the order they were learned. Also `cidm ls`."""
    registry = call.open_registry()
    records, problems = registry.listing(all_versions)
    for problem in problems:
        call.output.warn(f"{problem.path}: {problem.message}")
    table = Table(
        ("#", "NAME", "CLASS", "KIND", "VERSION", "METHOD", "LEARNED"),
        [_row(record) for record in records],
    )
    return Result(
        data={
            "registry": registry.root,
            "base": registry.base,
            "concepts": [{name: getattr(record, name) for name in SUMMARY} for record in records],
            "problems": problems,
        },
        human=[table] if records else ["no concepts yet: `cidm learn NAME IMAGES` learns one"],
        ids=[record.name for record in records],
    )


def _row(record: Record) -> tuple[Any, ...]:
    return (
        str(record.sequence),
        record.name,
        record.class_noun,
        "style" if record.style else "object",
        str(record.version),
        record.method,
        record.created[:16].replace("T", " "),
    )
