"""Paths as people write them, and where this program keeps what it could make again."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import CidmError, ExitCode


def expanded(path: str | Path) -> Path:
    """A path with its ~ or ~USER resolved. Raises CidmError USAGE for what can be no path here."""
    try:
        whole = Path(path).expanduser()
        os.fsencode(whole)
        if "\0" not in str(whole):
            return whole
        why = "it holds a NUL"
    except (RuntimeError, UnicodeEncodeError) as error:
        why = str(error).rstrip(".")
    raise CidmError(f"{str(path)!r}: no path on this machine ({why})", code=ExitCode.USAGE)


def told_path(path: Path) -> str:
    """A path as a file may tell it that is made to be shared: as it was given if it leads down from there, else a name.

    Nothing of the maker's machine is in it. ``candidates`` finds it again.
    """
    down = not path.is_absolute() and ".." not in path.parts
    return path.as_posix() if down else path.name


def candidates(told: str | Path, beside: Path) -> tuple[Path, ...]:
    """Where what a file tells by ``told_path`` may lie: seen from the working folder, or from the file's own."""
    return Path(told), beside / told, beside / Path(told).name


def cache_folder() -> Path:
    """The folder that CIDM_CACHE names, else `cidm` in the user's cache folder; it may not be there yet."""
    if said := os.environ.get("CIDM_CACHE"):
        return expanded(said).resolve()
    from platformdirs import user_cache_path

    return user_cache_path("cidm", appauthor=False)


def user_registry() -> Path:
    """The registry's folder where none is named: in the user's data folder."""
    from platformdirs import user_data_path

    return user_data_path("cidm", appauthor=False)


def words(text: str) -> str:
    """What of a text can stand in any system's file names: its letters and digits, 60 at most."""
    return "-".join(re.findall(r"\w+", text.lower()))[:60].rstrip("-") or "picture"
