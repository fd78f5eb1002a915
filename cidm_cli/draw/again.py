"""Drawing a picture again from what it says of itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..files.places import candidates
from ..layout import Layout, load_layout
from ..models.base import Base
from ..models.digests import digest
from ..options.declared import settled
from ..options.draw import DRAW_METHODS, ONE_AT_A_TIME, DrawOptions, resolve_draw
from ..options.prompts import parse_prompt
from . import structure
from .encoded import Texts
from .images import Part, Picture, Static, read_static, ready
from .jobs import COMPLETE, FORMS, Ablation, Job, Mask, check_size, masks_of
from .mixtures import Loader, Mixture
from .scenes import Chosen


@dataclass(frozen=True)
class Then:
    """A concept as it was when a picture was drawn."""

    key: str
    blob: str
    class_noun: str


@dataclass(frozen=True)
class ToldConcept:
    """A concept as a picture tells it."""

    then: Then
    named: bool
    weights: tuple[float, ...]
    """At each layer; none where only its tokens were used."""
    against: bool
    """Whether the negative prompt names it."""


@dataclass(frozen=True)
class ToldMixture:
    """What a prompt was drawn with, as a picture tells it."""

    method: str
    concepts: tuple[ToldConcept, ...]


@dataclass(frozen=True)
class ToldPart:
    """Pictures of another prompt in the same batch, as a picture tells them."""

    prompt: str
    negative: str
    seeds: tuple[int, ...]
    named: tuple[Then, ...]
    """The concepts in the prompt and in the negative prompt."""


@dataclass(frozen=True)
class Told:
    """What a picture says of itself, checked."""

    job: Job
    seeds: tuple[int, ...]
    """Of the pictures of its prompt in its batch."""
    index: int
    """Its own place among them."""
    before: tuple[ToldPart, ...]
    """Ahead of them in the batch."""
    after: tuple[ToldPart, ...]
    """Behind them in the batch."""
    mixtures: tuple[ToldMixture, ...]
    """Of the whole prompt, then of each region."""
    masks: tuple[str | None, ...]
    """Of each region, its mask's hash."""
    folders: tuple[Path, ...]
    """Where its masks may lie."""
    base: str
    merged: tuple[Path, str] | None
    """A merged file, and its hash."""
    structure: Callable[[], structure.Followed] | None
    """Finds what it follows again."""


def redraw(registry: Registry, base: Base, facts: dict[str, Any], folder: Path = Path()) -> Picture:
    """Draws again the picture that carries ``facts``: with the batch it was drawn in, so that the bytes agree.

    Other files it was drawn with are looked for by their content, where they were then and in the picture's ``folder``.

    Raises:
        CidmError: NOT_FOUND when a concept it shows or a file it was drawn with is gone, INVALID when the facts are
            not such, REGISTRY when it was drawn on another base.
    """
    try:
        told = _told(facts, registry.base.kind, base, folder)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, CidmError) as error:
        raise CidmError(
            f"the picture's cidm text is incomplete or was edited ({error!r})",
            hint="give a picture that cidm generate wrote, unedited",
            code=ExitCode.INVALID,
        ) from error
    if told.base != registry.base.fingerprint:
        raise CidmError(
            "the picture was drawn on another base than this registry's",
            hint="give the registry it was drawn from with --registry PATH",
            code=ExitCode.REGISTRY,
        )
    there = registry.records(all_versions=True)
    whole, *regions = (_mixture(told, there) for told in told.mixtures)
    chosen = Chosen(whole, tuple(regions), _same_masks(told))
    static = _same_file(told.merged, base, folder) if told.merged else None
    job = replace(told.job, structure=told.structure()) if told.structure else told.job
    beside = [[_beside(part, job, chosen, there) for part in parts] for parts in (told.before, told.after)]
    batch = (*beside[0], Part(job, chosen, told.seeds), *beside[1])
    with ready(base, job, chosen, Texts(base, Loader(registry, base)), static) as drawing:
        images = drawing(batch, lambda: None)
    return Picture(images[sum(len(part.seeds) for part in beside[0]) + told.index], facts)


def _told(facts: dict[str, Any], kind: str, base: Base, beside: Path) -> Told:
    """What a picture says. Raises CidmError, KeyError, TypeError, ValueError or IndexError for what cannot be drawn."""
    job = _job_of(facts, kind, base)
    seeds, index = _seeds(facts["batch"]), int(facts["index"])
    before, after = (tuple(map(_part_told, facts[side])) for side in ("before", "after"))
    if not 0 <= index < len(seeds) or seeds[index] != facts["seed"]:
        raise ValueError("its seed is not that of its place in the batch")
    if len(seeds) + sum(len(part.seeds) for part in (*before, *after)) > job.options.batch:
        raise ValueError("its batch is larger than it says")
    if job.regions and (before or after):
        raise ValueError("its layout shares its batch")
    file = facts["merged"]
    merged = None if file is None else (Path(file["path"]), str(file["sha256"]))
    regions = facts["regions"] if job.regions else []
    masks: list[str | None] = [part["mask"] for part in regions]
    mixtures = tuple(
        _mixture_told(part, prompt, options.negative, merged is not None, base)
        for (prompt, options), part in zip(job.parts, [facts, *regions], strict=True)
    )
    if job.regions and any(mixture.method in ONE_AT_A_TIME for mixture in mixtures):
        raise ValueError("its method draws no regions")
    followed = structure.again(facts["structure"], beside) if "structure" in facts else None
    if job.layout and job.layout.structure and followed is None:
        raise ValueError("its layout follows a structure, and it tells none")
    folders = candidates(facts.get("folder") or "", beside)
    return Told(
        job, seeds, index, before, after, mixtures, tuple(masks), folders, facts["base"], merged, followed
    )  # fmt: skip


def _seeds(told: list[int]) -> tuple[int, ...]:
    """Of pictures in a batch. Raises TypeError or ValueError for what cannot be."""
    seeds = tuple(int(seed) for seed in told)
    if not all(0 <= seed < 2**63 for seed in seeds):
        raise ValueError("its seeds are impossible")
    return seeds


def _part_told(told: dict[str, Any]) -> ToldPart:
    """Pictures of another prompt in the same batch. Raises CidmError, KeyError, TypeError or ValueError."""
    prompt, negative, concepts = told["prompt"], told["negative"], told["concepts"]
    if not (isinstance(prompt, str) and isinstance(negative, str) and isinstance(concepts, dict)):
        raise TypeError("its batch is no such")
    if _keys_in(prompt) | _keys_in(negative) != concepts.keys():
        raise ValueError("a prompt of its batch names other concepts than it says")
    named = tuple(_then_told({**concept, "key": key}) for key, concept in concepts.items())
    return ToldPart(prompt, negative, _seeds(told["seeds"]), named)


def _then_told(told: dict[str, Any]) -> Then:
    return Then(told["key"], str(told["blob"]), str(told["class_noun"]))


def _beside(part: ToldPart, job: Job, chosen: Chosen, there: Sequence[Record]) -> Part:
    """Pictures of another prompt in the batch of a job, drawn with the same weights and settings.

    Raises:
        CidmError: NOT_FOUND when a concept in the prompt is gone.
    """
    named = [_found(there, then, "was drawn in one batch with") for then in part.named]
    options = replace(job.options, negative=part.negative)
    whole = replace(
        chosen.whole, named=tuple(record for record in named if record.key in _keys_in(part.prompt)),
        against=tuple(record for record in named if record.key in _keys_in(part.negative)),
    )  # fmt: skip
    return Part(replace(job, prompt=part.prompt, options=options), Chosen(whole), part.seeds)


def _keys_in(prompt: str) -> set[str]:
    return {canonical_key(name) for name in parse_prompt(prompt).names}


def _mixture_told(part: dict[str, Any], prompt: str, negative: str, merged: bool, base: Base) -> ToldMixture:
    """The mixture of one prompt, as a picture tells it. Raises KeyError, TypeError or ValueError."""
    concepts = tuple(
        ToldConcept(_then_told(c), c["named"], _layer_weights(c, base), c.get("against", False) is True)
        for c in part["concepts"]
    )
    named = {concept.then.key for concept in concepts if concept.named}
    against = {concept.then.key for concept in concepts if concept.against}
    if (_keys_in(prompt), _keys_in(negative)) != (named, against):
        raise ValueError("its prompts name other concepts than it shows")
    method = part["method"]
    if method not in (*DRAW_METHODS[1:], "merged") or (method == "merged") != merged:
        raise ValueError(f"its method is {method!r}")
    return ToldMixture(method, concepts)


def _mixture(told: ToldMixture, there: Sequence[Record]) -> Mixture:
    """The mixture of a prompt, with the concepts as they were then.

    Raises:
        CidmError: NOT_FOUND when one is gone.
    """
    then = [(_found(there, c.then, "shows"), c) for c in told.concepts]
    used = [(record, c.weights) for record, c in then if c.weights]
    return Mixture(
        told.method, tuple(record for record, c in then if c.named),
        tuple(record for record, _ in used), tuple(weights for _, weights in used),
        tuple(record for record, c in then if c.against),
    )  # fmt: skip


def _found(there: Sequence[Record], then: Then, how: str) -> Record:
    """A concept as it was then, and under the name it had then: the prompt calls it by that, whatever it is now.

    Raises:
        CidmError: NOT_FOUND when it is gone.
    """
    same = [record for record in there if (record.blob, record.class_noun) == (then.blob, then.class_noun)]
    if not same:
        raise CidmError(
            f"the picture {how} <{then.key}> as it was learned then, and the registry no longer has that version",
            hint="`cidm list` shows what there is",
            code=ExitCode.NOT_FOUND,
        )
    return replace(same[-1], key=then.key)


def _layer_weights(told: dict[str, Any], base: Base) -> tuple[float, ...]:
    """The weights of a concept at each layer, as a picture tells them; none where only its tokens were used."""
    weights = tuple(float(weight) for weight in told["weights"])
    if weights and len(weights) != len(base.layers):
        raise ValueError(f"it tells {len(weights)} weights of a concept")
    if not all(math.isfinite(weight) for weight in weights) or not isinstance(told["named"], bool):
        raise ValueError("its weights are impossible")
    return weights


def _same_file(told: tuple[Path, str], base: Base, beside: Path) -> Static:
    """The merged file a picture was drawn with.

    Raises:
        CidmError: NOT_FOUND when it is gone or another one by now.
    """
    name, sha256 = told
    for path in candidates(name, beside):
        if os.path.isfile(path) and digest(path) == sha256:
            return read_static(path, base)
    raise CidmError(
        f"the picture was drawn with the merged file {name}, which is gone or has changed",
        hint="put it back, or beside the picture; or merge the same concepts again",
        code=ExitCode.NOT_FOUND,
    )


def _same_masks(told: Told) -> tuple[Mask | None, ...]:
    """The masks of the layout a picture was drawn with.

    Raises:
        CidmError: NOT_FOUND when one is gone or another one by now; what else reading it raises.
    """
    layout = told.job.regions
    if layout is None:
        return ()
    errors: list[CidmError] = []
    for folder in told.folders:
        try:
            return _masks_in(folder, layout, told.masks)
        except CidmError as error:
            errors.append(error)
    raise errors[0]


def _masks_in(folder: Path, layout: Layout, hashes: Sequence[str | None]) -> tuple[Mask | None, ...]:
    masks = masks_of(layout, folder)
    for index, (mask, then) in enumerate(zip(masks, hashes, strict=True)):
        if mask is not None and mask.sha256 != then:
            raise CidmError(
                f"the picture was drawn with a mask that has changed: {mask.path} (region.{index}.mask)",
                hint="put the old one back, or beside the picture",
                code=ExitCode.NOT_FOUND,
            )
    return masks


def _job_of(facts: dict[str, Any], kind: str, base: Base) -> Job:
    """The job a picture says it comes from. Raises CidmError, KeyError or TypeError for one that cannot be drawn."""
    said = {**facts["options"], "size": tuple(facts["options"]["size"])}
    if not isinstance(facts["prompt"], str):
        raise TypeError("its prompt is no text")
    # Without the family's defaults: what a picture does not tell cannot be known.
    settled(DrawOptions, said)
    options = resolve_draw(said, kind, base.pixels)
    check_size(options.size, base.multiple)
    layout = None if facts["layout"] is None else _layout_of(facts)
    ablation = _ablation_of(facts) if layout and layout.regions else COMPLETE
    return Job(facts["prompt"], options, layout, ablation)


def _layout_of(facts: dict[str, Any]) -> Layout:
    """The layout a picture says it comes from."""
    if not isinstance(facts["layout"], str):
        raise TypeError("its layout is no text")
    return load_layout("picture", text=facts["layout"])


def _ablation_of(facts: dict[str, Any]) -> Ablation:
    told = Ablation(**facts["ablation"])
    if not all(isinstance(on, bool) for on in (told.attention, told.noise)) or told.form not in FORMS:
        raise ValueError("it leaves out what cannot be left out")
    return told
