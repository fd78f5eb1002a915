"""`cidm merge`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.flags import chosen, flags
from ..options.merge import MergeOptions, check_merge
from ..terminal.output import Result, Table, readable_bytes
from ..terminal.progress import counting
from .common import DeviceOption, PrecisionOption
from .invocation import Invocation

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..share.export import TokenFile
    from ..share.merge import Merge


@flags(MergeOptions)
def merge(
    call: Invocation,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Concepts; without any, all of them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The .safetensors file to write.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt that --method ewa merges for.")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weight", "-w", metavar="NAME=W", help="Factor on a concept; may be given again."),
    ] = None,
    analyze: Annotated[
        bool,
        typer.Option("--analyze", help="Write nothing: measure how the concepts get in each other's way."),
    ] = False,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    *,
    given: dict[str, Any],
) -> Result:
    """Merge concepts into one LoRA file for ComfyUI, AUTOMATIC1111, Forge, InvokeAI, diffusers. Prints its path.

    Only low-rank weights are in it. The concepts' tokens are written beside it as embedding files, into the folder
    FILE-embeddings; cidm generate --merged FILE takes them from the registry, one set for each layer. With --analyze,
    nothing is written and a table of interference is printed.
    """
    options = MergeOptions(**chosen(MergeOptions, "merge", given, call.settings))
    check_merge(options)
    if analyze and (out or prompt or weights):
        raise CidmError("--analyze writes no file and takes no prompt or weights", code=ExitCode.USAGE)
    if not analyze and out is None:
        raise CidmError("nowhere to write to", "give -o FILE.safetensors, or --analyze", ExitCode.USAGE)
    if out is not None and (out.suffix != ".safetensors" or out.is_dir()):
        raise CidmError(f"-o {out}: not the name of a .safetensors file", code=ExitCode.USAGE)
    registry = call.open_registry()
    where = call.choice("device", device), call.precision(precision)
    if out is None:
        return _analyze(call, registry, names or [], options, *where)
    return _merge(call, registry, names or [], _factors(weights or []), prompt, options, out, *where)


def _merge(
    call: Invocation,
    registry: Registry,
    names: list[str],
    factors: dict[str, float],
    prompt: str | None,
    options: MergeOptions,
    out: Path,
    device: str,
    precision: str,
) -> Result:
    from ..share.selection import has_tokens, to_merge

    selection = to_merge(registry, names, factors, prompt, options)
    with_tokens = [record for record in selection.records if has_tokens(registry, record)]
    folder = out.with_name(f"{out.stem}-embeddings")
    places = [folder / f"{record.name}.safetensors" for record in with_tokens]
    _check_out(out, places)

    from ..files.writing import write_whole
    from ..models.opening import open_base
    from ..share import export
    from ..share import merge as workflow

    base = open_base(registry, device=device, precision=precision)
    with call.output.progress("looking at features", max(workflow.work(selection), 1)) as progress:
        merged = workflow.merge(
            registry, base, selection, on_step=counting(progress.update), on_note=call.output.note
        )
    item = export.merged_item(registry, out.stem, merged.factors, merged.facts)
    content = export.lora(base, "kohya", registry.base.kind, item).files[""]
    tokens = [export.tokens(registry, base, record) for record in with_tokens]
    for place, one in zip(places, tokens, strict=True):
        write_whole(place, one.content)
    write_whole(out, content)
    report = {"difference": merged.difference, "lost": merged.lost, "strayed": merged.strayed}
    embeddings = [
        {"path": place, **one.told()} for place, one in zip(places, tokens, strict=True)
    ]  # fmt: skip
    return Result(
        data={
            "path": out, "bytes": len(content), "layers": len(merged.factors), "embeddings": embeddings, **report,
            **merged.facts,
        },
        human=[str(out), *_lines(merged, len(content)), *_token_lines(folder, tokens)],
        ids=[str(out)],
    )  # fmt: skip


def _check_out(out: Path, embeddings: Sequence[Path]) -> None:
    """Raises CidmError USAGE where -o would replace a file that was not merged here, FAILED where none can be written.

    Args:
        embeddings: the files of tokens beside it.
    """
    from ..files.writing import check_place

    for path in (out, *embeddings):
        check_place(path)
        if os.path.lexists(path) and not _is_ours(path, embedding=path != out):
            raise CidmError(
                f"-o {out}: {path} is there, and cidm merge did not write it",
                "give another name",
                ExitCode.USAGE,
            )


def _is_ours(path: Path, *, embedding: bool) -> bool:
    # Torch comes with these: only a file that is there is worth its second.
    from ..formats.embedding import is_embedding
    from ..formats.merged import is_merged

    return is_embedding(path) if embedding else is_merged(path)


def _token_lines(folder: Path, tokens: Sequence[TokenFile]) -> list[str]:
    """What a person is told about the concepts' tokens."""
    if not tokens:
        return []
    worst = max(tokens, key=lambda one: one.lost)
    return [
        f"tokens of {', '.join(one.title for one in tokens)} for other programs: {folder}",
        f"a mean over layers moves the text embeddings by at most {worst.lost:.2%} ({worst.title}); "
        "learn --portable loses nothing",
    ]


def _lines(merged: Merge, size: int) -> list[str]:
    """What a person is told about a finished merge."""
    facts = merged.facts
    names = ", ".join(concept["name"] for concept in facts["concepts"])
    lines = [
        f"{facts['method']} of {names}: rank {facts['rank']} at {len(merged.factors)} layers, {readable_bytes(size)}"
    ]
    if merged.difference is not None:
        lines.append(f"largest difference to the exact sum: {merged.difference:.2g}")
    if merged.strayed is not None:
        lines += [
            f"lost of what the concepts do to their own {kind} features: {share:.2%}"
            for kind, share in merged.strayed.items()
        ]
    if merged.lost:
        lines.append(f"lost of the squared weights by shortening to this rank: {merged.lost:.2%}")
    return lines


def _analyze(
    call: Invocation,
    registry: Registry,
    names: list[str],
    options: MergeOptions,
    device: str,
    precision: str,
) -> Result:
    records = registry.chosen(names)
    if len(records) < 2:
        raise CidmError(
            f"--analyze compares concepts with each other, and there is {len(records)}",
            "learn or name at least two",
            ExitCode.NOT_FOUND,
        )

    from ..models.opening import open_base
    from ..share import interference

    base = open_base(registry, device=device, precision=precision)
    with call.output.progress("drawing", interference.work(records, options)) as progress:
        found = interference.analyze(registry, base, records, options, on_step=counting(progress.update))
    table = Table(
        ("CONCEPT", "WITH", "OVERLAP", "CHANGE", "LIKENESS"),
        [
            (
                pair.concept,
                pair.added,
                f"{pair.overlap:.3f}",
                f"{pair.change:.1f}",
                "-" if pair.likeness is None else f"{pair.likeness:.3f}",
            )
            for pair in found.pairs
        ],
    )
    return Result(
        data=asdict(found),
        human=[
            table,
            "overlap of subspaces, 0 to 1; change of the pictures, of 255; likeness by CLIP, at most 1",
            f"{found.fits} more concepts of rank {found.rank} can be orthogonal to all of these "
            f"({found.tightest} has {found.free[found.tightest]} dimensions left)",
        ],
        ids=[f"{pair.concept} {pair.added} {pair.overlap:.6g} {pair.change:.6g}" for pair in found.pairs],
    )


def _factors(given: list[str]) -> dict[str, float]:
    """NAME=W by name. Raises CidmError USAGE for anything else."""
    out: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value) or name in out:
            raise CidmError(
                f"--weight {text}: not NAME=W, once for a concept",
                "write for instance --weight dog=0.8",
                ExitCode.USAGE,
            )
        out[name] = value
    return out
