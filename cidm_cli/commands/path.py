"""`cidm path`."""

from typing import Annotated

import typer

from ..invocation import Invocation
from ..output import Result


def path(
    call: Invocation,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A concept.")] = None,
) -> Result:
    """Print where the registry is, or the file with a concept's weights."""
    if name is None:
        place = call.registry_path
    else:
        registry = call.open_registry()
        place = registry.blob_path(registry.get(name).blob)
    place = place.absolute()
    return Result(data={"path": place, "exists": place.exists()}, human=[str(place)], ids=[str(place)])
