"""What comes with the program to start from: layouts to copy, and prompt sets to judge concepts by."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

CONCEPT_MARK = "<TOK>"
"""stands in a prompt set where the concept goes, as in the paper's own sets"""


def layouts() -> tuple[str, ...]:
    """The names of the layout templates, sorted."""
    return _names("layouts", ".toml")


def layout(name: str) -> str:
    """A layout file (TOML, comments and all). Raises LookupError, naming those there are, for another name."""
    return _read("layouts", name, ".toml")


def about(name: str) -> str:
    """What a layout template is for: its first line. Raises LookupError as `layout` does."""
    return layout(name).splitlines()[0].removeprefix("#").strip()


def prompt_sets() -> tuple[str, ...]:
    """The names of the prompt sets, sorted."""
    return _names("prompts", ".txt")


def prompt_set(name: str) -> tuple[str, ...]:
    """Evaluation prompts, each with one CONCEPT_MARK. Raises LookupError as `layout` does."""
    return tuple(line for line in _read("prompts", name, ".txt").splitlines() if line)


def _folder(kind: str) -> Traversable:
    return files(__name__).joinpath(kind)


def _names(kind: str, suffix: str) -> tuple[str, ...]:
    found = (entry.name for entry in _folder(kind).iterdir())
    return tuple(sorted(name.removesuffix(suffix) for name in found if name.endswith(suffix)))


def _read(kind: str, name: str, suffix: str) -> str:
    # Only names that are there become paths, so that none leads anywhere else.
    known = _names(kind, suffix)
    if name not in known:
        raise LookupError(f"{kind}: there is no {name!r}, only {', '.join(known)}")
    return _folder(kind).joinpath(name + suffix).read_text(encoding="utf-8")
