"""Making several concepts one static LoRA: what is merged, by which method, and how faithful it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from peft.utils import merge_utils

from cidm_registry import Record, Registry

from ..draw.mixtures import Loader, mixture
from ..errors import CidmError
from ..method.fusion import Factors, concatenated, energy, fused, strayed, truncated
from ..method.lowrank import delta, weighted_sum
from ..models.base import Base
from ..options.draw import resolve_draw
from ..options.merge import LOOKING, SUMS, MergeOptions
from .features import Gathered, across, along, gather, noun_subjects
from .selection import Selection

Term = tuple[torch.Tensor, torch.Tensor, float]
"""(A_i [out, r_i] with its scale in it, B_i [r_i, in], w_i) of one concept at one site, on the CPU."""


@dataclass(frozen=True)
class Merge:
    """A finished merge."""

    factors: dict[str, Factors]
    """(up, down) by site, all scales folded in"""
    facts: dict[str, Any]
    """What the file tells of itself."""
    difference: float | None
    """Largest entry by which it is off the exact weighted sum; None for methods that do not stand for one."""
    lost: float
    """Share of the squared weights that was lost by shortening to the rank asked for."""
    strayed: dict[str, float] | None
    """Share of what the concepts do to their own features that is lost, for "text" and "image" sites; None for methods
    that do not look."""


def work(selection: Selection) -> int:
    """How many times ``merge`` will call ``on_step``, at most."""
    if selection.options.method not in LOOKING:
        return 0
    return (len(selection.records) + len(noun_subjects(selection.records))) * selection.options.steps


def merge(
    registry: Registry,
    base: Base,
    selection: Selection,
    *,
    on_step: Callable[[], None] = lambda: None,
) -> Merge:
    """Merges the selected concepts. Equal selections give equal bytes, on one machine.

    Raises:
        CidmError: FAILED when there is nothing in the merge: no concept has any weight.
    """
    options, records = selection.options, selection.records
    load = Loader(registry, base)
    weights = _layer_weights(base, load, selection)
    terms = _terms(load, records, weights, base.site_layers)
    gathered = None
    if options.method in LOOKING:
        gathered = gather(base, load, records, selection.factors, options, registry.base.kind, on_step)
        whole = {site: _solved(gathered, site, options.preserve) for site in gathered.ups}
    elif options.method in ("ties", "dare"):
        whole = {site: _pruned(options, number, each) for number, (site, each) in enumerate(terms.items())}
    else:
        whole = {site: concatenated(each) for site, each in terms.items()}
    if not whole:
        raise CidmError(
            "no concept has any weight in this merge", hint="name one in the prompt, or give other weights"
        )
    limit = _rank_limit(options, terms)
    factors = {
        site: truncated(*pair, limit) if limit and limit < pair[0].shape[1] else pair
        for site, pair in whole.items()
    }
    before, after = (sum(energy(*pair) for pair in each.values()) for each in (whole, factors))
    return Merge(
        factors=factors,
        facts=_facts(registry, selection, weights, max(up.shape[1] for up, _ in factors.values())),
        difference=_difference(factors, terms) if options.method in SUMS else None,
        lost=max(1 - after / before, 0.0) if before else 0.0,
        strayed=None if gathered is None else _strayed(base, factors, gathered),
    )


def _layer_weights(base: Base, load: Loader, selection: Selection) -> list[list[float]]:
    """Weight of each selected concept at each cross-attention layer, without its scale."""
    records, options = selection.records, selection.options
    layers = len(base.layers)
    each = [[1.0] * layers for _ in records]
    if options.method == "ewa":
        assert selection.prompt is not None
        usual = resolve_draw({}, load.registry.base.kind, base.pixels)
        drawn = replace(usual, method=options.aggregation, power=options.power)
        found = mixture(base, load, records, selection.prompt, drawn)
        given = dict(zip([record.key for record in found.used], found.weights, strict=True))
        each = [list(given.get(record.key, (0.0,) * layers)) for record in records]
    elif options.method == "mean":
        each = [[1 / len(records)] * layers for _ in records]
    return [[weight * factor for weight in own] for own, factor in zip(each, selection.factors, strict=True)]


def _terms(
    load: Loader,
    records: Sequence[Record],
    weights: Sequence[Sequence[float]],
    layer_of: Mapping[str, int],
) -> dict[str, list[Term]]:
    """What there is to add at each site, of every concept that has a weight there."""
    terms: dict[str, list[Term]] = {}
    for record, own in zip(records, weights, strict=True):
        loaded = load(record)
        for site, up in loaded.up.items():
            if weight := own[layer_of[site]]:
                term = (record.scale * up.cpu(), loaded.down[site].cpu(), weight)
                terms.setdefault(site, []).append(term)
    return dict(sorted(terms.items()))


def _pruned(options: MergeOptions, number: int, terms: Sequence[Term]) -> Factors:
    """TIES (Yadav et al. 2023) or DARE (Yu et al. 2024) of one site's ΔW, by PEFT. Its product is the second factor."""
    deltas = [delta(up, down, 1.0) for up, down, _ in terms]
    weights = torch.tensor([weight for *_, weight in terms])
    if options.method == "ties":
        merged = merge_utils.ties(deltas, weights, options.density)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed * 100_003 + number)
            merged = merge_utils.dare_linear(deltas, weights, options.density)
    return torch.eye(merged.shape[0]), merged


def _rank_limit(options: MergeOptions, terms: Mapping[str, Sequence[Term]]) -> int | None:
    """The rank the file may have: as asked for; else svd's that of one concept, the pruned ones' that of all."""
    if options.rank or options.method not in ("svd", "ties", "dare"):
        return options.rank
    ranks = [[up.shape[1] for up, *_ in each] for each in terms.values()]
    return max(max(own) if options.method == "svd" else sum(own) for own in ranks)


def _difference(factors: Mapping[str, Factors], terms: Mapping[str, Sequence[Term]]) -> float:
    """Largest entry by which the file's weights are off Σ_i w_i ΔW_i."""
    worst = 0.0
    for site, (up, down) in factors.items():
        exact = weighted_sum(
            [delta(up, down, 1.0) for up, down, _ in terms[site]], [w for *_, w in terms[site]]
        )
        worst = max(worst, float((delta(up, down, 1.0) - exact).abs().max()))
    return worst


def _solved(gathered: Gathered, site: str, preserve: float) -> Factors:
    """D of one site."""
    source = gathered.sources[site]
    up, down = fused(
        gathered.ups[site], gathered.seen[site], gathered.grams[source], gathered.regular[source], preserve
    )
    return up, across(down, gathered.axes[source])


def _strayed(base: Base, factors: Mapping[str, Factors], gathered: Gathered) -> dict[str, float]:
    """Share of the concepts' effect on their own features that is lost, over all sites of a kind."""
    shares = {}
    for kind in ("text", "image"):
        sites = [site for site in factors if base.architecture.sees_text(site) == (kind == "text")]
        pairs = []
        for site in sites:
            source, (up, down) = gathered.sources[site], factors[site]
            pairs.append(
                strayed(
                    (up, along(down, gathered.axes[source])), gathered.ups[site], gathered.downs[site],
                    gathered.seen[site], gathered.grams[source],
                )
            )  # fmt: skip
        own = sum(whole for _, whole in pairs)
        shares[kind] = sum(far for far, _ in pairs) / own if own else 0.0
    return shares


def _facts(
    registry: Registry, selection: Selection, weights: Sequence[Sequence[float]], rank: int
) -> dict[str, Any]:
    return {
        "format": 1,
        "method": selection.options.method,
        "concepts": [
            {"name": r.name, "key": r.key, "blob": r.blob, "scale": r.scale, "weights": list(own)}
            for r, own in zip(selection.records, weights, strict=True)
        ],
        "prompt": selection.prompt,
        "options": asdict(selection.options),
        "rank": rank,
        "base": registry.base.fingerprint,
        "tools": {name: version(name) for name in ("cidm", "torch")},
    }
