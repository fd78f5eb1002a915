"""The registry's own verbs: `cidm init`, `list`, `show`, `rename`, `rm`, `restore`, `path`, `verify`, `gc`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cidm_registry import Registry, canonical_key

from ..api import made
from ..errors import CidmError, ExitCode
from ..terminal.output import Result, Table, readable_bytes
from .invocation import Invocation, base_names, concept_names, names_in
from .pictures import check_png, with_sheet

if TYPE_CHECKING:
    from cidm_registry import Record

DEFAULT_BASE = "mini"


def init(
    call: Invocation,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="BASE",
            help=f"The model to learn on. [default: {DEFAULT_BASE}]",
            autocompletion=base_names,
        ),
    ] = None,
    vae: Annotated[
        str, typer.Option("--vae", metavar="VAE", help="A VAE to use in place of the base's own.")
    ] = "",
) -> Result:
    """Make a registry for concepts learned on one base.

    BASE is `mini`, the small model that comes along; `sd15`, `sdxl`, `flux2-klein`, `z-image` or
    OWNER/NAME[@REVISION], fetched from the Hugging Face hub unless it is there; a diffusers folder; or a single
    .safetensors checkpoint. VAE is a folder or OWNER/NAME on the hub. A registry that is already there for the same
    base is left as it is.
    """
    from ..models.identity import identify

    if base is None:
        base = call.setting("base", None) or DEFAULT_BASE
    path = call.registry_path
    registry, created = made(path, identify(base, vae, call.output.note), call.listener)
    verb = "made" if created else "there already is"
    return Result(
        data={"registry": registry.root, "base": registry.base, "created": created},
        human=[f"{verb} a registry for {registry.base.source} in {registry.root}"],
        ids=[str(registry.root)],
    )


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
COLUMNS = ("#", "NAME", "CLASS", "KIND", "VERSION", "METHOD", "LEARNED")


def list_concepts(
    call: Invocation,
    all_versions: Annotated[bool, typer.Option("--all", "-a", help="Older versions too.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE.png", help="Write one sheet of their preview images."),
    ] = None,
) -> Result:
    """List the concepts learned so far, in the order they were learned. Also `cidm ls`."""
    if out:
        check_png(out)
    registry = call.open_registry()
    records, problems = registry.listing(all_versions)
    for problem in problems:
        call.output.warn(f"{problem.path}: {problem.message}")
    table = Table(COLUMNS, [_row(record) for record in records])
    found = Result(
        data={
            "registry": registry.root,
            "base": registry.base,
            "concepts": [_summary(record) for record in records],
            "problems": problems,
        },
        human=[table] if records else ["no concepts yet: `cidm learn NAME IMAGES` learns one"],
        ids=[record.name for record in records],
    )
    return with_sheet(call, registry, records, found, out) if out and records else found


def _summary(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in SUMMARY}


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


SHOWN = 20
"""Names of older concepts that are listed."""


def show(
    call: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A concept.", autocompletion=concept_names)],
) -> Result:
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
        "image": record.preview and str(registry.blob_path(record.preview)),
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
    if gone := max(against.count - len(names), 0):
        parts.append(f"{gone} no longer here")
    if against.count < len(names):
        parts.append(f"of these only {against.count}: the others were not here then")
    return ", ".join(parts)


def rename(
    call: Invocation,
    old: Annotated[str, typer.Argument(metavar="OLD", help="A concept.", autocompletion=concept_names)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
) -> Result:
    """Give a concept another name. Prompts and layouts then use `<NEW>`."""
    registry = call.open_registry()
    record = registry.rename(old, new)
    return Result(
        data={"old": old, "name": record.name, "key": record.key},
        human=[f"{old} is now called {record.name}"],
        ids=[record.name],
    )


def remove(
    call: Invocation,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Concepts.", autocompletion=concept_names)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also on a terminal.")] = False,
) -> Result:
    """Remove concepts, with all their versions. Until `cidm gc`, `cidm restore` brings them back."""
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
            f"`cidm restore {' '.join(removed)}` brings back what was removed, until `cidm gc` frees its "
            f"{readable_bytes(size)}, an hour after they were last used",
        ],
        ids=removed,
    )


def removed_names(context: typer.Context) -> list[str]:
    """The concepts that can be brought back, to complete a command line with."""
    return names_in(context, Registry.removed)


def restore(
    call: Invocation,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Removed concepts; without any, they are listed.",
            autocompletion=removed_names,
        ),
    ] = None,
) -> Result:
    """Bring removed concepts back, or list those that can be brought back.

    A concept comes back under its old number, with all its versions. `cidm gc` ends that: it deletes the weights.
    """
    registry = call.open_registry()
    there = registry.removed()
    if not names:
        table = Table(COLUMNS, [_row(record) for record in there])
        return Result(
            data={"removed": [_summary(record) for record in there]},
            human=[table] if there else ["nothing that was removed can be brought back"],
            ids=[record.name for record in there],
        )
    # A misspelt name comes first, so that it leaves no half of the work done.
    keys = {record.key for record in there}
    back = [registry.restore(name) for name in sorted(names, key=lambda name: canonical_key(name) in keys)]
    return Result(
        data={"restored": [_summary(record) for record in back]},
        human=[
            f"{record.name} is back (number {record.sequence}, version {record.version})" for record in back
        ],
        ids=[record.name for record in back],
    )


def path(
    call: Invocation,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A concept.", autocompletion=concept_names)
    ] = None,
) -> Result:
    """Print where the registry is, or the file with a concept's weights."""
    if name is None:
        place = call.registry_path
    else:
        registry = call.open_registry()
        place = registry.blob_path(registry.get(name).blob)
    place = place.absolute()
    return Result(data={"path": place, "exists": place.exists()}, human=[str(place)], ids=[str(place)])


def verify(call: Invocation) -> Result:
    """Read and check everything in the registry. Exit code 6 if anything is wrong."""
    registry = call.open_registry()
    problems = registry.verify()
    count = len(registry.listing()[0])
    failure = None
    if problems:
        failure = CidmError(
            f"{len(problems)} problem(s) in {registry.root}", problems[0].hint, ExitCode.REGISTRY
        )
    lines = [f"{problem.path}: {problem.message}; {problem.hint}" for problem in problems]
    return Result(
        data={"registry": registry.root, "concepts": count, "problems": problems},
        human=lines or [f"{registry.root} is sound: {count} concept(s)"],
        ids=[str(problem.path) for problem in problems],
        failure=failure,
    )


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
