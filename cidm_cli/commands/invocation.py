"""What every command is given: where to print, which settings apply, which registry is meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.places import expanded
from ..machine.processes import SOLO, Crew
from ..options.settings import Found, Settings
from ..options.values import check_precision
from ..terminal.output import Output

if TYPE_CHECKING:
    from cidm_registry import Registry


@dataclass(frozen=True)
class Invocation:
    """One run of one command."""

    output: Output
    """Where results, notes and progress go."""
    settings: Settings
    """What environment and settings files say."""
    registry_flag: Path | None
    """What `--registry` says."""
    crew: Crew = SOLO
    """The processes that run it."""

    @property
    def registry_path(self) -> Path:
        """The registry's folder: flag, environment, settings files, else the user's data folder."""
        if self.registry_flag is not None:
            return expanded(self.registry_flag)
        if found := self.settings.find("registry"):
            return path_from(found)
        from platformdirs import user_data_path

        return user_data_path("cidm", appauthor=False)

    def choice(self, name: str, flag: str | None) -> str:
        """A setting that is "auto" unless said otherwise: flag, environment, settings files."""
        if flag is not None:
            return flag
        found = self.settings.find(name)
        return found.value if found else "auto"

    def precision(self, flag: str | None) -> str:
        """What to compute in. Raises CidmError USAGE for no name of a precision."""
        name = self.choice("precision", flag)
        check_precision(name)
        return name

    def device(self, flag: str | None) -> str:
        """The device this process works on; several processes have a GPU each unless one is named."""
        return self.crew.device(self.choice("device", flag))

    def open_registry(self) -> Registry:
        """The registry that is meant. Raises what `Registry.open` raises."""
        from cidm_registry import Registry
        from cidm_registry.disk import Disk

        return Registry.open(self.registry_path, disk=Disk(self.output.warn), tell=self.output.warn)


def path_from(found: Found) -> Path:
    """A path setting; a relative one counts from where it was written down."""
    return found.folder / expanded(found.value)
