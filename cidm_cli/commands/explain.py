"""`cidm explain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options.computing import WHERE
from ..options.declared import some
from ..options.draw import DrawOptions
from ..options.flags import flags
from ..terminal.output import Result, Table
from .invocation import Invocation
from .pictures import check_png

SHADES = " ░▒▓█"


@flags(how=WHERE, given=some(DrawOptions, "method", "power"))
def explain(
    call: Invocation,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help='For instance "a <dog> on the beach".')],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE.png", help="Also write the heat map as an image."),
    ] = None,
    *,
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:
    """Show which concepts each layer would draw on for a prompt, and how strongly.

    One row a cross-attention layer, one column a concept. What is shown is what cidm generate merges before it draws.
    """
    if out is not None:
        check_png(out)
    found = call.workspace(how).explain(prompt, **given)
    lines: list[str | Table] = [f"method {found.method}; named: {', '.join(found.named) or 'no concept'}"]
    lines.append(_table(found.layers, found.weights))
    if out is not None:
        from ..draw.explain import heat_map

        heat_map(found, out)
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
