"""`cidm studio`."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.computing import MEMORY
from ..options.flags import flags
from ..terminal.output import Result
from .invocation import Invocation


@flags(how=MEMORY)
def studio(
    call: Invocation,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="For images, layouts and uploads.")
    ] = Path("cidm-studio"),
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes a free one. [default: 0]")
    ] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    *,
    how: dict[str, Any],
) -> Result:
    """Open a page in the browser: concepts, layouts, drawing, a gallery, learning. Ctrl-C ends it.

    Only this machine reaches it, by the address that is printed. It writes into FOLDER alone, and its layouts are files
    that cidm generate takes.
    """
    missing = [name for name in ("starlette", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        raise CidmError(
            f"cidm studio: {', '.join(missing)} is not installed",
            "pip install 'cidm[studio]'",
            ExitCode.USAGE,
        )
    registry = call.open_registry()
    computing = asdict(call.computing(how))

    from ..studio.place import Place
    from ..studio.server import run

    place = Place(str(registry.root.resolve()), str(out.resolve()), computing)
    address = run(place, port, call.output.note, browser=not no_browser)
    return Result(data={"address": address}, human=["the studio is closed"])
