"""Judging learned concepts by the paper's protocol: draw each by its prompts, compare with its reference pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cidm_registry import Record, Registry, RegistryError

from ..draw.images import Static, work
from ..draw.mixtures import Loader
from ..errors import CidmError, ExitCode
from ..machine.processes import SOLO, Crew
from ..machine.session import UNHEARD, Listener
from ..method import metrics
from ..models.base import Base
from ..options.draw import DrawOptions, resolve_draw
from ..options.judge import EvalOptions
from ..terminal.progress import counting
from . import samples
from .encoders import Judges
from .report import Cell, ConceptScores, Evaluation
from .subjects import Subject

_Place = tuple[str, str | int]
"""A concept's key, and how it is drawn: "base", "single" or the number of a state."""


@dataclass(frozen=True)
class State:
    """The registry as it was after a task. Concepts never change once committed: a state is a part of the records."""

    number: int
    """The task, by the number of the record it committed."""
    records: tuple[Record, ...]
    static: Static | None = None
    """A merged LoRA to draw with, in place of the concepts' own."""

    @property
    def learned(self) -> str:
        """The concept its task taught."""
        return next((record.name for record in self.records if record.sequence == self.number), "")


def states_of(registry: Registry) -> tuple[State, ...]:
    """The state after each task, oldest first. Concepts that were removed are in none of them."""
    records = sorted(registry.records(all_versions=True), key=lambda record: record.sequence)
    out = []
    there: dict[int, Record] = {}
    for record in records:
        there[record.origin] = record
        out.append(State(record.sequence, tuple(sorted(there.values(), key=lambda one: one.sequence))))
    return tuple(out)


def evaluate(
    registry: Registry,
    base: Base,
    subjects: Sequence[Subject],
    options: EvalOptions,
    *,
    folder: Path,
    judges: Judges,
    states: Sequence[State] | None = None,
    rivals: Sequence[Subject] | None = None,
    single: Mapping[str, Cell] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    listener: Listener = UNHEARD,
    crew: Crew = SOLO,
) -> Evaluation:
    """Draws and judges. Several processes share the drawing; what they draw, each of them judges.

    Args:
        subjects: the concepts to judge.
        folder: where pictures are kept, by content: one folder serves any number of evaluations, and one that was
            stopped goes on where it was. The base's drawings are the same for all methods, and drawn once.
        judges: they remember pictures, too: hand the same ones to every evaluation.
        states: of the registry, oldest first, else one after each task. Each concept is drawn in the first that
            has it and in the last, with ``options.every_task`` in all that have it.
        rivals: further concepts whose references a sample may be nearest to.
        single: by concept key, what each concept's own LoRA alone reaches, where that is to come from another
            evaluation: a method that carries one LoRA on has no such thing itself.

    Raises:
        CidmError: USAGE for prompts that are too long, INVALID for reference pictures that cannot be read.
    """
    states = states_of(registry) if states is None else tuple(states)
    by_key = {subject.record.key: subject for subject in (*(rivals or ()), *subjects)}
    if not subjects or not states:
        raise CidmError("there is no concept to judge", "`cidm list` shows what there is", ExitCode.NOT_FOUND)
    settings = resolve_draw(options.drawn, registry.base.kind, base.pixels)
    plan = _plan(registry, base, subjects, states, settings, options.every_task, single or {})

    every_batch = [batch for batches in plan.values() for batch in batches]
    draw_missing(registry, base, folder, every_batch, listener, crew)
    references = look_at_references(judges, by_key, listener)
    keys = {place: [key for batch in batches for key in batch.keys] for place, batches in plan.items()}
    every = [key for some in keys.values() for key in some]
    with listener.stage("judging", len(set(every))) as update:
        judges.look(list(dict.fromkeys(every)), lambda key: samples.read(folder, key), update)

    cells = {place: judged(judges, by_key[place[0]], references, own) for place, own in keys.items()}
    return Evaluation(
        base=registry.base.fingerprint,
        method="merged" if states[-1].static else settings.method,
        draw=asdict(settings),
        judges=judges.sources,
        states=tuple((state.number, state.learned) for state in states),
        rivals=tuple(subject.record.name for subject in by_key.values()),
        concepts=tuple(
            _scores(s, states, cells, len(references[s.record.key]), single or {}) for s in subjects
        ),
        skipped=tuple(skipped),
    )


def keep_scores(registry: Registry, evaluation: Evaluation) -> list[str]:
    """Writes each concept's figures into its record, under "eval", or "eval METHOD" for a method asked for.

    Weights, config and their hashes stay as they are. Returns a line for each record that could not be changed.
    """
    name = "eval" if evaluation.method == "auto" else f"eval {evaluation.method}"
    records = {(record.key, record.blob): record for record in registry.records()}
    problems = []
    for concept in evaluation.concepts:
        final = concept.final
        scores = {
            "state": max(concept.states), "ia": final.ia, "ia_error": final.ia_error, "ta": final.ta,
            "clip_score": final.clip_score, "confusion": final.confusion, "forgetting": concept.forgetting,
            "retention": concept.retention, "samples": final.samples, "judges": evaluation.judges,
        }  # fmt: skip
        try:
            registry.annotate(records[concept.key, concept.blob], scores={name: scores})
        except (KeyError, RegistryError) as error:
            problems.append(f"<{concept.name}>: its scores are not kept in the registry ({error})")
    return problems


def _plan(
    registry: Registry,
    base: Base,
    subjects: Sequence[Subject],
    states: Sequence[State],
    settings: DrawOptions,
    every_task: bool,
    single: Mapping[str, Cell],
) -> dict[_Place, list[samples.Batch]]:
    """Everything that has to be there, drawn or not. The states come last, so that a stopped run has the rest."""
    load = Loader(registry, base)
    alone = replace(settings, method="named", power=0.0)
    nouns = {record.key: record.class_noun for record in registry.records()}
    nothing = samples.scene((), alone, nouns)
    scenes = {state.number: samples.scene(state.records, settings, nouns, state.static) for state in states}
    out: dict[_Place, list[samples.Batch]] = {}
    for subject in subjects:
        own = samples.scene((subject.record,), alone, nouns)
        out[subject.record.key, "base"] = samples.plan(registry, base, load, nothing, subject.plain)
        if subject.record.key not in single:
            out[subject.record.key, "single"] = samples.plan(registry, base, load, own, subject.named)
    for number, scene in scenes.items():
        for subject in subjects:
            if number in _numbers_for(subject, states, every_task):
                batches = samples.plan(registry, base, load, scene, subject.named)
                out[subject.record.key, number] = batches
    return out


def _numbers_for(subject: Subject, states: Sequence[State], every_task: bool) -> list[int]:
    """The states a concept is drawn in, of those that have its newest version."""
    # Its origin stays with a concept through changes of its name; two concepts may have one blob.
    newest = (subject.record.origin, subject.record.blob)
    there = [s.number for s in states if newest in {(r.origin, r.blob) for r in s.records}]
    return there if every_task else [there[0], there[-1]]


def draw_missing(
    registry: Registry,
    base: Base,
    folder: Path,
    batches: Sequence[samples.Batch],
    listener: Listener,
    crew: Crew = SOLO,
) -> None:
    """Draws the batches that are not there yet, whole ones in each process. All are there when it returns."""
    absent = samples.missing(folder, batches)
    # All have looked before any draws: else they would not deal out the same.
    crew.meet()
    some = [batch for number, batch in enumerate(absent) if crew.mine(number)]
    with listener.stage("drawing", work(batch.job for batch in some)) as update:
        samples.fill(registry, base, folder, some, on_step=counting(update))
    crew.meet()


def look_at_references(
    judges: Judges, subjects: Mapping[str, Subject], listener: Listener
) -> dict[str, list[str]]:
    """The keys, for the judges, of each concept's reference pictures."""
    out = {}
    with listener.stage("reading references", len(subjects)) as update:
        for number, (key, subject) in enumerate(subjects.items(), 1):
            pictures = {f"reference {e.digest}": e.image for e in subject.references().examples}
            judges.look(list(pictures), pictures.__getitem__, lambda seen: None)
            out[key] = list(pictures)
            update(number)
    return out


def judged(
    judges: Judges, subject: Subject, references: Mapping[str, Sequence[str]], keys: Sequence[str]
) -> Cell:
    """The figures of a concept's samples, which come prompt by prompt; ``references`` are all concepts'."""
    each = len(keys) // len(subject.prompts)
    texts = judges.texts(subject.texts).repeat_interleave(each, dim=0)
    cosines = metrics.text_alignment(judges.pictures("clip", keys), texts)
    own = list(references).index(subject.record.key)
    ia, error, rows, confused = {}, {}, {}, {}
    for name in judges.names:
        drawn = judges.pictures(name, keys)
        known = [judges.pictures(name, some) for some in references.values()]
        alignment = metrics.image_alignment(drawn, known[own])
        ia[name] = float(alignment.mean())
        error[name] = metrics.standard_error(alignment, len(subject.prompts))
        rows[name] = metrics.counts(metrics.nearest(drawn, known), len(known))
        confused[name] = metrics.confusion(rows[name], own)
    return Cell(
        samples=len(keys), ia=ia, ia_error=error, ta=float(cosines.mean()),
        clip_score=float(metrics.clip_score(cosines).mean()), confusion=confused, nearest=rows,
        shown=[samples.file(Path(), key).name for key in keys[::each]],
    )  # fmt: skip


def _scores(
    subject: Subject,
    states: Sequence[State],
    cells: Mapping[_Place, Cell],
    references: int,
    single: Mapping[str, Cell],
) -> ConceptScores:
    record = subject.record
    drawn = {way: cell for (key, way), cell in cells.items() if key == record.key and isinstance(way, int)}
    alone = single.get(record.key) or cells[record.key, "single"]
    base = cells[record.key, "base"]
    history = [drawn[number] for number in sorted(drawn)]
    # A merged file says nothing of what the concept was before it was merged with others.
    merged = len(history) == 1 and states[-1].static is not None
    known = min(drawn) == record.sequence and not merged
    return ConceptScores(
        name=record.name, key=record.key, class_noun=subject.noun, style=record.style, blob=record.blob,
        learned=record.sequence, prompts=len(subject.prompts), references=references,
        states=drawn, base=base, single=alone,
        forgetting={n: metrics.forgetting([c.ia[n] for c in history]) if known else None for n in base.ia},
        retention={n: metrics.retention(history[-1].ia[n], base.ia[n], alone.ia[n]) for n in base.ia},
    )  # fmt: skip
