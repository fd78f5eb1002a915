"""`registry.json`: what says that a folder is a registry, of which format, on which base."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .disk import Disk
from .errors import Damaged, NewerFormat, NotFound
from .records import BaseRef
from .steps import FORMAT
from .strict_json import parse

HEAD_FILE = "registry.json"

MIGRATING = "migrating"
"""Key under which the head says, until it is finished, of a migration where the copy is."""


@dataclass(frozen=True)
class Head:
    """What the file says."""

    base: BaseRef
    """The model the concepts belong to."""
    content: dict[str, Any]
    """All of it, `format` in it no newer than FORMAT."""

    @property
    def outdated(self) -> bool:
        """Whether entries may be of an older format."""
        return bool(self.content["format"] < FORMAT or MIGRATING in self.content)


def encode_head(content: dict[str, Any]) -> bytes:
    """The file's content."""
    return json.dumps(content, indent=1, allow_nan=False).encode()


def new_head(base: BaseRef, created: str) -> bytes:
    """The content of a new registry's file."""
    return encode_head({"format": FORMAT, "base": asdict(base), "created": created})


def read_head(disk: Disk, root: Path) -> Head:
    """Raises NotFound where there is none, Damaged, NewerFormat for one from a newer program."""
    file = root / HEAD_FILE
    try:
        content = parse(disk.read(file))
        version = content["format"]
        if type(version) is int and version > FORMAT:
            raise NewerFormat(
                f"{root} is a registry of format {version}; this program knows {FORMAT}", "update cidm"
            )
        if type(version) is not int or version < 1:
            raise ValueError("its format is not a number")
        described = content["base"]
        base = BaseRef(
            described["kind"], described["source"], described["fingerprint"], described.get("vae", "")
        )
        if not all(isinstance(value, str) for value in asdict(base).values()):
            raise ValueError("its base is not described by text")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no registry in {root}", "make one with `cidm init`") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{file} cannot be read as a registry", "restore it from a backup") from error
    return Head(base, content)
