"""`cidm export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..terminal.output import Result, readable_bytes
from .common import DeviceOption, PrecisionOption
from .invocation import Invocation

if TYPE_CHECKING:
    from cidm_registry import Record, Registry

KINDS = ("kohya", "diffusers", "peft", "embedding", "bundle")
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


def export(
    call: Invocation,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Concepts; without any, all of them.")
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="KIND", help=f"What to write: {', '.join(KINDS)}.")
    ] = "kohya",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="PATH", help="File to write, or folder; several concepts need a folder."
        ),
    ] = None,
    merged: Annotated[
        Path | None,
        typer.Option("--merged", metavar="FILE", help="Export a file of cidm merge in place of concepts."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> Result:
    """Write concepts as files that other programs load. Prints their paths.

    kohya is for ComfyUI, AUTOMATIC1111, Forge and InvokeAI; diffusers and peft are for Python; embedding holds a
    concept's tokens alone; bundle moves whole concepts to another registry.
    """
    if to not in KINDS:
        raise CidmError(f"--to {to}: must be one of {', '.join(KINDS)}", code=ExitCode.USAGE)
    if out is None:
        raise CidmError("nowhere to write to", "give -o FILE.safetensors or -o FOLDER", ExitCode.USAGE)
    if merged is not None and (names or to in ("embedding", "bundle")):
        what = "concepts beside it" if names else f"--to {to}"
        raise CidmError(
            f"--merged {merged}: a file of weights alone, it does not go with {what}", code=ExitCode.USAGE
        )
    registry = call.open_registry()
    if to == "bundle":
        return _bundle(registry, names or [], out, force=force)
    from ..share.selection import to_export

    how = call.precision(precision)
    records = [] if merged is not None else to_export(registry, names or [], to)
    titles = [record.name for record in records] if merged is None else [merged.stem]
    targets = _targets(to, out, titles)
    _check_free([path for target in targets for path in target.paths(_file_names(to))], force=force)

    from ..models.opening import open_base, outlined
    from ..share import export as workflow

    if registry.base.kind == "mini":
        call.output.note("note: the embedded base is known to this program alone; others cannot load it")
    if to == "embedding":
        base = open_base(registry, device=call.choice("device", device), precision=how)
        return _embeddings(registry, base, records, targets)
    base = outlined(registry)
    items = [workflow.concept_item(registry, base, record) for record in records]
    if merged is not None:
        items = [workflow.merged_file_item(registry, base, merged)]
    done = [workflow.lora(base, to, registry.base.kind, item) for item in items]
    entries, lines, paths = [], [], []
    for target, one in zip(targets, done, strict=True):
        written = _write(target, one.files)
        paths += written
        entries.append(
            {"paths": written, "title": one.title, "rank": one.rank, "layers": one.layers, "of": one.of,
             "difference": one.difference}
        )  # fmt: skip
        lines += [
            *map(str, written),
            f"{one.title} for {to}: rank {one.rank} at {one.layers} of the {one.of} layers that a LoRA may change",
            f"read back, every key is known and the weights differ by at most {one.difference:.2g}",
        ]
    return Result(data={"kind": to, "exported": entries}, human=lines, ids=[str(path) for path in paths])


def _embeddings(
    registry: Registry, base: Any, records: Sequence[Record], targets: Sequence[Target]
) -> Result:
    from ..share import export as workflow

    done = [workflow.tokens(registry, base, record) for record in records]
    entries, lines, paths = [], [], []
    for target, one in zip(targets, done, strict=True):
        (path,) = _write(target, {f"{one.title}{SUFFIX}": one.content})
        paths.append(path)
        entries.append({"path": path, **one.told()})
        told = "the same for all layers: nothing is lost"
        if one.sets > 1:
            told = (
                f"the mean of {one.sets} layers' sets moves the text embeddings by {one.lost:.2%} "
                f"(the bare class noun would by {one.noun:.2%}); learn --portable loses nothing"
            )
        lines += [str(path), f"{one.title}: {one.tokens} vectors, {told}"]
    return Result(
        data={"kind": "embedding", "exported": entries}, human=lines, ids=[str(path) for path in paths]
    )


def _bundle(registry: Registry, names: Sequence[str], out: Path, *, force: bool) -> Result:
    from ..share.selection import to_export

    if out.suffix != SUFFIX or out.is_dir():
        raise CidmError(f"-o {out}: a bundle is one {SUFFIX} file", code=ExitCode.USAGE)
    _check_free([out], force=force)
    records = to_export(registry, names, "bundle")

    from ..share import export as workflow

    content = workflow.bundle(registry, records)
    _write(Target(out, False), {"": content})
    return Result(
        data={"kind": "bundle", "path": out, "bytes": len(content), "concepts": [r.name for r in records]},
        human=[
            str(out),
            f"{', '.join(record.name for record in records)}: {readable_bytes(len(content))}; "
            "`cidm import` takes it into a registry on the same base",
        ],
        ids=[str(out)],
    )


def _targets(kind: str, out: Path, titles: Sequence[str]) -> list[Target]:
    """Where each title's files go.

    Raises:
        CidmError: USAGE for a single file's name where a folder is needed.
    """
    single = out.suffix == SUFFIX and not out.is_dir()
    if single and (len(titles) > 1 or kind == "peft"):
        what = "a PEFT adapter is a folder" if kind == "peft" else f"{len(titles)} files do not fit into one"
        raise CidmError(f"-o {out}: {what}", "give a folder with -o", ExitCode.USAGE)
    if single:
        return [Target(out, False)]
    if kind in ("diffusers", "peft"):
        return [Target(out if len(titles) == 1 else out / title, True) for title in titles]
    return [Target(out / f"{title}{SUFFIX}", False) for title in titles]


def _file_names(kind: str) -> tuple[str, ...]:
    """Names of the files in a kind's folder."""
    from ..formats import file_names as known

    return {
        "diffusers": (known.DIFFUSERS_WEIGHTS,),
        "peft": (known.PEFT_CONFIG, known.PEFT_WEIGHTS),
    }.get(kind, ("",))


def _check_free(paths: Sequence[Path], *, force: bool) -> None:
    """Raises CidmError FAILED where a file is already, unless ``force``, or none can be written."""
    from ..files.writing import check_place

    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise CidmError(
                f"{path}: already there", "choose another -o, or write over it with --force", ExitCode.FAILED
            )
        check_place(path)


def _write(target: Target, files: Mapping[str, bytes]) -> list[Path]:
    from ..files.writing import write_whole

    paths = target.paths(list(files))
    for path, content in zip(paths, files.values(), strict=True):
        write_whole(path, content)
    return paths
