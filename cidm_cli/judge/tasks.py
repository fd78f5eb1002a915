"""A benchmark on disk: concepts to learn one after another, and the prompts that test each.

tasks.toml                 [[task]] id, name, class_noun, prompts, and optionally style = true
concepts/<name>/           pictures and captions of the task
prompts/<prompts>.txt      a prompt a line, <TOK> where the concept goes
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CidmError, ExitCode
from ..files.reading import read_text
from ..files.toml_files import parse_toml

CONCEPT_MARK = "<TOK>"
STYLE_PROMPTS = "style"
MAX_BYTES = 64 << 10

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Task:
    """One concept of a benchmark, in the order of learning."""

    id: str
    """the task's short name in tables: V1, V2, …"""
    name: str
    """the concept's name, and its folder under concepts/"""
    class_noun: str
    """what the concept is, in plain words"""
    style: bool
    """whether it is a style rather than an object: it says so, or its prompts are the set "style" """
    images: Path
    """the folder of pictures and captions"""
    prompts: tuple[str, ...]
    """the evaluation prompts; each holds <TOK> where the concept goes"""


def tasks_folder() -> Path:
    """mini-CIFC: ten small tasks that come with the package."""
    return Path(__file__).parent.parent / "bases" / "mini_cifc"


def load_tasks(path: Path) -> tuple[Task, ...]:
    """Load a `tasks.toml`, or the one in the folder `path`. Keys it does not know are left to the reader.

    Raises CidmError: NOT_FOUND if the file, a concept's folder or a prompt set is missing; INVALID, naming
    file and task, if a value is missing, of the wrong type, not a plain name, or used by two tasks.
    """
    file = path / "tasks.toml" if path.is_dir() else path
    content = parse_toml(read_text(file, MAX_BYTES), str(file)).data
    entries = content.get("task")
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise _invalid(f"{file} lists no [[task]]")
    tasks = tuple(
        _task(entry, f"{file}, task {number}", file.parent) for number, entry in enumerate(entries, 1)
    )
    for key in ("id", "name"):
        values = [getattr(task, key) for task in tasks]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise _invalid(f"{file}: two tasks have the {key} {twice!r}")
    return tasks


def _task(entry: dict[str, Any], where: str, root: Path) -> Task:
    prompt_set = _plain_name(entry, "prompts", where)
    style = entry.get("style", prompt_set == STYLE_PROMPTS)
    if not isinstance(style, bool):
        raise _invalid(f"{where}: style must be true or false")
    name = _plain_name(entry, "name", where)
    images = root / "concepts" / name
    if not images.is_dir():
        raise CidmError(f"{where}: no folder {images}", code=ExitCode.NOT_FOUND)
    return Task(
        id=_plain_name(entry, "id", where),
        name=name,
        class_noun=_text(entry, "class_noun", where),
        style=style,
        images=images,
        prompts=read_prompts(root / "prompts" / f"{prompt_set}.txt"),
    )


def read_prompts(file: Path, *, mark: str = CONCEPT_MARK) -> tuple[str, ...]:
    """The prompts in a file, one a line, each with CONCEPT_MARK where the file has `mark`.

    Raises CidmError: NOT_FOUND if there is no such file; INVALID, naming it, for a line without a mark, or no line.
    """
    lines = read_text(file, MAX_BYTES).splitlines()
    prompts = tuple(line.strip() for line in lines if line.strip())
    unmarked = next((prompt for prompt in prompts if mark not in prompt), None)
    if unmarked is not None:
        raise _invalid(f"{file}: no {mark} in {unmarked!r}")
    if not prompts:
        raise _invalid(f"{file} holds no prompt")
    return tuple(prompt.replace(mark, CONCEPT_MARK) for prompt in prompts)


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _invalid(f"{where}: {key} is missing or not a text")
    return value.strip()


def _plain_name(entry: dict[str, Any], key: str, where: str) -> str:
    """A text that can be part of a path without leading anywhere else."""
    value = _text(entry, key, where)
    if not _PLAIN_NAME.fullmatch(value):
        raise _invalid(f"{where}: {key} {value!r} may hold only letters, digits, '.', '_' and '-'")
    return value


def _invalid(message: str) -> CidmError:
    return CidmError(message, code=ExitCode.INVALID)
