"""`cidm rm`."""

from typing import Annotated

import typer

from ..invocation import Invocation
from ..output import Result, readable_bytes


def remove(
    call: Invocation,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Concepts.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also on a terminal.")] = False,
) -> Result:
    """Remove concepts, with all their versions. Their weights stay on disk until `cidm gc`."""
    registry = call.open_registry()
    # All are looked up before any goes: a misspelt second name must not leave half the work done.
    by_key = {registry.get(name).key: registry.remove_plan(name) for name in names}
    plans = list(by_key.values())
    removed = [plan.records[-1].name for plan in plans]
    for name, plan in zip(removed, plans, strict=True):
        left = [other for other in plan.dependents if other not in removed]
        if left:
            call.output.note(f"{', '.join(left)} learned to keep clear of {name}, and will go on working")
    if not dry_run:
        if not yes and call.output.interactive():
            typer.confirm(f"Remove {', '.join(removed)}?", abort=True, err=True)
        for name in removed:
            registry.remove(name)
    size = sum(plan.size for plan in plans)
    verb = "would remove" if dry_run else "removed"
    return Result(
        data={"removed": removed, "dry_run": dry_run, "size": size},
        human=[
            *(
                f"{verb} {name} ({len(plan.records)} version(s))"
                for name, plan in zip(removed, plans, strict=True)
            ),
            f"`cidm gc` frees {readable_bytes(size)} an hour after they were last used",
        ],
        ids=removed,
    )
