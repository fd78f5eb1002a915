"""`cidm export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.computing import WHERE
from ..options.flags import flags
from ..share.places import KINDS
from ..terminal.output import Result, readable_bytes
from .invocation import Invocation, concept_names

if TYPE_CHECKING:
    from ..share.files import Written


@flags(how=WHERE)
def export(
    call: Invocation,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Concepts; without any, all of them.", autocompletion=concept_names
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar=f"[{'|'.join(KINDS)}]", help="What to write.", autocompletion=lambda: [*KINDS]
        ),
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
    *,
    how: dict[str, Any],
) -> Result:
    """Write concepts as files that other programs load. Prints their paths.

    kohya is for ComfyUI, AUTOMATIC1111, Forge and InvokeAI; comfyui has the names of the original code, without a
    trainer's metadata; diffusers and peft are for Python; embedding holds a concept's tokens alone; bundle moves whole
    concepts to another registry.
    """
    if out is None:
        raise CidmError("nowhere to write to", "give -o FILE.safetensors or -o FOLDER", ExitCode.USAGE)
    if merged is not None and (names or to in ("embedding", "bundle")):
        what = "concepts beside it" if names else f"--to {to}"
        raise CidmError(
            f"--merged {merged}: a file of weights alone, it does not go with {what}", code=ExitCode.USAGE
        )
    workspace = call.workspace(how)
    written = workspace.export(out, names or [], to=to, merged=merged, force=force)
    paths = [path for one in written for path in one.paths]
    if to == "bundle":
        (bundle,) = written
        data: dict[str, Any] = {"path": out, "bytes": bundle.size, "concepts": bundle.title.split(", ")}
        lines = [
            str(out),
            f"{bundle.title}: {readable_bytes(bundle.size)}; "
            "`cidm import` takes it into a registry on the same base",
        ]
    else:
        tell = _tokens if to == "embedding" else _weights
        data = {"exported": [tell(one, to)[0] for one in written]}
        lines = [line for one in written for line in (*map(str, one.paths), *tell(one, to)[1])]
    return Result(data={"kind": to, **data}, human=lines, ids=[str(path) for path in paths])


def _weights(one: Written, to: str) -> tuple[dict[str, Any], list[str]]:
    made: Any = one.made
    told = {name: getattr(made, name) for name in ("title", "rank", "layers", "of", "difference")}
    return {"paths": one.paths, **told}, [
        f"{made.title} for {to}: rank {made.rank} at {made.layers} of the {made.of} layers that a LoRA may change",
        f"read back, every key is known and the weights differ by at most {made.difference:.2g}",
    ]


def _tokens(one: Written, _to: str) -> tuple[dict[str, Any], list[str]]:
    made: Any = one.made
    told = "the same for all layers: nothing is lost"
    if made.sets > 1:
        told = (
            f"the mean of {made.sets} layers' sets moves the text embeddings by {made.lost:.2%} "
            f"(the bare class noun would by {made.noun:.2%}); learn --portable loses nothing"
        )
    return {"path": one.paths[0], **made.told()}, [f"{made.title}: {made.tokens} vectors, {told}"]
