"""The features that concepts' prompts produce in the base, for merges that look at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from cidm_registry import Record

from ..bases import family
from ..draw.mixtures import Loader
from ..method.fusion import rank_axes
from ..method.lowrank import delta
from ..models import sampling, text
from ..models.base import Base
from ..models.features import recorded, text_gram
from ..models.lora import merged
from ..options.merge import MergeOptions

# No scene and no subject of the prompts that concepts are judged by: a merge must not be fitted to its own examination.
OBJECT_TEMPLATES = (
    "a photo of a {}", "a {}", "a {} in the park", "a {} on a table", "a photo of an old {}",
    "a {} in the street", "a photo of a new {}", "a {} by the river", "a {} in the kitchen", "an image of a {}",
    "a {} in the garden", "a {} and a chair",
)  # fmt: skip
STYLE_TEMPLATES = (
    "a {} of a sheep", "a {} of a teapot", "a {} of a guitar", "a {} of a fox", "a {} of a bicycle",
    "a {} of a clock", "a {} of a frog in the garden", "a {} of a train", "a {} of a chair in the kitchen",
    "a {} of a turtle by the river", "a {} of an elephant", "a {}",
)  # fmt: skip


Axes = Mapping[str, torch.Tensor | None]
"""What features are measured along, by the site where they are looked at: Q [k, in], or None for as they are."""


@dataclass(frozen=True)
class Gathered:
    """What a merge needs of the concepts and of the features they produce, on the CPU.

    k is a feature's width, or the number of axes that it is measured along.
    """

    axes: Axes
    """Q by source"""
    sources: dict[str, str]
    """Of each site the source: one that is fed the same"""
    ups: dict[str, list[torch.Tensor]]
    """A_i [out, r_i] of each concept by site, its scale and factor in it; r_i is 0 where it leaves a site alone"""
    downs: dict[str, list[torch.Tensor]]
    """B_i [r_i, k]"""
    seen: dict[str, list[torch.Tensor]]
    """S_i = B_i C_i [r_i, k], float64"""
    grams: dict[str, torch.Tensor]
    """Σ_i C_i [k, k] by source, float64"""
    regular: dict[str, torch.Tensor]
    """C_reg [k, k] by source, float64"""


@dataclass(frozen=True)
class Subject:
    """What stands in the templates: a concept, or a class noun instead of one."""

    words: str | text.Slot
    style: bool

    def prompts(self, base: Base, count: int) -> list[text.Tokens]:
        """The first ``count`` templates with the subject in place; without those that are too long to hold it."""
        out = []
        for template in (STYLE_TEMPLATES if self.style else OBJECT_TEMPLATES)[:count]:
            before, after = (part.strip() for part in template.split("{}"))
            parts = [part for part in (before, self.words, after) if part]
            tokens = text.tokenize(base, parts)
            if not tokens.lost:
                out.append(tokens)
        return out or [text.tokenize(base, [self.words])]


def gather(
    base: Base,
    load: Loader,
    records: Sequence[Record],
    factors: Sequence[float],
    options: MergeOptions,
    kind: str,
    on_step: Callable[[], None],
) -> Gathered:
    """Runs each concept's prompts with its own LoRA, then the class nouns without any, and keeps what fuse and
    rank-space need.

    Every C is a mean over feature rows: each concept counts the same, however large its pictures. No more than one
    concept's are held at a time.
    """
    feature_source = base.architecture.feature_source
    sites = sorted({site for record in records for site in load(record).up})
    shapes = {site: base.denoiser.get_submodule(site).weight.shape[:2] for site in sites}
    ups: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    downs: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    for record, factor in zip(records, factors, strict=True):
        weights = load(record)
        for site, (out, width) in shapes.items():
            up = weights.up.get(site, torch.zeros(out, 0)).cpu()
            ups[site].append(up * (record.scale * factor))
            downs[site].append(weights.down.get(site, torch.zeros(0, width)).cpu())
    axes: Axes = (
        dict.fromkeys(map(feature_source, sites))
        if options.method == "fuse"
        else {site: rank_axes(downs[site]) for site in sites}
    )
    sources = {site: site if site in axes else feature_source(site) for site in sites}
    downs = {site: [along(down, axes[sources[site]]) for down in downs[site]] for site in sites}
    seen: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    grams: dict[str, torch.Tensor] = {}
    regular: dict[str, torch.Tensor] = {}
    for number, (record, factor) in enumerate(zip(records, factors, strict=True)):
        subject, vectors = concept_subject(load, record), {record.key: load(record).tokens}
        found = text_features(base, subject.prompts(base, options.templates), vectors, axes)
        deltas = own_deltas(load, record, factor)
        found |= image_features(base, subject, vectors, deltas, axes, options, kind, on_step)
        for site in sites:
            seen[site].append(downs[site][number].double() @ found[sources[site]])
        _accumulate(grams, found, 1.0)
    nouns = noun_subjects(records)
    prompts = [prompt for noun in nouns for prompt in noun.prompts(base, options.templates)]
    prompts.append(text.tokenize(base, [""]))
    _accumulate(regular, text_features(base, prompts, {}, axes), 1.0)
    for noun in nouns:
        found = image_features(base, noun, {}, {}, axes, options, kind, on_step)
        _accumulate(regular, found, 1 / len(nouns))
    return Gathered(axes, sources, ups, downs, seen, grams, regular)


def along(rows: torch.Tensor, axes: torch.Tensor | None) -> torch.Tensor:
    """Rows [r, in] as coordinates [r, k] along orthonormal axes [k, in]."""
    return rows if axes is None else rows.double() @ axes.T


def across(rows: torch.Tensor, axes: torch.Tensor | None) -> torch.Tensor:
    """Rows [r, in] of coordinates [r, k]."""
    return rows if axes is None else (rows.double() @ axes).to(rows)


def _accumulate(total: dict[str, torch.Tensor], more: Mapping[str, torch.Tensor], weight: float) -> None:
    for source, gram in more.items():
        total[source] = total[source] + weight * gram if source in total else weight * gram


def concept_subject(load: Loader, record: Record) -> Subject:
    """The concept itself, as prompts name it."""
    return Subject(text.Slot(record.key, load(record).tokens.shape[1], record.class_noun), record.style)


def noun_subjects(records: Sequence[Record]) -> list[Subject]:
    """The class nouns of concepts, each once: what prompts without a concept are about."""
    return list(dict.fromkeys(Subject(record.class_noun, record.style) for record in records))


def own_deltas(load: Loader, record: Record, factor: float = 1.0) -> dict[str, torch.Tensor]:
    """ΔW [out, in] of each site of one concept, times ``factor``."""
    weights = load(record)
    return {site: delta(up, weights.down[site], record.scale * factor) for site, up in weights.up.items()}


def text_features(
    base: Base,
    prompts: Sequence[text.Tokens],
    vectors: Mapping[str, torch.Tensor],
    axes: Axes,
) -> dict[str, torch.Tensor]:
    """C of the sites of ``axes`` that see text: mean of x xᵀ [k, k] over all positions of the prompts."""
    with torch.no_grad():
        contexts = text.encode(base, prompts, vectors)
    layer_of = base.site_layers
    return {
        site: text_gram(contexts[layer_of[site]], own)
        for site, own in sorted(axes.items())
        if base.architecture.sees_text(site)
    }


def image_features(
    base: Base,
    subject: Subject,
    vectors: Mapping[str, torch.Tensor],
    deltas: Mapping[str, torch.Tensor],
    axes: Axes,
    options: MergeOptions,
    kind: str,
    on_step: Callable[[], None],
) -> dict[str, torch.Tensor]:
    """C [k, k] of the sites of ``axes`` that see images: recorded while a few pictures are drawn, both halves of the
    guidance, with ``deltas`` in the weights."""
    watched = {site: own for site, own in axes.items() if not base.architecture.sees_text(site)}
    if not watched:
        return {}
    prompts = subject.prompts(base, options.templates)
    seeds = [options.seed + k for k in range(options.drawings)]
    drawn = [prompts[k % len(prompts)] for k in range(options.drawings)]
    # Where all sites see text and picture together, all depend on the step: one, in the middle, is enough.
    joint, done = not any(map(base.architecture.sees_text, base.site_layers)), 0

    def stepped() -> None:
        nonlocal done
        done += 1
        on_step()

    with recorded(base.denoiser, watched, lambda: not joint or done == options.steps // 2) as grams:
        denoised(base, drawn, vectors, deltas, seeds, steps=options.steps, kind=kind, on_step=stepped)
    return {site: gram.mean() for site, gram in grams.items()}


def denoised(
    base: Base,
    prompts: Sequence[text.Tokens],
    vectors: Mapping[str, torch.Tensor],
    deltas: Mapping[str, torch.Tensor],
    seeds: Sequence[int],
    *,
    steps: int,
    kind: str,
    on_step: Callable[[], None],
) -> torch.Tensor:
    """Latents of one picture for each prompt and seed, all in one batch, with ``deltas`` in the weights."""
    nothing = text.tokenize(base, [""])
    with torch.no_grad(), merged(base.denoiser, deltas):
        given = text.encode(base, prompts, vectors)
        without = text.encode(base, [nothing] * len(prompts), {})
        wholes = text.pooled(base, prompts), text.pooled(base, [nothing] * len(prompts))
        return sampling.denoise(
            base, sampling.guided(base, given, without, family(kind).draw["guidance"], pooled=wholes),
            sampling.initial_noise(base, seeds, (base.pixels, base.pixels)),
            sampler="dpm++", steps=steps, on_step=lambda _: on_step(),
        )  # fmt: skip
