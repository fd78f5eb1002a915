"""Drawing prompts and layouts that name concepts."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cidm_registry import Record, Registry

from ..errors import CidmError, ExitCode
from ..formats.merged import read_merged
from ..layout import Layout, check_concepts
from ..layout.masks import mask_folder
from ..method.lowrank import delta
from ..models import sampling, text
from ..models import structure as control
from ..models.attention import cross_attention_layers, linear_shapes, merged
from ..models.base import Base
from ..options import DrawOptions
from ..processes import SOLO, Crew
from ..prompts import find_unknown, parse_prompt
from . import layouts, structure, views
from .layouts import COMPLETE, Ablation, Chosen
from .mixtures import Applied, Loader, Mixture, applied, mixture, nouns, prompt_tokens


@dataclass(frozen=True)
class Job:
    """One prompt to draw, complete: equal jobs give equal pictures, byte for byte, on one machine."""

    prompt: str
    options: DrawOptions
    """Without None."""
    layout: Layout | None = None
    """The layout it came from, whose regions are drawn; its masks lie beside its file."""
    ablation: Ablation = COMPLETE
    """What is left out in drawing a layout with regions."""
    structure: structure.Followed | None = None
    """A picture whose lines are followed."""

    @property
    def regions(self) -> Layout | None:
        """The layout, where it has regions."""
        return self.layout if self.layout and self.layout.regions else None


@dataclass(frozen=True)
class Picture:
    """A drawn picture and everything needed to draw it again."""

    image: Image.Image
    facts: dict[str, Any]
    number: int = 0
    """Its place among all that were asked for."""


@dataclass(frozen=True)
class Static:
    """A merged LoRA file, ready to draw with."""

    path: Path
    sha256: str
    deltas: dict[str, torch.Tensor]
    """ΔW [out, in] of each site."""


def read_static(path: Path, base: Base) -> Static:
    """Loads what ``cidm merge`` wrote.

    Raises:
        CidmError: NOT_FOUND or INVALID, naming the file.
    """
    factors, _ = read_merged(path, shapes=linear_shapes(base.unet))
    products = {
        site: delta(up.to(base.device), down.to(base.device), 1.0) for site, (up, down) in factors.items()
    }
    return Static(path.resolve(), hashlib.sha256(path.read_bytes()).hexdigest(), products)


def check(registry: Registry, jobs: Sequence[Job]) -> None:
    """Refuses, before any model is loaded, unknown concepts, and layouts that cannot be drawn.

    Raises:
        CidmError: NOT_FOUND, with a suggestion; what `layouts.check` raises.
    """
    names = [record.name for record in registry.records()]
    for job in jobs:
        if job.layout:
            check_concepts(job.layout, names)
        unknown = find_unknown(parse_prompt(job.prompt), names)
        if unknown:
            raise unknown
        if job.regions:
            layouts.check(job.regions, job.options)


def check_size(options: DrawOptions, base: Base) -> None:
    """Refuses a size whose latents cannot be halved as often as the base's UNet does.

    Raises:
        CidmError: USAGE.
    """
    assert options.size
    (width, height), multiple = options.size, base.multiple
    if any(type(side) is not int or not multiple <= side <= 4096 or side % multiple for side in options.size):
        raise CidmError(
            f"size {width}x{height}: each side must be a multiple of {multiple} up to 4096 on this base",
            code=ExitCode.USAGE,
        )


def work(jobs: Sequence[Job], crew: Crew = SOLO) -> int:
    """How many times ``draw`` will call ``on_step``; the jobs' options without None."""
    return sum(
        (job.options.steps or 0) * len(starts) for job, starts in zip(jobs, _dealt(jobs, crew), strict=True)
    )


def _dealt(jobs: Sequence[Job], crew: Crew) -> list[list[int]]:
    """For each job, the first picture of each of its batches that this process draws."""
    out, before = [], 0
    for job in jobs:
        starts = range(0, job.options.count, job.options.batch)
        out.append([start for number, start in enumerate(starts, before) if crew.mine(number)])
        before += len(starts)
    return out


def draw(
    registry: Registry,
    base: Base,
    jobs: Sequence[Job],
    *,
    records: Sequence[Record] | None = None,
    static: Static | None = None,
    on_step: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = lambda note: None,
    crew: Crew = SOLO,
) -> Iterator[Picture]:
    """Draws every job's pictures, in order. Each prompt's concepts are looked up once, before denoising.

    Of several processes, each draws whole batches, so that a picture is the same whoever draws it.

    Args:
        records: the concepts there are, else all of the registry: an older state of it is a part of its records.
        static: a merged LoRA to draw with, in place of the concepts' own.
        on_step: called after each denoising step of each batch.

    Raises:
        CidmError: USAGE when a prompt is so long that a concept in it is cut off; FAILED when it names concepts
            that no one method draws; what `layouts.check` raises for a layout.
    """
    load = Loader(registry, base)
    there = registry.records() if records is None else records
    before = itertools.accumulate((job.options.count for job in jobs), initial=0)
    for job, starts, first in zip(jobs, _dealt(jobs, crew), before, strict=False):
        if not starts:
            continue
        chosen = choose(base, load, there, job)
        if static is not None:
            chosen = _without_weights(chosen)
        seeds = [job.options.seed + k for k in range(job.options.count)]
        with ready(base, job, chosen, load, static, on_note) as drawing:
            for start in starts:
                batch = seeds[start : start + job.options.batch]
                for index, image in enumerate(drawing(batch, on_step)):
                    facts = _facts(registry, base, job, chosen, static, batch, index)
                    yield Picture(image, facts, first + start + index)


def choose(base: Base, load: Loader, records: Sequence[Record], job: Job) -> Chosen:
    """What a job is drawn with, given the concepts there are. Raises CidmError as `draw` does."""
    if job.regions:
        return layouts.choose(base, load, records, job.regions, job.options)
    return Chosen(mixture(base, load, records, job.prompt, job.options))


@contextmanager
def ready(
    base: Base,
    job: Job,
    chosen: Chosen,
    load: Loader,
    static: Static | None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Iterator[Callable[[Sequence[int], Callable[[], None]], list[Image.Image]]]:
    """While open, what it gives draws the pictures of a batch of seeds; what all batches share is done on entering."""
    guide = structure.prepare(base, load, job.structure, job.options, on_note) if job.structure else None
    if job.regions:
        with merged(base.unet, static.deltas if static else {}):
            scene = layouts.prepare(base, job.regions, job.options, chosen, load, job.ablation, on_note)
            lead = None if guide is None else views.Lead(guide, _heard(base, job, chosen))
            yield partial(_draw_regions, base, scene, lead)
    else:
        weights = Applied(static.deltas) if static else applied(base, chosen.whole, load)
        told = texts_of(base, job, chosen.whole, load, on_note)
        lead = None if guide is None else views.Lead(guide, _heard(base, job, chosen))
        with weights.merged(base):
            yield partial(_draw_prompt, base, job, told, weights, lead)


def _without_weights(chosen: Chosen) -> Chosen:
    """The same with a merged LoRA in place of all concepts' own weights."""
    whole, *regions = (
        replace(one, method="merged", used=(), weights=()) for one in (chosen.whole, *chosen.regions)
    )
    return replace(chosen, whole=whole, regions=tuple(regions))


def _heard(base: Base, job: Job, chosen: Chosen) -> torch.Tensor:
    """What a model that follows a structure hears of each source of a picture, [sources, tokens, width].

    Without and with the whole prompt, then of each region, as `layouts.sources_of` counts them.
    """
    said = [job.options.negative, structure.heard(job.prompt, chosen.whole)]
    for region, mix in zip(job.regions.regions if job.regions else (), chosen.regions, strict=True):
        negative = job.options.negative if region.negative is None else region.negative
        said += [negative, structure.heard(region.prompt, mix)]
    return control.plain_texts(base, said)


Text = tuple[tuple[torch.Tensor, ...], torch.Tensor | None]
"""What each cross-attention layer attends to [1, tokens, width], and the text as a whole [1, width] if need be."""


@torch.no_grad()
def texts_of(
    base: Base, job: Job, chosen: Mixture, load: Loader, on_note: Callable[[str], None]
) -> tuple[Text, Text]:
    """Without the prompt and with it."""
    layers = len(cross_attention_layers(base.unet))
    vectors = {record.key: load(record).tokens for record in chosen.named}
    without = text.tokenize(base.tokenizer, [job.options.negative])
    given = prompt_tokens(base, job.prompt, vectors, on_note, nouns=nouns(chosen.named))
    first, second = (
        (text.encode(base, [tokens], vectors, layers=layers), text.pooled(base, [tokens]))
        for tokens in (without, given)
    )
    return first, second


def prompt_estimate(
    base: Base,
    options: DrawOptions,
    told: tuple[Text, Text],
    weights: Applied,
    count: int,
    lead: views.Lead | None = None,
) -> sampling.Estimate:
    """What ``count`` pictures of one prompt are denoised by; ``told`` is what ``texts_of`` gives."""
    without, given = ([c.expand(count, -1, -1) for c in contexts] for contexts, _ in told)
    without_whole, given_whole = (None if whole is None else whole.expand(count, -1) for _, whole in told)
    assert options.guidance is not None
    return sampling.guided(
        base, given, without, options.guidance, partial(weights.evaluate, base),
        pooled=(given_whole, without_whole),
        followed=(lambda number: None) if lead is None else views.following(base, lead, count),
    )  # fmt: skip


def _draw_prompt(
    base: Base,
    job: Job,
    told: tuple[Text, Text],
    weights: Applied,
    lead: views.Lead | None,
    seeds: Sequence[int],
    on_step: Callable[[], None],
) -> list[Image.Image]:
    assert job.options.size
    estimate = prompt_estimate(base, job.options, told, weights, len(seeds), lead)
    noise = sampling.initial_noise(base, seeds, job.options.size)
    return _denoised(base, job.options, estimate, noise, on_step)


def _draw_regions(
    base: Base,
    scene: layouts.Scene,
    lead: views.Lead | None,
    seeds: Sequence[int],
    on_step: Callable[[], None],
) -> list[Image.Image]:
    estimate = views.estimate(base, scene, len(seeds), lead)
    return _denoised(base, scene.options, estimate, layouts.noise(base, scene, seeds), on_step)


def _denoised(
    base: Base,
    options: DrawOptions,
    estimate: sampling.Estimate,
    noise: torch.Tensor,
    on_step: Callable[[], None],
) -> list[Image.Image]:
    assert options.steps
    latents = sampling.denoise(
        base, estimate, noise, sampler=options.sampler, steps=options.steps, on_step=lambda _: on_step()
    )
    return sampling.decode(base, latents)


def _facts(
    registry: Registry,
    base: Base,
    job: Job,
    chosen: Chosen,
    static: Static | None,
    batch: Sequence[int],
    index: int,
) -> dict[str, Any]:
    facts = {
        "format": 1,
        "prompt": job.prompt,
        "seed": batch[index],
        "options": asdict(job.options),
        "batch": list(batch),
        "index": index,
        **told_mixture(chosen.whole),
        "merged": None if static is None else {"path": str(static.path), "sha256": static.sha256},
        "layout": job.layout.to_toml() if job.layout else None,
        **told_base(registry, base),
    }
    if job.structure:
        facts["structure"] = structure.told(job.structure)
    if not job.regions:
        return facts
    regions = [
        {**told_mixture(mix), "mask": mask.sha256 if mask else None}
        for mix, mask in zip(chosen.regions, chosen.masks, strict=True)
    ]
    folder = str(mask_folder(job.regions).resolve()) if any(chosen.masks) else None
    return {**facts, "regions": regions, "folder": folder, "ablation": asdict(job.ablation)}


def told_base(registry: Registry, base: Base) -> dict[str, Any]:
    """The base, how it computed and with what, as pictures tell it."""
    return {
        "base": registry.base.fingerprint,
        "compute": str(base.compute).removeprefix("torch."),
        "device": base.device.type,
        "tools": {name: version(name) for name in ("cidm", "torch", "diffusers", "transformers")},
    }


def told_mixture(chosen: Mixture) -> dict[str, Any]:
    """A mixture, as pictures tell it."""
    weights = dict(zip([record.blob for record in chosen.used], chosen.weights, strict=True))
    shown = {record.blob: record for record in (*chosen.named, *chosen.used)}
    concepts = [
        {
            "name": record.name,
            "key": record.key,
            "blob": blob,
            "named": record in chosen.named,
            "weights": list(weights.get(blob, ())),
        }
        for blob, record in shown.items()
    ]
    return {"method": chosen.method, "concepts": concepts}
