"""`cidm demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options.computing import WHERE
from ..options.flags import flags
from ..terminal.output import Result
from .invocation import Invocation


@flags(how=WHERE)
def demo(
    call: Invocation,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to put it.")] = Path(
        "cidm-demo"
    ),
    *,
    how: dict[str, Any],
) -> Result:
    """Learn three concepts on the embedded base, draw them, and write a report. A few minutes on two cores."""
    from .. import demo as story

    made = story.run(out, call.computing(how), call.listener)
    return Result(
        data={"demo": made},
        human=[
            f"learned {', '.join(f'<{name}>' for name in made.concepts)}, one after another",
            f"<{made.concepts[0]}>: {made.unchanged} of {made.compared} images the same, byte for byte, "
            "before and after learning the others",
            f"images: {made.sheet}",
            f"report:   {made.report}",
            "",
            "try next:",
            *(f"  {command}" for command in story.next_steps(made.registry)),
        ],
        ids=[str(made.report)],
    )
