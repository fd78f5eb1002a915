"""`cidm eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..files.writing import check_place
from ..options.draw import resolve_draw
from ..options.flags import chosen, flags
from ..options.judge import EvalOptions, check, drawing
from ..terminal.output import Result
from .common import CompileOption, DeviceOption, OffloadOption, PrecisionOption, VramOption
from .invocation import Invocation
from .judging import evaluate_layouts, events, going_on, opened
from .machine import Machine, machine

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..judge.report import Evaluation
    from ..judge.subjects import Subject


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
    registry = call.open_registry()
    where = machine(
        call, registry.base.kind, "draw", device=device, precision=precision, offload=offload, vram=vram,
        compiled=compile_blocks,
    )  # fmt: skip
    options = EvalOptions(**where.completed(chosen(EvalOptions, "eval", given, call.settings)))
    check(options)

    from ..draw.jobs import check_negative

    resolve_draw(drawing(options), registry.base.kind, 64)
    check_negative(registry.records(), options.negative)
    check_place(out / "results.json")
    subjects, rivals, skipped = _subjects(call, registry, data, prompts, names, noun, options.limit_prompts)
    if layouts:
        return evaluate_layouts(call, registry, rivals, layouts, ways, options, out, where)
    for name, why in skipped:
        call.output.note(f"{name} is not judged: {why}")
    with going_on(out / "samples"):
        evaluation = _evaluate(
            call, registry, subjects, rivals, skipped, options, merged, out / "samples", where
        )
    if not call.crew.main:
        return Result({}, ())
    from ..judge.concepts import keep_scores
    from ..judge.report_files import table, write

    paths = write(evaluation, out, out / "samples", subjects)
    if options.save:
        for problem in keep_scores(registry, evaluation):
            call.output.warn(problem)
    return Result(
        data={"evaluation": evaluation.to_json(), "files": paths},
        human=[table(evaluation), f"written to {out}; {paths['report']} shows the pictures"],
        ids=[str(path) for path in paths.values()],
    )


def _subjects(
    call: Invocation,
    registry: Registry,
    data: Path | None,
    prompts: str | None,
    names: str | None,
    noun: str | None,
    limit: int | None,
) -> tuple[list[Subject], list[Subject], list[tuple[str, str]]]:
    """The concepts to judge, all concepts with pictures, and (name, why) of those that are not judged."""
    from cidm_registry import canonical_key

    from ..judge.benchmarks import load_benchmark
    from ..judge.subjects import match, prompts_from
    from ..judge.tasks import tasks_folder
    from ..models.identity import MINI

    if not registry.records():
        raise CidmError(
            f"{registry.root} holds no concepts yet",
            "`cidm learn NAME IMAGES` learns one",
            ExitCode.NOT_FOUND,
        )
    if data is None:
        if registry.base.kind != MINI:
            raise CidmError(
                "no reference pictures to compare with",
                "give --data FOLDER, with a folder of pictures for each concept, named like it",
                ExitCode.USAGE,
            )
        data = tasks_folder()
    wanted = None
    if names is not None:
        wanted = {registry.get(name.strip()).key for name in names.split(",") if name.strip()}
        if not wanted:
            raise CidmError("--concepts names none", "write for instance --concepts dog,cat", ExitCode.USAGE)
    benchmark = load_benchmark(data)
    for line in benchmark.notes:
        call.output.note(line)
    rivals, skipped = match(
        registry.records(), benchmark.tasks, noun=noun,
        prompts=None if prompts is None else prompts_from(prompts), limit=limit,
    )  # fmt: skip
    subjects = [s for s in rivals if wanted is None or s.record.key in wanted]
    skipped = [(name, why) for name, why in skipped if wanted is None or canonical_key(name) in wanted]
    if not subjects:
        there = ", ".join(task.name for task in benchmark.tasks[:12])
        raise CidmError(
            f"{data} holds pictures of none of the concepts",
            f"it has {there}; folders and concepts must have the same names",
            ExitCode.NOT_FOUND,
        )
    return subjects, rivals, skipped


def _evaluate(
    call: Invocation,
    registry: Registry,
    subjects: list[Subject],
    rivals: list[Subject],
    skipped: list[tuple[str, str]],
    options: EvalOptions,
    merged: Path | None,
    pictures: Path,
    where: Machine,
) -> Evaluation:
    from ..draw.images import read_static
    from ..draw.jobs import check_static
    from ..judge import concepts as workflow

    if merged is not None:
        check_static(registry, merged, [subject.record.name for subject in subjects])
    base, judges = opened(call, registry, options, where)
    states = workflow.states_of(registry)
    if merged is not None:
        # One file is one state: what the concepts were before it was merged is not in it.
        last = states[-1]
        states = (workflow.State(last.number, last.records, read_static(merged, base)),)
    return workflow.evaluate(
        registry, base, subjects, options, folder=pictures, judges=judges, states=states, rivals=rivals,
        skipped=skipped, events=events(call), crew=call.crew,
    )  # fmt: skip
