"""`cidm doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..errors import CidmError
from ..options.computing import WHERE, Computing
from ..options.declared import spelled
from ..options.flags import chosen, flags
from ..terminal.output import Result, Table
from .invocation import Invocation


@flags(how=WHERE)
def doctor(
    call: Invocation,
    online: Annotated[bool, typer.Option("--online", help="Also ask whether the hub answers.")] = False,
    *,
    how: dict[str, Any],
) -> Result:
    """Say what this machine can do: versions, devices, disk, settings, registry. Changes nothing.

    Exit code 1 if something is missing that nothing works without.
    """
    from ..plan.doctor import FAIL, examine

    asked = spelled(Computing, chosen(Computing, "", how, call.settings))
    findings = examine(
        call.settings, call.registry_path, device=asked["device"], precision=asked["precision"], online=online
    )
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
