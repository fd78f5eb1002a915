"""The methods of learning: which concepts each may join, what it starts from, and what it adds to Eq. 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError
from ..formats.concept import ConceptWeights
from ..method.consolidation import Consolidation
from ..method.literal import LiteralConsolidation
from ..method.lowrank import apart, delta
from ..models import text
from ..models.base import Base
from ..models.opening import concept_weights
from ..options.learn import CARRIED, SUMMED, LearnOptions
from . import baselines
from .admission import check_method, latest
from .batches import Batch, slotted
from .step import PLAIN, Method, Regulariser, Term, Trainee

Load = Callable[[Record], ConceptWeights]


def keeps_noun(method: str) -> bool:
    """Whether a concept's tokens begin as a new one and the class noun's: C-LoRA's is one random token."""
    return method not in SUMMED


def older_than(records: Sequence[Record], name: str) -> list[Record]:
    """The concepts that learning ``name`` has to mind: all but its own former version."""
    key = canonical_key(name)
    return [record for record in records if record.key != key]


def against(records: Sequence[Record], name: str, options: LearnOptions) -> int:
    """How many older concepts the training takes into account."""
    weights = {
        "cidm": options.gamma1 + options.gamma2,
        "ewc": options.ewc_weight,
        "lwf": options.lwf_weight,
        "c-lora": options.clora_weight,
    }
    return len(older_than(records, name)) if weights.get(options.method) else 0


def build(
    registry: Registry | None,
    base: Base,
    records: Sequence[Record],
    name: str,
    captions: Sequence[str],
    options: LearnOptions,
) -> Method:
    """The method of a training, with the older concepts it needs, each loaded once.

    Args:
        registry: where the concepts are; None where there are none.
        records: the concepts there are.
        name: the concept to learn.
        captions: of each picture, naming it.
        options: of the training.

    Raises:
        CidmError: as ``check_method``; INVALID for an older concept that does not fit the base or the method.
    """
    check_method(records, options)
    loaded: dict[int, ConceptWeights] = {}

    def load(record: Record) -> ConceptWeights:
        if record.sequence not in loaded:
            assert registry is not None
            loaded[record.sequence] = concept_weights(registry, base, record)
        return loaded[record.sequence]

    older = older_than(records, name)
    if options.method == "cidm":
        return Method(regulariser=_consolidation(base, older, load, options))
    if options.method in SUMMED:
        frozen = _summed(older, load)
        return Method(frozen=frozen, noun=False, regulariser=baselines.c_lora(frozen, options))
    if options.method not in CARRIED:
        return PLAIN
    last = latest(records) if records else None
    previous = load(last) if last else None
    factors = previous.factors if previous else None
    regulariser = Regulariser()
    if options.method == "ewc":
        sites = base.sites(options.targets)
        regulariser = baselines.ewc(sites, previous, last.name if last else "", options.ewc_weight)
    elif options.method == "lwf" and factors:
        vectors = {record.key: load(record).tokens for record in older}
        texts = {r.key: _captions(base, captions, r, vectors[r.key]) for r in older}
        regulariser = baselines.lwf(factors, vectors, texts, options)
    return Method(factors=factors, regulariser=regulariser)


def _consolidation(base: Base, older: Sequence[Record], load: Load, options: LearnOptions) -> Regulariser:
    """CIDM: γ1 R1 + γ2 R2 from the second concept on, step (ii) after each optimizer step."""
    gamma2 = options.gamma2
    if not older or not (options.gamma1 or gamma2):
        return Regulariser()
    # Of matrices that the base holds as one, each is kept apart from its like.
    single = partial(apart, rows=base.architecture.parts(base.denoiser))
    shapes = base.shapes
    blank = {
        site: (torch.empty(shapes[site][0], 0), torch.empty(0, shapes[site][1]))
        for site in base.sites(options.targets)
    }
    sites = {site: (len(up), down.shape[1]) for site, (up, down) in single(blank).items()}
    factors = [(single(load(record).factors), record.scale) for record in older]
    terms: Consolidation | LiteralConsolidation
    if options.consolidation == "paper":
        ranks = {up.shape[1] for concept, _ in factors for up, _ in concept.values()} | {options.rank}
        if len(ranks) > 1:
            raise CidmError(
                f"--consolidation paper: takes concepts of one rank, and these have {sorted(ranks)}",
                hint="learn with --consolidation subspace",
            )
        terms = LiteralConsolidation(factors, sites, rate=options.shared_lr, device=base.device)
    else:
        terms = Consolidation(
            factors, sites, shared_rank=options.shared_rank if gamma2 else 0,
            refresh_every=options.refresh_every, device=base.device,
        )  # fmt: skip

    def penalty(trainee: Trainee, _batch: Batch) -> Mapping[str, Term]:
        values = terms.terms(single(trainee.factors), options.scale)
        both = {"r1": Term(options.gamma1, values.overlap), "r2": Term(gamma2, values.unshared)}
        return {name: term for name, term in both.items() if term.weight}

    def stepped(trainee: Trainee) -> None:
        if gamma2:
            terms.stepped(trainee.step, single(trainee.factors), options.scale)

    return Regulariser(penalty, stepped, terms.state, terms.restore)


def _summed(older: Sequence[Record], load: Load) -> dict[str, torch.Tensor]:
    """Σ_i ΔW_i [out, in] by site."""
    total: dict[str, torch.Tensor] = {}
    for record in older:
        for site, (up, down) in load(record).factors.items():
            matrix = delta(up, down, record.scale)
            total[site] = total[site] + matrix if site in total else matrix
    return total


def _captions(
    base: Base, captions: Sequence[str], record: Record, tokens: torch.Tensor
) -> tuple[text.Tokens, ...]:
    """The captions with an older concept in the new one's place."""
    slot = text.Slot(record.key, tokens.shape[1], record.class_noun)
    return tuple(slotted(base, caption, slot).tokens for caption in captions)
