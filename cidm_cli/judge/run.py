"""An evaluation from its options to its report: of concepts, or of what stands in the boxes of layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bases import family
from ..draw.jobs import check_layout, check_static, named_in
from ..files.writing import check_place
from ..layout import Layout, check_concepts
from ..machine.session import Session
from ..options.draw import resolve_draw
from ..options.judge import EvalOptions, resolve_eval
from .rivals import check_rivals
from .subjects import Chosen

if TYPE_CHECKING:
    from .encoders import Judges
    from .layout_scores import NeglectScores
    from .report import Evaluation


def judging(session: Session, out: Path, given: Mapping[str, Any]) -> EvalOptions:
    """How it is judged, refused before anything is read where it cannot be."""
    said = session.machine("draw").completed(session.said(EvalOptions, "eval", given))
    options = resolve_eval(said)
    drawn = resolve_draw(options.drawn, session.kind, 64)
    named_in(session.concepts, drawn.negative, "negative prompt")
    check_place(out / "results.json")
    return options


def evaluate(
    session: Session, out: Path, chosen: Chosen, options: EvalOptions, merged: Path | None
) -> tuple[Evaluation, dict[str, Path]] | None:
    """Judges concepts and writes what was found; None in a process that is not the first of several."""
    if merged:
        check_static(session.registry, merged, [subject.record.name for subject in chosen.subjects])
    from ..draw.images import read_static
    from . import concepts
    from .report_files import write

    judges, base = opened(session, options), session.base()
    states = concepts.states_of(session.registry)
    if merged:
        # One file is one state: what the concepts were before it was merged is not in it.
        last = states[-1]
        states = (concepts.State(last.number, last.records, read_static(merged, base)),)
    found = concepts.evaluate(
        session.registry, base, chosen.subjects, options, folder=out / "samples", judges=judges, states=states,
        rivals=chosen.rivals, skipped=chosen.skipped,
        listener=session.listener, crew=session.crew,
    )  # fmt: skip
    if not session.crew.main:
        return None
    paths = write(found, out, out / "samples", chosen.subjects)
    for problem in concepts.keep_scores(session.registry, found) if options.save else ():
        session.listener.warn(problem)
    return found, paths


def evaluate_layouts(
    session: Session,
    out: Path,
    chosen: Chosen,
    layouts: Mapping[str, Layout],
    options: EvalOptions,
    rivals: Sequence[str],
) -> tuple[NeglectScores, dict[str, Path]] | None:
    """Looks into the boxes of layouts and writes what was found; None in a process that is not the first of several."""
    ways = check_rivals(list(rivals))
    for layout in layouts.values():
        check_concepts(layout, [record.name for record in session.concepts])
    drawn = resolve_draw(options.drawn, session.kind, 64)
    for layout in layouts.values():
        check_layout(layout, drawn)
    from .layout_files import write
    from .layouts import evaluate_layouts

    judges, base = opened(session, options), session.base()
    found = evaluate_layouts(
        session.registry, base, layouts, options, folder=out / "samples", judges=judges, subjects=chosen.rivals,
        rivals=ways, listener=session.listener, crew=session.crew,
    )  # fmt: skip
    return (found, write(found, out, out / "samples", layouts)) if session.crew.main else None


def opened(session: Session, options: EvalOptions) -> Judges:
    """The judges that are meant."""
    from ..models.base import choose_device
    from ..models.identity import folder_of
    from .encoders import choose, open_judges

    usual = family(session.kind).judges
    choice = choose(folder_of(session.registry.base), options.clip, options.dino, usual)
    if choice.dino is None and options.dino is None:
        session.listener.note("no second judge comes with this base: IA is CLIP's alone")
    machine = session.machine("draw")
    device = choose_device(session.crew.device(machine.device))
    return open_judges(choice, device, offload=machine.offload)
