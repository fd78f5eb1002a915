"""Where the page's files lie, and what of this machine a page may see: names in one folder, and no path."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api import Workspace
from ..errors import CidmError, ExitCode
from ..options.settings import load_settings, user_folder

_NAME = re.compile(r"(?!\.)[^/\\:\x00-\x1f\x7f]{1,200}")
"""Of a file or folder that a page may ask for: no separator, no leading dot."""


@dataclass(frozen=True)
class Place:
    """A registry, and the one folder that the page writes to."""

    registry: str
    """Absolute."""
    folder: str
    """Absolute. Images and layouts lie in it, others in its folders uploads, previews and exports."""
    computing: Mapping[str, Any]
    """Of ``Workspace.open``: device, precision, offload, vram, compile."""

    def workspace(self, **heard: Any) -> Workspace:
        """The registry, at work; ``heard`` are the callbacks of ``Workspace.open``."""
        settings = load_settings(os.environ, Path.cwd(), user_folder())
        return Workspace.open(self.registry, settings=settings, **self.computing, **heard)

    def within(self, *names: str) -> Path:
        """A file or folder in the folder, which may not be there yet.

        Raises:
            CidmError: NOT_FOUND for what is no plain name, and for a link that leads out.
        """
        home = Path(self.folder)
        path = home.joinpath(*names)
        if not all(_NAME.fullmatch(name) for name in names) or not path.resolve().is_relative_to(
            home.resolve()
        ):
            raise CidmError("there is no such file in the studio's folder", code=ExitCode.NOT_FOUND)
        return path

    def there(self, *names: str) -> Path:
        """A regular file in the folder. Raises CidmError NOT_FOUND where there is none."""
        path = self.within(*names)
        if not path.is_file():
            raise CidmError(f"{names[-1]}: no such file", code=ExitCode.NOT_FOUND)
        return path

    def shown(self, text: str) -> str:
        """A message without the paths of this machine."""
        for path, name in ((self.folder, "the folder"), (self.registry, "the registry")):
            text = text.replace(path + os.sep, "").replace(path, name)
        return text.replace(str(Path.home()), "~")
