"""`cidm demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal.output import Result
from .common import DeviceOption, PrecisionOption
from .invocation import Invocation


def demo(
    call: Invocation,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to put it.")] = Path(
        "cidm-demo"
    ),
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> Result:
    """Learn three concepts on the embedded base, draw them, and write a report. A few minutes on two cores."""
    from .. import demo as story

    made = story.run(out, call.computing(device=device, precision=precision), call.listener)
    return Result(
        data={"demo": made},
        human=[
            f"learned {', '.join(f'<{name}>' for name in made.concepts)}, one after another",
            f"<{made.concepts[0]}>: {made.unchanged} of {made.compared} pictures the same, byte for byte, "
            "before and after learning the others",
            f"pictures: {made.sheet}",
            f"report:   {made.report}",
            "",
            "try next:",
            *(f"  {command}" for command in story.next_steps(made.registry)),
        ],
        ids=[str(made.report)],
    )
