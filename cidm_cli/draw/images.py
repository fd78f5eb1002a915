"""Drawing prompts and layouts that name concepts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cidm_registry import Record, Registry

from ..files.places import told_path
from ..files.writing import write_whole
from ..formats.merged import read_merged
from ..layout.masks import mask_folder
from ..machine.processes import SOLO, Crew
from ..method.lowrank import delta
from ..models import memory, sampling
from ..models import structure as control
from ..models.base import Base
from ..models.lora import merged
from ..models.opening import lora_fit
from ..options.draw import DrawOptions
from ..terminal.progress import once
from . import png, structure, views
from . import scenes as layouts
from .encoded import Said, Texts, estimate
from .facts import told_base, told_mixture
from .jobs import Job
from .mixtures import Applied, Deltas, Loader, applied, mixture
from .scenes import Chosen


@dataclass(frozen=True)
class Part:
    """Pictures of one prompt in a batch."""

    job: Job
    chosen: Chosen
    seeds: tuple[int, ...]

    @property
    def said(self) -> Said:
        """What each of them is asked for with."""
        return Said(self.job.prompt, self.job.options.negative, self.chosen.whole)


@dataclass(frozen=True)
class Picture:
    """A drawn picture and everything needed to draw it again."""

    image: Image.Image
    facts: dict[str, Any]
    number: int = 0
    """Its place among all that were asked for."""

    def save(self, path: str | Path) -> None:
        """Writes it as a PNG that says how it was drawn."""
        write_whole(Path(path), png.encode(self.image, self.facts))


@dataclass(frozen=True)
class Static:
    """A merged LoRA file, ready to draw with."""

    path: Path
    sha256: str
    deltas: Mapping[str, torch.Tensor]
    """ΔW [out, in] of each site."""


def read_static(path: Path, base: Base) -> Static:
    """Loads what ``cidm merge`` wrote.

    Raises:
        CidmError: NOT_FOUND or INVALID, naming the file.
    """
    found, content = read_merged(path, lora_fit(base))
    products = {
        site: partial(delta, m.up.to(base.device), m.down.to(base.device), m.scale)
        for site, m in found.modules.items()
    }
    return Static(path, hashlib.sha256(content).hexdigest(), Deltas(products))


def work(jobs: Iterable[Job]) -> int:
    """How many times ``draw`` will call ``on_step``; the jobs' options without None."""
    return sum((job.options.steps or 0) * job.options.count for job in jobs)


def draw(
    registry: Registry,
    base: Base,
    jobs: Iterable[Job],
    *,
    records: Sequence[Record] | None = None,
    static: Static | None = None,
    mixed: bool = True,
    on_step: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = lambda note: None,
    crew: Crew = SOLO,
) -> Iterator[Picture]:
    """Draws every job's pictures, in order. Each prompt's concepts are looked up once, before denoising.

    Jobs that follow each other and are drawn with the same weights and settings share batches. Between others the
    weights are swapped. Of several processes, each draws whole batches, so that a picture is the same whoever draws it.

    Args:
        records: the concepts there are, else all of the registry: an older state of it is a part of its records.
        static: a merged LoRA to draw with, in place of the concepts' own.
        mixed: whether jobs share batches.
        on_step: called for each picture after each of its denoising steps.

    Raises:
        CidmError: USAGE when a prompt is so long that a concept in it is cut off; FAILED when it names concepts
            that no one method draws; what `check_layout` raises for a layout.
    """
    load = Loader(registry, base)
    texts = Texts(base, load, once(on_note))
    there = registry.records() if records is None else records
    chosen = ((job, _chosen(base, load, there, job, static)) for job in jobs)
    turns, first = count(), 0
    for _, alike in groupby(chosen, lambda pair: _shared(*pair) if mixed else object()):
        group = list(alike)
        dealt = [(batch, crew.mine(next(turns))) for batch in batches(group)]
        any_own = any(own for _, own in dealt)
        with ready(base, *group[0], texts, static) if any_own else nullcontext() as drawing:
            for batch, own in dealt:
                places = [(number, k) for number, part in enumerate(batch) for k in range(len(part.seeds))]
                if own:
                    assert drawing
                    drawn = zip(places, drawing(batch, on_step), strict=True)
                    for place, ((number, k), image) in enumerate(drawn, first):
                        yield Picture(image, _facts(registry, base, batch, number, k, static), place)
                else:
                    # Another process draws them meanwhile.
                    for _ in range(len(places) * batch[0].job.options.steps):
                        on_step()
                first += len(places)


def batches(group: Sequence[tuple[Job, Chosen]]) -> Iterator[tuple[Part, ...]]:
    """The pictures of jobs that may share batches, in order, in batches that are full but for the last."""
    limit = group[0][0].options.batch
    pictures = (
        (number, job.options.seed + k)
        for number, (job, _) in enumerate(group)
        for k in range(job.options.count)
    )
    while some := list(islice(pictures, limit)):
        yield tuple(
            Part(group[number][0], group[number][1], tuple(seed for _, seed in own))
            for number, own in groupby(some, lambda picture: picture[0])
        )


def _chosen(base: Base, load: Loader, records: Sequence[Record], job: Job, static: Static | None) -> Chosen:
    chosen = choose(base, load, records, job)
    return chosen if static is None else _without_weights(chosen)


def _shared(job: Job, chosen: Chosen) -> object:
    """Equal for jobs whose pictures may be drawn in one batch: the weights and all settings are the same."""
    if job.regions:
        return object()
    whole = chosen.whole
    settings = replace(job.options, seed=0, count=1, negative="")
    return (
        settings,
        job.structure,
        whole.method,
        [(record.blob, record.scale) for record in whole.used],
        whole.weights,
    )


def choose(base: Base, load: Loader, records: Sequence[Record], job: Job) -> Chosen:
    """What a job is drawn with, given the concepts there are. Raises CidmError as `draw` does."""
    if job.regions:
        return layouts.choose(base, load, records, job.regions, job.options)
    return Chosen(mixture(base, load, records, job.prompt, job.options))


Drawing = Callable[[Sequence[Part], Callable[[], None]], list[Image.Image]]
"""Draws the pictures of a batch, and calls back for each of them after each step."""


@contextmanager
def ready(base: Base, job: Job, chosen: Chosen, texts: Texts, static: Static | None) -> Iterator[Drawing]:
    """While open, what it gives draws batches with one job's weights and settings: done once for all of them.

    A batch of a layout with regions holds pictures of that layout alone.
    """
    load, on_note = texts.load, texts.on_note
    guide = views.guide(base, load, job.structure, job.options, on_note) if job.structure else None
    if job.regions:
        with merged(base.denoiser, static.deltas if static else {}):
            scene = layouts.prepare(base, job.regions, job.options, chosen, load, job.ablation, on_note)
            lead = None if guide is None else views.Lead(guide, _heard(base, job, chosen))
            yield partial(_draw_regions, base, scene, lead)
    else:
        weights = Applied(lambda: static.deltas) if static else applied(base, chosen.whole, load)
        with weights.merged(base):
            yield partial(_draw_prompts, base, job.options, texts, weights, guide)


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
    mixes = (chosen.whole, *chosen.regions)
    said = [
        words
        for (prompt, options), mix in zip(job.parts, mixes, strict=True)
        for words in structure.heard_of(prompt, options.negative, mix.named, mix.against)
    ]
    return control.plain_texts(base, said)


def _draw_prompts(
    base: Base,
    options: DrawOptions,
    texts: Texts,
    weights: Applied,
    guide: control.Guide | None,
    batch: Sequence[Part],
    on_step: Callable[[], None],
) -> list[Image.Image]:
    said = [part.said for part in batch for _ in part.seeds]
    followed = views.following(base, guide, texts.heard(said)) if guide else lambda step: None
    follow = estimate(base, options, texts.of(said), weights, followed)
    noise = sampling.initial_noise(base, [seed for part in batch for seed in part.seeds], options.size)
    return _denoised(base, options, follow, noise, guide, on_step)


def _draw_regions(
    base: Base,
    scene: layouts.Scene,
    lead: views.Lead | None,
    batch: Sequence[Part],
    on_step: Callable[[], None],
) -> list[Image.Image]:
    (part,) = batch
    follow = views.estimate(base, scene, len(part.seeds), lead)
    guide = lead.guide if lead else None
    return _denoised(base, scene.options, follow, layouts.noise(base, scene, part.seeds), guide, on_step)


def _denoised(
    base: Base,
    options: DrawOptions,
    follow: sampling.Estimate,
    noise: torch.Tensor,
    guide: control.Guide | None,
    on_step: Callable[[], None],
) -> list[Image.Image]:

    def stepped(_: int) -> None:
        for _ in noise:
            on_step()

    with memory.advised_drawing(base, options):
        latents = sampling.denoise(
            base, follow, noise, sampler=options.sampler, steps=options.steps, on_step=stepped,
            beside=[guide.control.model] if guide else [],
        )  # fmt: skip
        return sampling.decode(base, latents)


def _facts(
    registry: Registry,
    base: Base,
    batch: Sequence[Part],
    number: int,
    index: int,
    static: Static | None,
) -> dict[str, Any]:
    """What a picture says of itself: the one with this index in the part of this number of its batch."""
    job, chosen, seeds = batch[number].job, batch[number].chosen, batch[number].seeds
    facts = {
        "format": 1,
        "prompt": job.prompt,
        "seed": seeds[index],
        "options": asdict(job.options),
        "batch": list(seeds),
        "index": index,
        "before": [_told_part(part) for part in batch[:number]],
        "after": [_told_part(part) for part in batch[number + 1 :]],
        **told_mixture(chosen.whole),
        "merged": None if static is None else {"path": told_path(static.path), "sha256": static.sha256},
        "layout": layouts.told(job.layout) if job.layout else None,
        **told_base(registry, base, job.options.size),
    }
    if job.structure:
        facts["structure"] = structure.told(job.structure)
    if not job.regions:
        return facts
    regions = [
        {**told_mixture(mix), "mask": mask.sha256 if mask else None}
        for mix, mask in zip(chosen.regions, chosen.masks, strict=True)
    ]
    # As of a file in it: of a folder elsewhere not even its name is told.
    place = Path(told_path(mask_folder(job.regions) / "layout")).parent.as_posix()
    folder = place if any(chosen.masks) else None
    return {
        **facts,
        "regions": regions,
        "folder": folder,
        "ablation": asdict(job.ablation),
    }


def _told_part(part: Part) -> dict[str, Any]:
    """Pictures of another prompt in the same batch, as pictures tell them: with what they do not have in common."""
    return {
        "prompt": part.job.prompt,
        "negative": part.job.options.negative,
        "seeds": list(part.seeds),
        "concepts": {
            record.key: {"blob": record.blob, "class_noun": record.class_noun}
            for record in (*part.chosen.whole.named, *part.chosen.whole.against)
        },
    }
