"""What drawing would take, counted on a base without weights, with concepts that stand for learned ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from cidm_registry import Against, Record, Registry, canonical_key

from ..draw import found, scenes, views
from ..draw.encoded import Texts
from ..draw.jobs import Job
from ..draw.mixtures import Loader, content
from ..formats.concept import ConceptWeights
from ..models import memory, sampling
from ..models.base import Base
from ..models.text import token_width
from ..options.draw import DrawOptions
from ..options.prompts import parse_prompt
from .estimate_learn import DECODING, DENOISING, LATER, PROMPTS, Phase, part_sizes, phase, watched


def drawing(registry: Registry | None, records: Sequence[Record], base: Base, job: Job) -> tuple[Phase, ...]:
    """The phases of drawing a job, for one batch of its pictures; ``base`` is a skeleton.

    Raises:
        CidmError: as ``images.draw`` does.
    """
    options = job.options
    count = min(options.count, options.batch)
    batches = -(-options.count // options.batch)
    # A registry is asked for nothing: the weights of all concepts are there already.
    load = Loader(registry, base)  # type: ignore[arg-type]
    for record in records:
        load._weights.get(content(record), partial(_stand_in, base, record))
    cells = options.size[0] * options.size[1] // base.factor**2
    scheduler = sampling.timed_scheduler(base, options.sampler, options.steps, cells)
    times = scheduler.timesteps
    phases, sizes = [], part_sizes(base)
    with watched(base) as watch, torch.no_grad():
        batch = [scenes.Part(job, scenes.choose(base, load, records, job), tuple(range(count)))]
        before = watch.live
        weights = scenes.merging(base, batch[0].chosen, load)
        with weights.merged(base):
            # Layers that are merged are there twice, and the originals wait where the base does.
            originals = watch.live - before if base.offload else 0
            counted = partial(phase, base=base, watch=watch, sizes=sizes, spared=originals)
            watch.restart()
            scene = found.prepare(base, batch, Texts(base, load))
            estimate = found.estimate(base, scene, batch, weights)
            noise = scenes.noise(base, scene, batch[0].seeds)
            phases.append(counted(PROMPTS))

            def evaluation(name: str, number: int) -> Phase:
                watch.restart()
                with base.autocast():
                    estimate(noise, times[number], number // scheduler.order)
                return counted(name)

            first, last = evaluation(DENOISING, 0), evaluation(LATER, len(times) - 1)
            # A step goes on as it began.
            began = [times[number - number % scheduler.order] for number in range(len(times))]
            crops = sum(float(t) >= _settled(base) for t in began) if last.flops < first.flops else len(times)
            phases.append(_often(first, crops * batches))
            if crops < len(times):
                phases.append(_often(last, (len(times) - crops) * batches))
            watch.restart()
            sampling.decoded(base, noise)
            phases.append(_often(counted(DECODING), batches))
    return tuple(phases)


def made_up(names: Sequence[str]) -> list[Record]:
    """Concepts of these names as ``learn`` makes them where nothing is said, for a base without a registry."""
    return [
        Record(
            name=name, class_noun="thing", style=False, tokens=("[V*]", "[V]"), rank=4, scale=1.0, method="cidm",
            config={}, data_hash="", against=Against.of((), 0), losses={}, tools={}, extra={},
            key=canonical_key(name), sequence=number, version=1, origin=number, blob=name, base="", config_hash="",
            created="", preview=None, scores={},
        )
        for number, name in enumerate(dict.fromkeys(names), 1)
    ]  # fmt: skip


def named_in(job: Job) -> list[str]:
    """The concepts that a job's prompts name."""
    texts = [text for prompt, options in job.parts for text in (prompt, options.negative)]
    return [name for text in texts for name in parse_prompt(text).names]


def advice(base: Base, options: DrawOptions) -> str:
    """What would take less memory."""
    fewer = replace(options, batch=min(options.batch, options.count))
    return memory.drawing_advice(base, fewer)


def _often(once: Phase, times: int) -> Phase:
    return Phase(once.name, once.memory, once.flops, times)


def _settled(base: Base) -> float:
    """The timestep below which crops have no say."""
    return base.scheduler_config.get("num_train_timesteps", 1000) * (1 - views.CROPS_UNTIL)


def _stand_in(base: Base, record: Record) -> ConceptWeights:
    """Weights of the shapes that a concept's are of; like the base's they hold no numbers."""
    some, shapes = next(base.denoiser.parameters()), base.shapes
    # The settings of an imported concept do not say.
    sites = base.sites(record.config.get("options", {}).get("targets", base.family.learn["targets"]))
    up = {site: some.new_zeros((shapes[site][0], record.rank), dtype=torch.float32) for site in sites}
    down = {site: some.new_zeros((record.rank, shapes[site][1]), dtype=torch.float32) for site in sites}
    tokens = 1 + len(base.architecture.pieces(base, record.class_noun))
    shape = (base.groups, tokens, token_width(base))
    return ConceptWeights(up, down, some.new_zeros(shape, dtype=torch.float32))
