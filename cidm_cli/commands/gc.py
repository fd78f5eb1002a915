"""`cidm gc`."""

from typing import Annotated

import typer

from ..invocation import Invocation
from ..output import Result, readable_bytes


def collect(
    call: Invocation,
    now: Annotated[
        bool,
        typer.Option("--now", help="Also files younger than an hour. Not while others use the registry."),
    ] = False,
    runs: Annotated[bool, typer.Option("--runs", help="Also training runs nobody resumed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> Result:
    """Delete files that no concept uses: weights of removed concepts, leftovers of interrupted work."""
    from cidm_registry import GRACE

    registry = call.open_registry()
    grace = 0.0 if now else GRACE
    plan = registry.gc_plan(grace=grace, runs=runs) if dry_run else registry.gc(grace=grace, runs=runs)
    verb = "would delete" if dry_run else "deleted"
    lines = [f"{verb} {path}" for path in plan.files]
    lines.append(f"{verb} {len(plan.files)} file(s), {readable_bytes(plan.size)}")
    if plan.waiting:
        call.output.note(
            f"{plan.waiting} unused file(s) are younger than an hour and stay; --now takes them too"
        )
    return Result(
        data={"deleted": plan.files, "size": plan.size, "waiting": plan.waiting, "dry_run": dry_run},
        human=lines,
        ids=[str(path) for path in plan.files],
    )
