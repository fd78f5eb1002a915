"""The features that concepts' prompts produce in the base, for merges that look at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from cidm_registry import Record

from ..bases import family
from ..draw.mixtures import Loader
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


@dataclass(frozen=True)
class Gathered:
    """What a merge needs of the concepts and of the features they produce, on the CPU."""

    ups: dict[str, list[torch.Tensor]]
    """A_i [out, r_i] of each concept by site, its scale and factor in it; r_i is 0 where it leaves a site alone"""
    downs: dict[str, list[torch.Tensor]]
    """B_i [r_i, in]"""
    seen: dict[str, list[torch.Tensor]]
    """S_i = B_i C_i [r_i, in], float64"""
    grams: dict[str, torch.Tensor]
    """Σ_i C_i [in, in] by source, float64"""
    regular: dict[str, torch.Tensor]
    """C_reg [in, in] by source, float64"""


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
    """Runs each concept's prompts with its own LoRA, then the class nouns without any, and keeps what fuse needs.

    Every C is a mean over feature rows: each concept counts the same, however large its pictures. No more than one
    concept's are held at a time.
    """
    sites = sorted({site for record in records for site in load(record).up})
    shapes = {site: base.denoiser.get_submodule(site).weight.shape[:2] for site in sites}
    ups: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    downs: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    seen: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    grams: dict[str, torch.Tensor] = {}
    for record, factor in zip(records, factors, strict=True):
        weights, subject = load(record), concept_subject(load, record)
        vectors = {record.key: weights.tokens}
        found = text_features(base, subject.prompts(base, options.templates), vectors, sites)
        found |= image_features(
            base, subject, vectors, own_deltas(load, record, factor), sites, options, kind, on_step
        )
        for site in sites:
            out, width = shapes[site]
            up, down = (
                weights.up.get(site, torch.zeros(out, 0)),
                weights.down.get(site, torch.zeros(0, width)),
            )
            ups[site].append(up.cpu() * (record.scale * factor))
            downs[site].append(down.cpu())
            seen[site].append(down.cpu().double() @ found[base.architecture.feature_source(site)])
        _accumulate(grams, found, 1.0)
    regular: dict[str, torch.Tensor] = {}
    nouns = noun_subjects(records)
    prompts = [prompt for noun in nouns for prompt in noun.prompts(base, options.templates)]
    prompts.append(text.tokenize(base, [""]))
    _accumulate(regular, text_features(base, prompts, {}, sites), 1.0)
    for noun in nouns:
        found = image_features(base, noun, {}, {}, sites, options, kind, on_step)
        _accumulate(regular, found, 1 / len(nouns))
    return Gathered(ups, downs, seen, grams, regular)


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
    sites: Sequence[str],
) -> dict[str, torch.Tensor]:
    """C of the sites in ``sites`` that see text: mean of x xᵀ [in, in] over all positions of the prompts, by source."""
    with torch.no_grad():
        contexts = text.encode(base, prompts, vectors)
    architecture, layer_of = base.architecture, base.site_layers
    wanted = {architecture.feature_source(site) for site in sites if architecture.sees_text(site)}
    return {source: text_gram(contexts[layer_of[source]]) for source in sorted(wanted)}


def image_features(
    base: Base,
    subject: Subject,
    vectors: Mapping[str, torch.Tensor],
    deltas: Mapping[str, torch.Tensor],
    sites: Sequence[str],
    options: MergeOptions,
    kind: str,
    on_step: Callable[[], None],
) -> dict[str, torch.Tensor]:
    """C of the sites in ``sites`` that see images, by source: recorded while a few pictures are drawn, both halves
    of the guidance, with ``deltas`` in the weights."""
    architecture = base.architecture
    sources = sorted(
        {architecture.feature_source(site) for site in sites if not architecture.sees_text(site)}
    )
    if not sources:
        return {}
    prompts = subject.prompts(base, options.templates)
    seeds = [options.seed + k for k in range(options.drawings)]
    drawn = [prompts[k % len(prompts)] for k in range(options.drawings)]
    with recorded(base.denoiser, sources) as grams:
        denoised(base, drawn, vectors, deltas, seeds, steps=options.steps, kind=kind, on_step=on_step)
    return {source: gram.mean() for source, gram in grams.items()}


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
