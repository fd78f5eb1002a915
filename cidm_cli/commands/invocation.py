"""What every command is given: where to print, which settings apply, which registry is meant."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from cidm_registry import Record, Registry, RegistryError

from ..api import Workspace
from ..bases import families
from ..errors import CidmError
from ..files.places import expanded, user_registry
from ..machine.interrupts import graceful
from ..machine.processes import SOLO, Crew
from ..machine.session import Listener, Session, Update, open_registry
from ..options.computing import Computing
from ..options.declared import NOTHING, settled
from ..options.flags import chosen
from ..options.settings import Found, Settings, load_settings, user_folder
from ..terminal.output import Output


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
        found = self.settings.find("registry")
        return path_from(found) if found else user_registry()

    @property
    def control(self) -> str | None:
        """The model for structures that environment or settings files name."""
        found = self.settings.find("control")
        if found is None:
            return None
        place = path_from(found)
        return str(place) if place.is_dir() else str(found.value)

    @property
    def listener(self) -> Listener:
        """Tells of the work where this command prints; Ctrl-C and its kin stop a training at a good place."""
        return Listener(self.output.note, self.output.warn, self._stage, graceful)

    def computing(self, how: Mapping[str, Any]) -> Computing:
        """How is computed: as flags say, else as environment and settings files do.

        Raises:
            CidmError: USAGE for no name of a precision.
        """
        return settled(Computing, chosen(Computing, "", how, self.settings))

    def workspace(self, how: Mapping[str, Any] = NOTHING) -> Workspace:
        """The registry that is meant, at work. Raises what `Registry.open` and ``computing`` raise."""
        registry = self.open_registry()
        return Workspace(Session(registry, self.computing(how), self.listener, self.settings, self.crew))

    def open_registry(self) -> Registry:
        """The registry that is meant. Raises what `Registry.open` raises."""
        return open_registry(self.registry_path, self.output.warn)

    def setting(self, name: str, flag: Any) -> Any:
        """A setting: flag, environment, settings files; None where none says it."""
        if flag is not None:
            return flag
        found = self.settings.find(name)
        return None if found is None else found.value

    @contextmanager
    def _stage(self, label: str, total: int) -> Iterator[Update]:
        with self.output.progress(label, total) as progress:
            yield progress.update


def concept_names(context: typer.Context) -> list[str]:
    """The learned concepts, to complete a command line with."""
    return names_in(context, Registry.records)


def names_in(context: typer.Context, records: Callable[[Registry], list[Record]]) -> list[str]:
    """The names of some of the registry's records; none where no registry can be read."""
    said = context.params.get("registry") or context.find_root().params.get("registry")
    try:
        settings = load_settings(os.environ, Path.cwd(), user_folder(), tolerant=True)
        call = Invocation(Output(io.StringIO(), io.StringIO()), settings, said)
        return [record.name for record in records(call.open_registry())]
    except (CidmError, RegistryError, OSError):
        return []


def listed_names(context: typer.Context, incomplete: str) -> list[str]:
    """The learned concepts, to complete the last of several names between commas with."""
    return after_comma(incomplete, concept_names(context))


def after_comma(incomplete: str, names: Iterable[str]) -> list[str]:
    """A list that is being written, completed with each of these names."""
    written = incomplete[: incomplete.rfind(",") + 1]
    return [written + name for name in names]


def base_names() -> list[str]:
    """The bases that have a name, to complete a command line with."""
    return [one.name for one in families() if one.hub or one.references]


def path_from(found: Found) -> Path:
    """A path setting; a relative one counts from where it was written down."""
    return found.folder / expanded(found.value)
