"""Layout files and sizes of images, as commands handle them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CidmError
from ..files.writing import unwritable
from .invocation import Invocation

if TYPE_CHECKING:
    from cidm_registry import Registry


def write_layout(call: Invocation, text: str, out: Path, *, force: bool) -> Path | None:
    """Writes a layout file, and returns its path; None for -, which is to be printed.

    Raises CidmError FAILED if there is a file already and not `force`, or if it cannot be written.
    """
    if str(out) == "-":
        return None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from error
    try:
        with out.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        hint = "give another name with -o, or --force to write over it"
        raise CidmError(f"{out} is there already", hint) from None
    except OSError as error:
        raise unwritable(out, error) from error
    return out


def registry_if_any(call: Invocation) -> Registry | None:
    """The registry that is meant, or None if there is none and none was asked for by --registry."""
    from cidm_registry import NotFound

    try:
        return call.open_registry()
    except NotFound:
        if call.registry_flag is not None:
            raise
        return None
