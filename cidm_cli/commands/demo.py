"""`cidm demo`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    from .. import demo as workflow
    from ..machine.interrupts import graceful

    @contextmanager
    def stage(label: str, total: int) -> Iterator[Callable[[int, float | None], None]]:
        with call.output.progress(label, total) as progress:
            yield lambda done, loss: progress.update(done, **({} if loss is None else {"loss": loss}))

    with graceful() as stop:
        made = workflow.run(
            out,
            device=call.choice("device", device),
            precision=call.precision(precision),
            stage=workflow.Stage(stage, call.output.note, stop),
        )
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
            *(f"  {command}" for command in workflow.next_steps(made.registry)),
        ],
        ids=[str(made.report)],
    )
