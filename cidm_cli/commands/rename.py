"""`cidm rename`."""

from typing import Annotated

import typer

from ..invocation import Invocation
from ..output import Result


def rename(
    call: Invocation,
    old: Annotated[str, typer.Argument(metavar="OLD", help="A concept.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
) -> Result:
    """Give a concept another name. Prompts and layouts then use `<NEW>`."""
    registry = call.open_registry()
    record = registry.rename(old, new)
    return Result(
        data={"old": old, "name": record.name, "key": record.key},
        human=[f"{old} is now called {record.name}"],
        ids=[record.name],
    )
