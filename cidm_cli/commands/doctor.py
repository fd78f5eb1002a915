"""`cidm doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..errors import CidmError
from ..terminal.output import Result, Table
from .common import DeviceOption, PrecisionOption
from .invocation import Invocation


def doctor(
    call: Invocation,
    online: Annotated[bool, typer.Option("--online", help="Also ask whether the hub answers.")] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> Result:
    """Say what this machine can do: versions, devices, disk, settings, registry. Changes nothing.

    Exit code 1 if something is missing that nothing works without.
    """
    from ..plan.doctor import FAIL, examine

    findings = examine(
        call.settings, call.registry_path, device=call.setting("device", device) or "auto",
        precision=call.setting("precision", precision) or "auto", online=online,
    )  # fmt: skip
    bad = [finding for finding in findings if finding.state == FAIL]
    failure = None
    if bad:
        failure = CidmError(f"{bad[0].what}: {bad[0].found}", bad[0].fix or None)
    rows = [(f.state, f.what, f"{f.found}; {f.fix}" if f.fix else f.found) for f in findings]
    return Result(
        data={"findings": [asdict(finding) for finding in findings]},
        human=[Table(("", "what", "found"), rows)],
        ids=[f"{finding.state} {finding.what}" for finding in findings],
        failure=failure,
    )
