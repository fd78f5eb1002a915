"""Which concepts can be judged: each with its reference pictures, its class noun and its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cidm_templates
from cidm_registry import InvalidName, Record, Registry, canonical_key

from ..bases import family
from ..data import Dataset, load_examples
from ..errors import CidmError, ExitCode
from ..files.reading import read_text
from ..options.prompts import escaped
from .benchmarks import BRACES, load_benchmark
from .tasks import CONCEPT_MARK, Task, read_prompts, tasks_folder

MAX_PROMPTS = 64 << 10
"""Bytes of a file of prompts."""


@dataclass(frozen=True)
class Subject:
    """A concept and what it is judged by."""

    record: Record
    """Its newest version."""
    noun: str
    """What stands for it in the text that pictures are compared to."""
    images: Path
    """Its reference pictures."""
    prompts: tuple[str, ...]
    """Each with CONCEPT_MARK where the concept goes."""

    @property
    def named(self) -> tuple[str, ...]:
        """The prompts as they are drawn, with <name>."""
        return tuple(_filled(prompt, f"<{self.record.name}>") for prompt in self.prompts)

    @property
    def plain(self) -> tuple[str, ...]:
        """The prompts as the base alone draws them, with the class noun."""
        return tuple(_filled(prompt, escaped(self.noun)) for prompt in self.prompts)

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts as a judge reads them, with the class noun."""
        return tuple(prompt.replace(CONCEPT_MARK, self.noun) for prompt in self.prompts)

    def references(self) -> Dataset:
        """The pictures. Raises what ``load_examples`` raises."""
        return load_examples(self.images, class_noun=self.noun)


def match(
    records: Sequence[Record],
    tasks: Sequence[Task],
    *,
    noun: str | None = None,
    prompts: Sequence[str] | None = None,
    limit: int | None = None,
) -> tuple[list[Subject], list[tuple[str, str]]]:
    """The concepts that have reference pictures, in the order they were learned, and (name, why) of the others.

    Args:
        tasks: the data; concepts are found in it by name.
        noun: overrides the data's class nouns; where neither says one, it is the record's.
        prompts: override the data's; where it has none, they are the shipped set for objects or styles.
        limit: how many prompts of each set.

    Raises:
        CidmError: INVALID when two tasks name the same concept.
    """
    by_key: dict[str, Task] = {}
    for task in tasks:
        try:
            key = canonical_key(task.name)
        except InvalidName:
            continue  # no concept can be called so
        if key in by_key:
            raise CidmError(
                f"{task.images}: {by_key[key].images} is for the concept {task.name}, too",
                code=ExitCode.INVALID,
            )
        by_key[key] = task
    subjects, skipped = [], []
    for record in sorted(records, key=lambda record: record.sequence):
        found = by_key.get(record.key)
        if found is None:
            skipped.append((record.name, "the data holds no images of that name"))
            continue
        own = prompts or found.prompts or cidm_templates.prompt_set("style" if record.style else "object")
        subjects.append(
            Subject(record, noun or found.class_noun or record.class_noun, found.images, tuple(own[:limit]))
        )
    return subjects, skipped


def prompts_from(name: str) -> tuple[str, ...]:
    """The prompts of a shipped set, or of a file with a prompt a line and <TOK> or {} where the concept goes.

    Raises:
        CidmError: NOT_FOUND when it is neither, INVALID for a line without the mark.
    """
    if name in cidm_templates.prompt_sets():
        return cidm_templates.prompt_set(name)
    file = Path(name)
    if not file.is_file():
        raise CidmError(
            f"--prompts {name}: no such file, and no set of that name",
            hint=f"the sets are {', '.join(cidm_templates.prompt_sets())}",
            code=ExitCode.NOT_FOUND,
        )
    marked = CONCEPT_MARK in read_text(file, MAX_PROMPTS)
    return read_prompts(file, mark=CONCEPT_MARK if marked else BRACES)


def _filled(prompt: str, concept: str) -> str:
    return concept.join(escaped(part) for part in prompt.split(CONCEPT_MARK))


@dataclass(frozen=True)
class Chosen:
    """What is to be judged."""

    subjects: list[Subject]
    """The concepts to judge."""
    rivals: list[Subject]
    """All concepts with reference images."""
    skipped: list[tuple[str, str]]
    """Name and reason of those that are not judged."""
    notes: tuple[str, ...]
    """What the reference images' folder says of itself."""


def choose(
    registry: Registry,
    data: Path | None,
    *,
    prompts: str | None = None,
    names: Sequence[str] | None = None,
    noun: str | None = None,
    limit: int | None = None,
) -> Chosen:
    """The concepts to judge.

    Args:
        data: a folder with tasks.toml, CustomConcept101's dataset.json, or a folder of folders named like the concepts;
            None for mini's own.
        prompts: a file of prompts, or a set of them: object, pet or style.
        noun: class noun of every concept, over data and registry.
        limit: only this many prompts of each.

    Raises:
        CidmError: NOT_FOUND where nothing can be judged, USAGE where reference images have to be named.
    """
    if not registry.records():
        raise CidmError(
            f"{registry.root} holds no concepts yet",
            "`cidm learn NAME IMAGES` learns one",
            ExitCode.NOT_FOUND,
        )
    if data is None:
        if not family(registry.base.kind).references:
            raise CidmError(
                "no reference images to compare with",
                "give --data FOLDER, with a folder of images for each concept, named like it",
                ExitCode.USAGE,
            )
        data = tasks_folder()
    wanted = None
    if names is not None:
        wanted = {registry.get(name).key for name in names}
        if not wanted:
            raise CidmError("--concepts names none", "write for instance --concepts dog,cat", ExitCode.USAGE)
    benchmark = load_benchmark(data)
    rivals, skipped = match(
        registry.records(), benchmark.tasks, noun=noun,
        prompts=None if prompts is None else prompts_from(prompts), limit=limit,
    )  # fmt: skip
    subjects = [s for s in rivals if wanted is None or s.record.key in wanted]
    skipped = [(name, why) for name, why in skipped if wanted is None or canonical_key(name) in wanted]
    if not subjects:
        there = ", ".join(task.name for task in benchmark.tasks[:12])
        raise CidmError(
            f"{data} holds images of none of the concepts",
            f"it has {there}; folders and concepts must have the same names",
            ExitCode.NOT_FOUND,
        )
    return Chosen(subjects, rivals, skipped, tuple(benchmark.notes))
