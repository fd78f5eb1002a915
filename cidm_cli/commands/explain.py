"""`cidm explain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CidmError, ExitCode
from ..options.draw import DrawOptions, resolve_draw
from ..options.flags import chosen
from ..terminal.output import Result, Table
from .common import DeviceOption, PrecisionOption
from .invocation import Invocation
from .pictures import check_png

SHADES = " ░▒▓█"


def explain(
    call: Invocation,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help='For instance "a <dog> on the beach".')],
    method: Annotated[
        str | None, typer.Option("--method", help="How concepts are put together, as for cidm generate.")
    ] = None,
    power: Annotated[
        float | None, typer.Option("--power", help="Exponent of the similarities, as for cidm generate.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE.png", help="Also write the heat map as a picture."),
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> Result:
    """Show which concepts each layer would draw on for a prompt, and how strongly.

    One row a cross-attention layer, one column a concept. What is shown is what cidm generate merges before it draws.
    """
    if out is not None:
        check_png(out)
    registry = call.open_registry()
    if not registry.records():
        raise CidmError(
            "the registry holds no concept yet", "learn one: cidm learn NAME FOLDER", ExitCode.NOT_FOUND
        )
    said = {"method": method, "power": power}
    given = {name: value for name, value in said.items() if value is not None}
    options = DrawOptions(**chosen(DrawOptions, "draw", given, call.settings))
    resolve_draw(options, registry.base.kind, 64)
    how = call.precision(precision)

    from ..draw.jobs import Job, check

    check(registry, [Job(prompt, options)])

    from ..draw import explain as workflow
    from ..models.opening import open_base

    base = open_base(registry, device=call.choice("device", device), precision=how)
    whole = resolve_draw(options, registry.base.kind, base.pixels)
    found = workflow.explain(registry, base, prompt, whole, call.output.note)
    lines: list[str | Table] = [f"method {found.method}; named: {', '.join(found.named) or 'no concept'}"]
    lines.append(_table(found.layers, found.weights))
    if out is not None:
        workflow.heat_map(found, out)
        lines.append(str(out))
    return Result(
        data=asdict(found), human=lines, ids=[name for name, row in found.weights.items() if any(row)]
    )


def _table(layers: tuple[str, ...], weights: dict[str, tuple[float, ...]]) -> Table:
    """Concepts that nothing is drawn from are left out, unless there is no other."""
    shown = [name for name, row in weights.items() if any(row)] or list(weights)
    rows = [
        [str(number), layer, *(_cell(weights[name][number]) for name in shown)]
        for number, layer in enumerate(layers)
    ]
    return Table(("layer", "where", *(f"<{name}>" for name in shown)), rows)


def _cell(weight: float) -> str:
    shade = SHADES[min(len(SHADES) - 1, round(weight * (len(SHADES) - 1)))] if weight > 0 else " "
    return f"{shade * 2} {weight:.3f}"
