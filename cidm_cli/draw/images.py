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

from ..files.given import Given
from ..files.places import told_path
from ..files.writing import write_whole
from ..formats.merged import read_merged
from ..layout.masks import mask_folder
from ..machine.processes import SOLO, Crew
from ..method.lowrank import delta
from ..models import memory, sampling
from ..models.base import Base
from ..models.opening import lora_fit
from ..terminal.progress import once
from . import found, over, png, scenes, structure
from .encoded import Texts
from .facts import told_base, told_mixture
from .jobs import Job
from .looking import Look, looking
from .mixtures import Applied, Deltas, Loader
from .scenes import Chosen, Part, Scene


@dataclass(frozen=True)
class Picture:
    """A drawn picture and everything needed to draw it again."""

    image: Image.Image
    facts: dict[str, Any]
    number: int = 0
    """Its place among all that were asked for."""
    given: Given | None = None
    """What it was drawn over."""

    @property
    def content(self) -> bytes:
        """The bytes of a PNG that says how it was drawn."""
        return png.encode(self.image, self.facts)

    def save(self, path: str | Path) -> None:
        """Writes that PNG."""
        write_whole(Path(path), self.content)


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
    return sum(over.steps(job) * job.options.count for job in jobs)


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
    on_look: Look | None = None,
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
        on_look: shown now and then, small, what the first picture of a batch looks like so far.

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
        with ready(base, *group[0], texts, static, on_look) if any_own else nullcontext() as drawing:
            for batch, own in dealt:
                places = [(number, k) for number, part in enumerate(batch) for k in range(len(part.seeds))]
                if own:
                    assert drawing
                    drawn = zip(places, drawing(batch, on_step), strict=True)
                    for place, ((number, k), image) in enumerate(drawn, first):
                        facts = _facts(registry, base, batch, number, k, static)
                        if under := batch[number].job.over:
                            yield Picture(under.finish(image), facts, place, under.given)
                        else:
                            yield Picture(image, facts, place)
                else:
                    # Another process draws them meanwhile.
                    for _ in range(len(places) * over.steps(batch[0].job)):
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
    """What a job is drawn with; a merged LoRA stands in place of all concepts' own weights."""
    chosen = scenes.choose(base, load, records, job)
    if static is None:
        return chosen
    whole, *regions = (replace(one, method="merged", used=(), weights=()) for one in chosen.mixtures)
    return Chosen(whole, tuple(regions), chosen.masks)


def _shared(job: Job, chosen: Chosen) -> object:
    """Equal for jobs whose pictures may be drawn in one batch: the weights and all settings are the same."""
    if job.regions:
        return object()
    whole = chosen.whole
    settings = replace(job.options, seed=0, count=1, negative="")
    return (
        settings,
        job.structure,
        job.over and (job.over.strength, job.over.invert),
        whole.method,
        [(record.blob, record.scale) for record in whole.used],
        whole.weights,
        chosen.before and _shared(*chosen.before),
    )


Drawing = Callable[[Sequence[Part], Callable[[], None]], list[Image.Image]]
"""Draws the pictures of a batch, and calls back for each of them after each step."""


@contextmanager
def ready(
    base: Base, job: Job, chosen: Chosen, texts: Texts, static: Static | None, on_look: Look | None = None
) -> Iterator[Drawing]:
    """While open, what it gives draws batches with one job's weights and settings: done once for all of them.

    A batch of a layout with regions holds pictures of that layout alone.
    """
    guide = None
    if job.structure:
        guide = scenes.guide(base, job.structure, job.options, texts.load, texts.on_note)
    every = [chosen.before[1], chosen] if chosen.before else [chosen]
    weights = [
        Applied(lambda: static.deltas) if static else scenes.merging(base, c, texts.load) for c in every
    ]
    prepared: list[Scene] = []

    def drawing(batch: Sequence[Part], on_step: Callable[[], None]) -> list[Image.Image]:
        stages = [batch]
        if chosen.before:
            stages.insert(0, [Part(*part.chosen.before, part.seeds) for part in batch if part.chosen.before])
        if not prepared or prepared[-1].jobs != tuple(part.job for part in batch):
            prepared[:] = [found.prepare(base, stage, texts, guide) for stage in stages]
        return _drawn(base, [*zip(prepared, stages, weights, strict=True)], merges, on_step, on_look)

    # Noise is found in given pictures with the base's own weights: there each batch is merged for by itself. So it is
    # where the weights change on the way.
    merges = over.inverts(job) or len(weights) > 1
    with nullcontext() if merges else weights[0].merged(base):
        yield drawing


Stage = tuple[Scene, Sequence[Part], Applied]
"""What some sampling steps draw, for which parts of the batch, and how its weights are in the base."""


def _drawn(
    base: Base, stages: Sequence[Stage], merges: bool, on_step: Callable[[], None], on_look: Look | None
) -> list[Image.Image]:
    """The pictures of a batch, drawn in one stage, or in two where learned styles come later.

    Args:
        merges: whether each stage's weights are merged here, and not all along.
    """
    scene, batch, _ = stages[-1]
    options = scene.options

    def stepped(_: int = 0) -> None:
        for _ in noise:
            on_step()

    with memory.advised_drawing(base, options):
        noise = scenes.noise(base, scene, [seed for part in batch for seed in part.seeds])
        begun = over.begun(base, scene, batch, noise, stepped)
        until = [scenes.steps_before(scene.jobs[0]), options.steps][-len(stages) :]
        taken = 0
        for (shown, parts, weights), last in zip(stages, until, strict=True):
            follow = _counting_from(taken, found.estimate(base, shown, parts, weights))
            with weights.merged(base) if merges else nullcontext():
                latents = sampling.denoise(
                    base, follow, begun.noise, sampler=options.sampler,
                    steps=options.steps, first=begun.first, last=last, begin=begun.begin, keep=begun.keep,
                    on_step=stepped, on_look=looking(base, on_look),
                    beside=[shown.guide.control.model] if shown.guide else [],
                )  # fmt: skip
            begun, taken = over.Begun(noise, last, partial(_as_it_is, latents)), last
        return sampling.decode(base, latents)


def _counting_from(taken: int, estimate: sampling.Estimate) -> sampling.Estimate:
    """The same, told of the steps that were taken before."""
    return lambda latents, t, step: estimate(latents, t, taken + step)


def _as_it_is(latents: torch.Tensor, _level: sampling.Level) -> torch.Tensor:
    return latents


def _facts(
    registry: Registry, base: Base, batch: Sequence[Part], number: int, index: int, static: Static | None
) -> dict[str, Any]:
    """What a picture says of itself: the one with this index in the part of this number of its batch."""
    job, chosen, seeds = batch[number].job, batch[number].chosen, batch[number].seeds
    facts = {
        "format": 1,
        "prompt": job.prompt,
        "seed": seeds[index],
        "options": asdict(job.options),
        **told_mixture(chosen.whole),
        **told_base(registry, base, job.options.size),
    }
    if job.over:
        return {**facts, **job.over.told, "options": {**job.over.told["options"], **facts["options"]}}
    facts |= {
        "batch": list(seeds),
        "index": index,
        "before": [_told_part(part) for part in batch[:number]],
        "after": [_told_part(part) for part in batch[number + 1 :]],
        "merged": None if static is None else {"path": told_path(static.path), "sha256": static.sha256},
        "layout": scenes.told(job.layout) if job.layout else None,
    }
    if job.structure:
        facts["structure"] = structure.told(job.structure)
    if job.regions:
        # As of a file in it: of a folder elsewhere not even its name is told.
        place = Path(told_path(mask_folder(job.regions) / "layout")).parent.as_posix()
        facts |= {
            "regions": [
                {**told_mixture(mix), "mask": mask.sha256 if mask else None}
                for mix, mask in zip(chosen.regions, chosen.masks, strict=True)
            ],
            "folder": place if any(chosen.masks) else None,
            "ablation": asdict(job.ablation),
        }
    return facts


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
