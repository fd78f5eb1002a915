"""What prompts leave open, {red|blue} and __animal__, chosen for each image by its seed. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from ..errors import CidmError, ExitCode
from ..files.reading import read_text
from ..options.draw import PromptOptions
from ..options.prompts import literally
from .jobs import Job

MAX_TEXT, MAX_DEPTH = 20_000, 32
"""Characters that a prompt may grow to, and how often what was chosen may leave something open again."""
MAX_FILE = 4 << 20
_OPEN = re.compile(
    r"(?<!\\)(?:<[^<>]*>|\{((?:\\.|[^{}\\|])*(?:\|(?:\\.|[^{}\\|])*)+)\}|__(\w[\w-]*?(?:/[\w-]+?)*?)__)"
)
"""Mentions, alternatives without others in them, names of files."""


def chosen(job: Job, how: PromptOptions) -> Iterator[Job]:
    """A job in as many as it takes to leave nothing open: itself, or one for each image.

    One image's texts choose alike: where the whole prompt and a region's say {red|blue}, both say one of them.

    Raises:
        CidmError: NOT_FOUND for a file that is not there, USAGE for a name where no folder is given, or for files that
            name each other without an end.
    """
    options = job.options
    for first, count in how.seeds or [(options.seed, options.count)]:
        run = replace(job, options=replace(options, seed=first, count=count))
        if how.literal:
            yield _said(run, literally)
        elif any(map(_is_open, _texts(job))):
            for seed in range(first, first + count):
                one = replace(run, options=replace(options, seed=seed, count=1))
                yield _said(one, partial(choose, seed=seed, folder=how.wildcards))
        else:
            yield run


def choose(text: str, seed: int, folder: Path | None) -> str:
    """A prompt with nothing left open. Raises as ``chosen`` does."""
    random = Random(seed)

    def one(mark: re.Match[str]) -> str:
        inside, name = mark.groups()
        if inside is None and name is None:
            return mark.group()
        some = re.split(r"(?<!\\)\|", inside) if name is None else _lines_of(name, folder)
        return some[int(random.random() * len(some))]

    for _ in range(MAX_DEPTH):
        if not _is_open(text):
            return text
        if len(text) > MAX_TEXT:
            break
        text = _OPEN.sub(one, text)
    raise CidmError(
        f"prompt {text[:60]!r}: its choices never come to an end",
        "no file of wildcards may name itself, or one that names it",
        ExitCode.USAGE,
    )


def _is_open(text: str) -> bool:
    return any(mark.group()[0] != "<" for mark in _OPEN.finditer(text))


def lines(path: Path) -> list[str]:
    """A text file's lines, without empty ones and those that begin with #.

    Raises:
        CidmError: NOT_FOUND where there is none, INVALID for one that holds no line.
    """
    stripped = [line.strip() for line in read_text(path, MAX_FILE).splitlines()]
    found = [line for line in stripped if line and not line.startswith("#")]
    if not found:
        raise CidmError(f"{path}: holds no line", "write one text a line", ExitCode.INVALID)
    return found


def _lines_of(name: str, folder: Path | None) -> list[str]:
    if folder is None:
        raise CidmError(
            f"__{name}__: in which folder is {name}.txt?",
            rf"give --wildcards FOLDER, or write \__{name}__ for plain words",
            ExitCode.USAGE,
        )
    return lines(folder / f"{name}.txt")


def _texts(job: Job) -> list[str]:
    return [text for prompt, options in job.parts for text in (prompt, options.negative)]


def _said(job: Job, change: Callable[[str], str]) -> Job:
    """The job with every text of it changed."""
    return replace(
        job,
        prompt=change(job.prompt),
        options=replace(job.options, negative=change(job.options.negative)),
        layout=job.layout and job.layout.said(change),
    )
