"""Merged and exported concepts written as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cidm_registry import Record, Registry

from ..files.writing import write_whole
from ..models.base import Base
from . import export
from .merge import Merge
from .places import SUFFIX, MergedPlaces, Target, write


@dataclass(frozen=True)
class Written:
    """The files of one concept, or of one merged file."""

    title: str
    paths: tuple[Path, ...]
    size: int
    """Bytes of all of them."""
    made: export.Exported | export.TokenFile | None
    """What is in them and what was lost on the way; None for a bundle, which loses nothing."""


@dataclass(frozen=True)
class MergedFile:
    """A finished merge."""

    path: Path
    size: int
    """Bytes."""
    merge: Merge
    embeddings: tuple[tuple[Path, export.TokenFile], ...]
    """The concepts' tokens, beside it."""


def write_merged(registry: Registry, base: Base, merged: Merge, places: MergedPlaces) -> MergedFile:
    """Writes a merge and, beside it, its concepts' tokens; the merge last, when all else is there."""
    item = export.merged_item(registry, places.out.stem, merged.factors, merged.facts)
    content = export.lora(base, "kohya", registry.base.kind, item).files[""]
    tokens = [(path, export.tokens(registry, base, record)) for record, path in places.embeddings]
    for path, one in tokens:
        write_whole(path, one.content)
    write_whole(places.out, content)
    return MergedFile(places.out, len(content), merged, tuple(tokens))


def write_loras(
    registry: Registry,
    base: Base,
    to: str,
    records: Sequence[Record],
    merged: Path | None,
    places: Sequence[Target],
) -> list[Written]:
    """Writes the low-rank weights of concepts, or of a merged file. All are made before the first is written."""
    if merged is not None:
        items = [export.merged_file_item(registry, base, merged)]
    else:
        items = [export.concept_item(registry, base, record) for record in records]
    made = [export.lora(base, to, registry.base.kind, item) for item in items]
    return [
        _written(one.title, write(place, one.files), one) for place, one in zip(places, made, strict=True)
    ]


def write_tokens(
    registry: Registry, base: Base, records: Sequence[Record], places: Sequence[Target]
) -> list[Written]:
    """Writes the tokens of concepts. All are made before the first is written."""
    made = [export.tokens(registry, base, record) for record in records]
    return [
        _written(one.title, write(place, {f"{one.title}{SUFFIX}": one.content}), one)
        for place, one in zip(places, made, strict=True)
    ]


def write_bundle(registry: Registry, records: Sequence[Record], place: Target) -> list[Written]:
    """Writes whole concepts into one file."""
    paths = write(place, {"": export.bundle(registry, records)})
    return [_written(", ".join(record.name for record in records), paths, None)]


def _written(title: str, paths: Sequence[Path], made: Any) -> Written:
    return Written(title, tuple(paths), sum(path.stat().st_size for path in paths), made)
