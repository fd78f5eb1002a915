"""Where merged and exported files go, refused before anything is made where they cannot. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cidm_registry import Record, Registry

from ..errors import CidmError, ExitCode
from ..files.writing import check_place, write_whole
from ..formats import file_names as known
from .selection import has_tokens

KINDS = ("kohya", "comfyui", "diffusers", "peft", "embedding", "bundle")
"""Kinds of files a concept is exported as; docs/export.md says who reads which."""
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Target:
    """Where the files of one concept go."""

    place: Path
    """A file, or the folder that files of given names are written into."""
    folder: bool

    def paths(self, names: Sequence[str]) -> list[Path]:
        """The path of each file."""
        return [self.place / name for name in names] if self.folder else [self.place]


def targets(kind: str, out: Path, titles: Sequence[str]) -> list[Target]:
    """Where each title's files go.

    Raises:
        CidmError: USAGE for a single file's name where a folder is needed.
    """
    if kind not in KINDS:
        raise CidmError(f"--to {kind}: must be one of {', '.join(KINDS)}", code=ExitCode.USAGE)
    single = out.suffix == SUFFIX and not out.is_dir()
    if kind == "bundle":
        if not single:
            raise CidmError(f"-o {out}: a bundle is one {SUFFIX} file", code=ExitCode.USAGE)
        return [Target(out, False)]
    if single and (len(titles) > 1 or kind == "peft"):
        what = "a PEFT adapter is a folder" if kind == "peft" else f"{len(titles)} files do not fit into one"
        raise CidmError(f"-o {out}: {what}", "give a folder with -o", ExitCode.USAGE)
    if single:
        return [Target(out, False)]
    if kind in ("diffusers", "peft"):
        return [Target(out if len(titles) == 1 else out / title, True) for title in titles]
    return [Target(out / f"{title}{SUFFIX}", False) for title in titles]


def file_names(kind: str) -> tuple[str, ...]:
    """Names of the files in a kind's folder."""
    return {
        "diffusers": (known.DIFFUSERS_WEIGHTS,),
        "peft": (known.PEFT_CONFIG, known.PEFT_WEIGHTS),
    }.get(kind, ("",))


def check_free(paths: Sequence[Path], *, force: bool) -> None:
    """Raises CidmError FAILED where a file is already, unless ``force``, or none can be written."""
    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise CidmError(
                f"{path}: already there", "choose another -o, or write over it with --force", ExitCode.FAILED
            )
        check_place(path)


def write(target: Target, files: Mapping[str, bytes]) -> list[Path]:
    """Writes content by name, each file whole or not at all; returns their paths."""
    paths = target.paths(list(files))
    for path, content in zip(paths, files.values(), strict=True):
        write_whole(path, content)
    return paths


@dataclass(frozen=True)
class MergedPlaces:
    """Where a merge goes."""

    out: Path
    embeddings: tuple[tuple[Record, Path], ...]
    """Concepts with tokens, each with the file beside it that they go into."""


def merged_places(registry: Registry, out: Path, records: Sequence[Record]) -> MergedPlaces:
    """Where the merge of some concepts goes.

    Raises:
        CidmError: USAGE for no name of a file, or where it would replace one that was not merged here, FAILED where
            none can be written.
    """
    if out.suffix != SUFFIX or out.is_dir():
        raise CidmError(f"-o {out}: not the name of a {SUFFIX} file", code=ExitCode.USAGE)
    folder = out.with_name(f"{out.stem}-embeddings")
    embeddings = tuple(
        (record, folder / f"{record.name}{SUFFIX}") for record in records if has_tokens(registry, record)
    )
    for path in (out, *(path for _, path in embeddings)):
        check_place(path)
        if os.path.lexists(path) and not _is_ours(path, embedding=path != out):
            raise CidmError(
                f"-o {out}: {path} is there, and cidm merge did not write it",
                "give another name",
                ExitCode.USAGE,
            )
    return MergedPlaces(out, embeddings)


def _is_ours(path: Path, *, embedding: bool) -> bool:
    # Torch comes with these: only a file that is there is worth its second.
    from ..formats.embedding import is_embedding
    from ..formats.merged import is_merged

    return is_embedding(path) if embedding else is_merged(path)
