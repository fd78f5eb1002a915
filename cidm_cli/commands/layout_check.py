"""`cidm layout check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..terminal.output import Result
from .invocation import Invocation
from .layout_files import registry_if_any

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..layout import Layout
    from ..layout.advice import Picture


@dataclass(frozen=True)
class Checked:
    """What was found in one file."""

    path: str
    faults: Sequence[CidmError]
    holds: dict[str, Any]
    """regions, concepts, size, mode and overlap; empty if the file cannot be read"""


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
    found = [_check(call, path, registry, names) for path in layouts]
    sound = [one for one in found if not one.faults]
    return Result(
        data={"layouts": [_described(one) for one in found]},
        human=[line for one in found for line in _lines(one)],
        ids=[one.path for one in sound],
        failure=_failure(found),
    )


def _check(call: Invocation, path: str, registry: Registry | None, names: list[str] | None) -> Checked:
    from ..layout import all_faults, unfit_size, unknown_concepts
    from ..layout.advice import advice
    from ..layout.masks import mask_folder, read_mask, read_structure

    layout = all_faults(path)
    if isinstance(layout, list):
        return Checked(path, layout, {})
    from ..draw.canvas import picture_of

    picture = picture_of(layout.image.size, registry)
    faults = [] if names is None else [*unknown_concepts(layout, names)]
    if unfit := unfit_size(layout, picture.multiple):
        faults.append(unfit)
    for index, region in enumerate(layout.regions):
        if region.mask is not None:
            try:
                read_mask(layout, index, mask_folder(layout))
            except CidmError as error:
                faults.append(error)
    if layout.structure is not None:
        try:
            read_structure(layout, mask_folder(layout))
        except CidmError as error:
            faults.append(error)
    warnings = advice(layout, picture)
    for warning in warnings:
        call.output.warn(warning)
    return Checked(path, faults, {**_holds(layout, picture), "warnings": warnings})


def _holds(layout: Layout, picture: Picture) -> dict[str, Any]:
    from ..options.prompts import parse_prompt

    prompts = [layout.base.prompt, *(region.prompt for region in layout.regions)]
    named = {name.casefold(): name for prompt in prompts for name in parse_prompt(prompt).names}
    return {
        "regions": len(layout.regions),
        "concepts": list(named.values()),
        "size": picture.size,
        "mode": layout.image.mode,
        "overlap": layout.image.overlap,
    }


def _lines(one: Checked) -> list[str]:
    if one.faults:
        return [error.message + (f"; {error.hint}" if error.hint else "") for error in one.faults]
    size = "the base's own size" if one.holds["size"] is None else "{} x {} pixels".format(*one.holds["size"])
    count = one.holds["regions"]
    regions = "no regions" if not count else f"{count} region{'s' if count > 1 else ''} ({one.holds['mode']})"
    concepts = " ".join(f"<{name}>" for name in one.holds["concepts"]) or "no concept"
    return [f"{one.path}: {regions}, {concepts}, {size}"]


def _described(one: Checked) -> dict[str, Any]:
    faults = [
        {"message": error.message, "hint": error.hint, "code": int(error.code), **error.details}
        for error in one.faults
    ]
    return {"path": one.path, "ok": not faults, **one.holds, "faults": faults}


def _failure(found: Sequence[Checked]) -> CidmError | None:
    faults = [error for one in found for error in one.faults]
    if not faults:
        return None
    codes = {error.code for error in faults}
    code = ExitCode.INVALID if ExitCode.INVALID in codes else faults[0].code
    faulty = sum(bool(one.faults) for one in found)
    things = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    files = "1 layout" if len(found) == 1 else f"{faulty} of {len(found)} layouts"
    return CidmError(f"{things} in {files}", "mend what is listed, then check again", code)
