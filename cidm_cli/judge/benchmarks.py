"""Benchmarks of other shapes than ours, as the same tasks: folders of concepts, and CustomConcept101."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CidmError, ExitCode
from ..files.json_files import read_json
from .tasks import Task, load_tasks, read_prompts

INDEX = "dataset.json"
BRACES = "{}"
"""What marks the concept in the prompts of CustomConcept101."""


@dataclass(frozen=True)
class Benchmark:
    """What there is to compare with."""

    tasks: tuple[Task, ...]
    """class_noun is "" and prompts are () where the data does not say"""
    notes: tuple[str, ...]
    """a line for everything that was left out"""


def load_benchmark(path: Path) -> Benchmark:
    """Load reference pictures, in whatever shape they come.

    - a `tasks.toml`, or a folder with one: as `load_tasks`;
    - CustomConcept101's `dataset.json`, or a folder with one: [{class_prompt, instance_data_dir, prompt_filename}];
    - any other folder: each folder in it is a concept, and its pictures the references.

    Raises CidmError: NOT_FOUND if there is nothing at `path`, or a file it names is missing; INVALID, naming file
    and entry, if it is none of these.
    """
    if (path / "tasks.toml").is_file() or path.suffix == ".toml":
        return Benchmark(load_tasks(path), ())
    if (path / INDEX).is_file() or path.suffix == ".json":
        return _custom_concept_101(path / INDEX if path.is_dir() else path)
    if not path.is_dir():
        raise CidmError(
            f"{path}: no such folder",
            hint="give a folder of concept folders, a tasks.toml or a dataset.json",
            code=ExitCode.NOT_FOUND,
        )
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise CidmError(
            f"{path} holds no folder of a concept's images",
            hint=f"put each concept's images into a folder of its name: {path}/dog/1.jpg",
            code=ExitCode.INVALID,
        )
    return Benchmark(tuple(Task(f.name, f.name, "", False, f, ()) for f in folders), ())


def _custom_concept_101(file: Path) -> Benchmark:
    entries = read_json(file)
    if not isinstance(entries, list) or not entries:
        raise _invalid(f"{file} is not a list of concepts")
    prompts: dict[str, tuple[str, ...]] = {}
    tasks: dict[str, Task] = {}
    absent = []
    for number, entry in enumerate(entries, 1):
        where = f"{file}, entry {number}"
        if not isinstance(entry, dict):
            several = "; lists of several concepts an entry are not read" if isinstance(entry, list) else ""
            raise _invalid(f"{where} is not a concept{several}")
        noun = _text(entry, "class_prompt", where)
        images = file.parent / _inside(entry, "instance_data_dir", where)
        prompt_file = _inside(entry, "prompt_filename", where)
        name = images.name
        if name in tasks:
            raise _invalid(f"{where}: a second concept with the folder name {name!r}")
        if prompt_file not in prompts:
            prompts[prompt_file] = read_prompts(file.parent / prompt_file, mark=BRACES)
        tasks[name] = Task(str(number), name, noun, False, images, prompts[prompt_file])
        if not images.is_dir():
            absent.append(name)
    if len(absent) == len(tasks):
        raise CidmError(
            f"{file}: none of its folders is there, {tasks[absent[0]].images} for one",
            hint="unpack the images beside it",
            code=ExitCode.NOT_FOUND,
        )
    notes = (
        (f"{file}: no folder of images for {len(absent)} concepts, {absent[0]} for one",) if absent else ()
    )
    return Benchmark(tuple(task for task in tasks.values() if task.name not in absent), notes)


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _invalid(f"{where}: {key} is missing or not a text")
    return " ".join(value.split())


def _inside(entry: dict[str, Any], key: str, where: str) -> str:
    """A relative path that stays below the file it stands in."""
    value = _text(entry, key, where)
    path = PurePosixPath(value.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name or ":" in value or "\0" in value:
        raise _invalid(f"{where}: {key} {value!r} must be a path below {INDEX}'s own folder")
    return str(path)


def _invalid(message: str) -> CidmError:
    return CidmError(message, code=ExitCode.INVALID)
