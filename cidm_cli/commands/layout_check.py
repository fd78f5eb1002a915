"""`cidm layout check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..terminal.output import Result
from .invocation import Invocation
from .layout_files import registry_if_any

if TYPE_CHECKING:
    from ..draw.checking import Checked


def check(
    call: Invocation,
    layouts: Annotated[
        list[str], typer.Argument(metavar="LAYOUT.toml...", help="Layout files; - reads one from stdin.")
    ],
    no_concepts: Annotated[
        bool, typer.Option("--no-concepts", help="Do not look for the concepts in the registry.")
    ] = False,
) -> Result:
    """Check layout files: all that is wrong with all of them, and what may not come out as meant.

    Concepts are looked for in the registry, if there is one. With -q only the files that can be drawn are printed.
    """
    registry = registry_if_any(call)
    if registry is None and not no_concepts:
        call.output.note(
            f"no registry in {call.registry_path}: whether the concepts are there is not checked"
        )
    names = None if registry is None or no_concepts else [record.name for record in registry.records()]
    from ..draw.checking import checked

    found = [(path, checked(path, None, registry, names)) for path in layouts]
    for _, one in found:
        for warning in one.warnings:
            call.output.warn(warning)
    return Result(
        data={"layouts": [_described(path, one) for path, one in found]},
        human=[line for path, one in found for line in _lines(path, one)],
        ids=[path for path, one in found if not one.faults],
        failure=_failure([one for _, one in found]),
    )


def _holds(one: Checked) -> dict[str, Any]:
    """Regions, concepts, size, mode and overlap; empty if the file cannot be read."""
    from ..options.prompts import parse_prompt

    if (layout := one.layout) is None:
        return {}
    prompts = [layout.base.prompt, *(region.prompt for region in layout.regions)]
    named = {name.casefold(): name for prompt in prompts for name in parse_prompt(prompt).names}
    return {
        "regions": len(layout.regions),
        "concepts": list(named.values()),
        "size": one.picture.size,
        "mode": layout.image.mode,
        "overlap": layout.image.overlap,
        "warnings": one.warnings,
    }


def _lines(path: str, one: Checked) -> list[str]:
    if one.faults:
        return [error.message + (f"; {error.hint}" if error.hint else "") for error in one.faults]
    holds = _holds(one)
    size = "the base's own size" if holds["size"] is None else "{} x {} pixels".format(*holds["size"])
    count = holds["regions"]
    regions = "no regions" if not count else f"{count} region{'s' if count > 1 else ''} ({holds['mode']})"
    concepts = " ".join(f"<{name}>" for name in holds["concepts"]) or "no concept"
    return [f"{path}: {regions}, {concepts}, {size}"]


def _described(path: str, one: Checked) -> dict[str, Any]:
    faults = [
        {"message": error.message, "hint": error.hint, "code": int(error.code), **error.details}
        for error in one.faults
    ]
    return {"path": path, "ok": not faults, **_holds(one), "faults": faults}


def _failure(found: Sequence[Checked]) -> CidmError | None:
    faults = [error for one in found for error in one.faults]
    if not faults:
        return None
    codes = {error.code for error in faults}
    code = ExitCode.INVALID if ExitCode.INVALID in codes else faults[0].code
    faulty = sum(bool(one.faults) for one in found)
    things = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    files = "1 layout" if len(found) == 1 else f"{faulty} of {len(found)} layouts"
    return CidmError(f"{things} in {files}", "correct these, then check again", code)
