"""`cidm eval`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..options.computing import DRAWING
from ..options.declared import declared
from ..options.flags import flags
from ..options.judge import EvalOptions
from ..terminal.output import Result
from .invocation import Invocation, after_comma, listed_names

if TYPE_CHECKING:
    from ..layout import Layout


def _prompt_sets() -> list[str]:
    import cidm_templates

    return [*cidm_templates.prompt_sets()]


def _rivals(incomplete: str) -> list[str]:
    from ..judge.rivals import RIVALS

    return after_comma(incomplete, RIVALS)


@flags(how=DRAWING, given=declared(EvalOptions))
def evaluate(
    call: Invocation,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Reference images: a folder with tasks.toml, CustomConcept101's dataset.json, or a folder of "
            "folders named like the concepts. [default on mini: mini-CIFC]",
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE|SET",
            help="Prompts for every concept, <TOK> or {} where it goes: a file, or object, pet or style.",
            autocompletion=_prompt_sets,
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            "--concepts",
            metavar="NAMES",
            help="Only these: dog,cat. [default: all]",
            autocompletion=listed_names,
        ),
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
            autocompletion=_rivals,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where images and results go.")
    ] = Path("cidm-eval"),
    *,
    how: dict[str, Any],
    given: dict[str, Any],
) -> Result:
    """Judge the learned concepts: likeness, text alignment, forgetting, retention, confusion.

    Draws every concept by a set of prompts and compares the images with its reference images. With --layouts,
    looks into the boxes of layouts: is each region's concept the one found there? Images are kept in
    FOLDER/samples: an evaluation that was stopped goes on where it was, and none is drawn twice.
    """
    if layouts:
        for flag, value in (("--prompts", prompts), ("--concepts", names), ("--merged", merged)):
            if value is not None:
                raise CidmError(f"{flag}: has no meaning with --layouts", "leave it out", ExitCode.USAGE)
    elif ways is not None:
        raise CidmError("--rivals: compares ways of drawing layouts", "give --layouts", ExitCode.USAGE)
    workspace = call.workspace(how)
    with _going_on(out / "samples"):
        if layouts:
            some = None if ways is None else _parted(ways)
            judged: Any = workspace.evaluate_layouts(
                out, _loaded(call, layouts), rivals=some, data=data, noun=noun, **given
            )
        else:
            judged = workspace.evaluate(
                out, data=data, prompts=prompts, names=None if names is None else _parted(names), noun=noun,
                merged=merged, **given,
            )  # fmt: skip
    if judged is None:
        return Result({}, ())
    from ..judge import layout_files, report_files

    found, paths = judged
    told = "layouts" if layouts else "evaluation"
    table = layout_files.table(found) if layouts else report_files.table(found)
    return Result(
        data={told: found.to_json(), "files": paths},
        human=[table, f"written to {out}; {paths['report']} shows the images"],
        ids=[str(path) for path in paths.values()],
    )


def _parted(text: str) -> list[str]:
    """The parts of a text that commas part."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _loaded(call: Invocation, paths: list[Path]) -> dict[str, Layout]:
    """Layouts by the names of their files; a folder gives all it holds.

    Raises:
        CidmError: NOT_FOUND for a folder without any, and what ``load_layout`` raises.
    """
    from ..layout import load_layout

    files = []
    for path in paths:
        found = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not found:
            raise CidmError(
                f"--layouts {path}: the folder holds no .toml file",
                "`cidm layout new` writes a layout",
                ExitCode.NOT_FOUND,
            )
        files += found
    return {str(file): _with_control(call, load_layout(file)) for file in files}


def _with_control(call: Invocation, layout: Layout) -> Layout:
    """A layout with the settings' model for its structure, if it has one and names none."""
    usual = call.control
    if layout.structure is None or layout.structure.model is not None or usual is None:
        return layout
    return layout.model_copy(update={"structure": layout.structure.model_copy(update={"model": usual})})


@contextmanager
def _going_on(pictures: Path) -> Iterator[None]:
    """Says, when the work in it is interrupted, that it can be taken up again."""
    try:
        yield
    except KeyboardInterrupt:
        raise CidmError(
            f"interrupted; the images drawn so far are in {pictures}",
            "the same command goes on from there",
            ExitCode.INTERRUPTED,
        ) from None
