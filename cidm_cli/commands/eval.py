"""`cidm eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.flags import flags
from ..options.judge import EvalOptions
from ..terminal.output import Result
from .common import CompileOption, DeviceOption, OffloadOption, PrecisionOption, VramOption
from .invocation import Invocation
from .judging import going_on, loaded

if TYPE_CHECKING:
    from ..judge.layout_scores import NeglectScores


@flags(EvalOptions)
def evaluate(
    call: Invocation,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Reference pictures: a folder with tasks.toml, CustomConcept101's dataset.json, or a folder of "
            "folders named like the concepts. [default on mini: mini-CIFC]",
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE|SET",
            help="Prompts for every concept, <TOK> or {} where it goes: a file, or object, pet or style.",
        ),
    ] = None,
    names: Annotated[
        str | None, typer.Option("--concepts", metavar="NAMES", help="Only these: dog,cat. [default: all]")
    ] = None,
    noun: Annotated[
        str | None,
        typer.Option(
            "--class-noun", metavar="NOUN", help="Class noun of every concept, over data and registry."
        ),
    ] = None,
    merged: Annotated[
        Path | None,
        typer.Option(
            "--merged",
            metavar="FILE",
            help="Judge this file of cidm merge in place of the concepts' weights.",
        ),
    ] = None,
    layouts: Annotated[
        list[Path] | None,
        typer.Option(
            "--layouts",
            metavar="PATH",
            help="Judge layouts instead: a layout file, or a folder of them. May be given again and again.",
        ),
    ] = None,
    ways: Annotated[
        str | None,
        typer.Option(
            "--rivals",
            metavar="NAMES",
            help="Ways of drawing each layout to compare: own,full,fast,crops,no-attention,paper,neither,plain. "
            "[default: all]",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where pictures and results go.")
    ] = Path("cidm-eval"),
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    offload: OffloadOption = None,
    vram: VramOption = None,
    compile_blocks: CompileOption = None,
    *,
    given: dict[str, Any],
) -> Result:
    """Judge the learned concepts: likeness, text alignment, forgetting, retention, confusion.

    Draws every concept by a set of prompts and compares the pictures with its reference pictures. With --layouts,
    looks into the boxes of layouts: is each region's concept the one found there? Pictures are kept in
    FOLDER/samples: an evaluation that was stopped goes on where it was, and none is drawn twice.
    """
    if layouts:
        for flag, value in (("--prompts", prompts), ("--concepts", names), ("--merged", merged)):
            if value is not None:
                raise CidmError(f"{flag}: has no meaning with --layouts", "leave it out", ExitCode.USAGE)
    elif ways is not None:
        raise CidmError("--rivals: compares ways of drawing layouts", "give --layouts", ExitCode.USAGE)
    workspace = call.workspace(
        device=device, precision=precision, offload=offload, vram=vram, compiled=compile_blocks
    )
    with going_on(out / "samples"):
        if layouts:
            some = None if ways is None else _parted(ways)
            return _layouts(
                workspace.evaluate_layouts(
                    out, loaded(call, layouts), rivals=some, data=data, noun=noun, **given
                ),
                out,
            )
        found = workspace.evaluate(
            out, data=data, prompts=prompts, names=None if names is None else _parted(names), noun=noun,
            merged=merged, **given,
        )  # fmt: skip
    if found is None:
        return Result({}, ())
    from ..judge.report_files import table

    evaluation, paths = found
    return Result(
        data={"evaluation": evaluation.to_json(), "files": paths},
        human=[table(evaluation), f"written to {out}; {paths['report']} shows the pictures"],
        ids=[str(path) for path in paths.values()],
    )


def _layouts(found: tuple[NeglectScores, dict[str, Path]] | None, out: Path) -> Result:
    if found is None:
        return Result({}, ())
    from ..judge.layout_files import table

    scores, paths = found
    return Result(
        data={"layouts": scores.to_json(), "files": paths},
        human=[table(scores), f"written to {out}; {paths['report']} shows the pictures"],
        ids=[str(path) for path in paths.values()],
    )


def _parted(text: str) -> list[str]:
    """The parts of a text that commas part."""
    return [part.strip() for part in text.split(",") if part.strip()]
