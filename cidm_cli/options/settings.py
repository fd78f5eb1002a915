"""Where settings come from, nearest first: flag, environment, `cidm.toml` in the working folder, the user's file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CidmError, ExitCode
from .computing import Computing
from .declared import WORDS, declared
from .draw import DrawOptions
from .judge import EvalOptions
from .learn import LearnOptions
from .merge import MergeOptions
from .over import EditOptions, StylizeOptions

TABLES: Mapping[str, type] = {
    "": Computing,
    "learn": LearnOptions,
    "draw": DrawOptions,
    "eval": EvalOptions,
    "merge": MergeOptions,
    "stylize": StylizeOptions,
    "edit": EditOptions,
}
"""The declared options, by the table of a settings file that holds them; "" is the file itself."""
SETTINGS: Mapping[str, Any] = {
    "registry": str,
    "base": str,
    "control": str,
    **{
        f"{table}.{name}".lstrip("."): one.kind
        for table, cls in TABLES.items()
        for name, one in declared(cls).items()
    },
}
"""Every setting there is, with its type. `a.b` is key b of table [a] in a file, and CIDM_A_B in the environment."""

WORKING_FILE = "cidm.toml"
USER_FILE = "config.toml"
MAX_FILE = 64 << 10
"""Bytes."""

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Found:
    """A setting's value, and where it was found."""

    value: Any
    """Of the type declared in SETTINGS."""
    source: str
    """For messages: `CIDM_REGISTRY`, or the path of a file."""
    folder: Path
    """What a relative path in the value is relative to."""


@dataclass(frozen=True)
class Settings:
    """The settings that apply here, other than flags."""

    environment: Mapping[str, str]
    """The process's environment."""
    folder: Path
    """The working folder."""
    files: tuple[tuple[Path, Mapping[str, Any]], ...]
    """Settings files with their flattened content, nearest first."""
    faults: tuple[CidmError, ...] = ()
    """What is wrong with settings files that were left out for it."""

    def find(self, name: str) -> Found | None:
        """A setting from the environment or a file, or None. An empty variable counts as unset.

        Raises CidmError USAGE for a variable that cannot be read as the setting's type.
        """
        kind = SETTINGS[name]
        variable = variable_for(name)
        if text := self.environment.get(variable):
            return Found(_from_text(text, kind, variable), variable, self.folder)
        for path, values in self.files:
            if name in values:
                return Found(values[name], str(path), path.parent)
        return None


def load_settings(
    environment: Mapping[str, str], folder: Path, user_folder: Path, *, tolerant: bool = False
) -> Settings:
    """Reads the settings files that exist.

    Raises CidmError INVALID, naming file and line, for a file that is not TOML, an unknown setting (with a
    suggestion), or a value of the wrong type. If `tolerant`, such a file is left out and the error kept.
    """
    files, faults = [], []
    for path in (folder / WORKING_FILE, user_folder / USER_FILE):
        try:
            if path.exists():
                files.append((path, _read(path)))
        except CidmError as error:
            if not tolerant:
                raise
            faults.append(error)
    return Settings(environment, folder, tuple(files), tuple(faults))


def user_folder() -> Path:
    """Where the user's own settings file lies."""
    from platformdirs import user_config_path

    return user_config_path("cidm", appauthor=False)


def variable_for(name: str) -> str:
    """The environment variable of a setting."""
    return "CIDM_" + name.upper().replace(".", "_")


def _read(path: Path) -> dict[str, Any]:
    # Imported here: most folders have no settings file, and `cidm list` should not pay for one.
    from ..errors import nearest
    from ..files.reading import read_text
    from ..files.toml_files import parse_toml

    document = parse_toml(read_text(path, MAX_FILE), str(path))
    values: dict[str, Any] = {}
    for key, value in document.data.items():
        entries = (
            {f"{key}.{inner}": (key, inner) for inner in value} if isinstance(value, dict) else {key: (key,)}
        )
        for name, place in entries.items():
            where = f"{path}:{document.lines[place]}"
            if name not in SETTINGS:
                meant = nearest(name, SETTINGS)
                hint = f"did you mean {meant!r}?" if meant else f"known settings: {', '.join(SETTINGS)}"
                raise CidmError(f"{where}: unknown setting {name!r}", hint, ExitCode.INVALID)
            found = value[place[1]] if len(place) == 2 else value
            values[name] = _checked(found, SETTINGS[name], f"{where}: {name}")
    return values


def _checked(value: Any, kind: Any, where: str) -> Any:
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise CidmError(f"{where} is larger than any number", code=ExitCode.INVALID) from None
    if type(value) is not kind:
        raise CidmError(f"{where} must be {WORDS[kind]}", code=ExitCode.INVALID)
    return value


def _from_text(text: str, kind: Any, variable: str) -> Any:
    if kind is bool:
        if text.lower() in TRUE | FALSE:
            return text.lower() in TRUE
    else:
        try:
            return kind(text)
        except ValueError:
            pass
    raise CidmError(f"{variable} must be {WORDS[kind]}, not {text!r}", code=ExitCode.USAGE)
