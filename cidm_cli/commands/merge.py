"""`cidm merge`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.computing import WHERE
from ..options.declared import declared
from ..options.flags import flags
from ..options.merge import MergeOptions
from ..terminal.output import Result, Table, readable_bytes
from .invocation import Invocation, concept_names

if TYPE_CHECKING:
    from ..share.export import TokenFile
    from ..share.interference import Analysis
    from ..share.merge import Merge


@flags(how=WHERE, given=declared(MergeOptions))
def merge(
    call: Invocation,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Concepts; without any, all of them.", autocompletion=concept_names
        ),
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
    *,
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:
    """Merge concepts into one LoRA file for ComfyUI, AUTOMATIC1111, Forge, InvokeAI, diffusers. Prints its path.

    Only low-rank weights are in it. The concepts' tokens are written beside it as embedding files, into the folder
    FILE-embeddings; cidm generate --merged FILE takes them from the registry, one set for each layer. With --analyze,
    nothing is written and a table of interference is printed.
    """
    if analyze and (out or prompt or weights):
        raise CidmError("--analyze writes no file and takes no prompt or weights", code=ExitCode.USAGE)
    if not analyze and out is None:
        raise CidmError("nowhere to write to", "give -o FILE.safetensors, or --analyze", ExitCode.USAGE)
    workspace = call.workspace(how)
    if out is None:
        return _analysis(workspace.analyze(names or [], **given))
    factors = _factors(weights or [])
    made = workspace.merge(out, names or [], prompt=prompt, weights=factors, **given)
    merged = made.merge
    tokens = [one for _, one in made.embeddings]
    return Result(
        data={
            "path": out, "bytes": made.size, "layers": len(merged.factors),
            "embeddings": [{"path": path, **one.told()} for path, one in made.embeddings],
            "difference": merged.difference, "lost": merged.lost, "strayed": merged.strayed, **merged.facts,
        },
        human=[
            str(out), *_lines(merged, made.size),
            *_token_lines(out.with_name(f"{out.stem}-embeddings"), tokens),
        ],
        ids=[str(out)],
    )  # fmt: skip


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


def _analysis(found: Analysis) -> Result:
    """The table of interference."""
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
            "overlap of subspaces, 0 to 1; change of the images, of 255; likeness by CLIP, at most 1",
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
