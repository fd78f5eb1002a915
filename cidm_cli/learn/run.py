"""Learning one new concept: plan, prepare, train, commit."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from cidm_registry import (
    Against,
    Draft,
    Record,
    Registry,
    RegistryError,
    Run,
    canonical_key,
    digest_of,
)

from ..data import marked
from ..errors import CidmError, ExitCode
from ..formats.concept import ConceptWeights, pack
from ..machine.processes import SOLO, Crew
from ..models import memory, text
from ..models.base import Base, peak_memory
from ..options.declared import spelled
from ..options.learn import LearnOptions
from . import methods, prior
from .assignment import Task
from .batches import Prepared, Read, picture_sizes, prepare, slotted
from .cache import Cache, remembering
from .checkpoints import checkpoint, restore
from .step import Trainee, train_step, training

TRIED = 3
"""Steps that a plan does."""


@dataclass(frozen=True)
class Events:
    """How a caller follows and stops a training."""

    on_step: Callable[[int, float], None] = lambda step, loss: None
    """Called after each step with the number of steps done and the loss."""
    on_note: Callable[[str], None] = lambda note: None
    """Called with what a user should know but need not act on."""
    stop: Callable[[], bool] = lambda: False
    """Asked after each step; True saves a checkpoint and ends the run."""
    after_step: Callable[[Trainee], None] = lambda trainee: None
    """Called after each step, when its checkpoint is saved; must leave the trainee as it is."""


def learn(
    registry: Registry,
    base: Base,
    task: Task,
    events: Events,
    cache_folder: Path | None = None,
    crew: Crew = SOLO,
) -> Record:
    """Learns the task's concept and commits it. Older concepts are not touched.

    A concept's record stands for every older concept by one hash: the order in the registry is the order of learning.
    What was encoded or drawn for a training before is taken from ``cache_folder``, where there is one.
    Of several processes, only the main one has the run and commits. The training is that of one process.

    Raises:
        CidmError: FAILED for a loss that is not finite or a run that does not match, INTERRUPTED when stopped,
            OUT_OF_MEMORY with advice.
        RegistryError: when the concept cannot be committed.
    """
    head = registry.head()
    records = registry.records()
    against = Against.of(records, head)
    config = _config(registry, base, task)
    run_config = {**config, "older": against.digest}
    prompts = caption_tokens(base, task, events)
    method = methods.build(registry, base, records, task.name, placed_captions(task), task.options)
    crew.agree_on(run_config)
    run = _open_run(registry, task, run_config, events) if crew.main else None
    latest = run.latest() if run else None
    saved = crew.exchange(latest[1] if latest else b"")[0]
    cache = Cache(cache_folder, registry.base.fingerprint, events.on_note)
    with memory.advised(task.name, base, task.options):
        if prior.wanted(task.options):
            ours = prior.prepare(
                base,
                registry.base.kind,
                prior_captions(task),
                task.options,
                cache,
                events.on_note,
                events.stop,
            )
            method = prior.beside(method, ours, task.options)
        data = prepare(base, task.dataset, prompts, task.options, remembering(cache))
        with training(base, task.name, task.noun, task.options, method) as trainee:
            if saved:
                restore(trainee, saved)
                events.on_note(f"going on from step {trainee.step}")
            fit(trainee, data, task.options, run, events, crew)
            if trainee.overflows:
                events.on_note(f"{trainee.overflows} steps overflowed in float16 and changed nothing")
            if run is None:
                crew.meet()
                return registry.get(task.name)
            kept = method.regulariser.keep(trainee, data, task.options)
            blob = pack(_finite(task.name, replace(trainee.weights(), state=kept)))
    draft = _draft(base, task, config, against, trainee)
    record = registry.commit(draft, blob, expected_head=head, update=task.update)
    try:
        run.finish()
    except RegistryError as error:
        events.on_note(f"{error.message}; the concept is learned: cidm gc --runs clears its run away")
    crew.meet()
    return record


@dataclass(frozen=True)
class Plan:
    """What a training would do, measured by doing a little of it."""

    images: int
    sizes: tuple[tuple[int, int], ...]
    """Widths and heights they are learned at, each once."""
    placed: Mapping[str, tuple[int, int]]
    """That of each image, by its file's name."""
    captions: tuple[str, ...]
    """As the text encoder gets them, the concept as <name>."""
    method: str
    """How it would be learned."""
    older: int
    """Concepts learned before."""
    against: int
    """Those of them that the method takes into account."""
    steps: int
    batch: int
    sites: int
    """Layers that get low-rank weights."""
    layers: int
    """Copies of the concept's tokens, one for each cross-attention layer or group of layers."""
    parameters: int
    """Trained numbers."""
    seconds: float
    """From the steps that were tried, but for the first."""
    memory: int
    """Peak bytes of this process, or of its share of the GPU."""
    device: str
    compute: str
    prior: int
    """Pictures that the base would draw first, unless they are in the cache; ``seconds`` are without that."""


def plan(registry: Registry, base: Base, task: Task, events: Events, crew: Crew = SOLO) -> Plan:
    """Sets a training up and does a few steps of it, the first to warm up; writes nothing."""
    records = registry.records()
    prompts = caption_tokens(base, task, events)
    method = methods.build(registry, base, records, task.name, placed_captions(task), task.options)
    with memory.advised(task.name, base, task.options):
        if prior.wanted(task.options):
            ours = prior.stand_in(base, prior_captions(task), Cache(None, registry.base.fingerprint))
            method = prior.beside(method, ours, task.options)
        data = prepare(base, task.dataset, prompts, task.options)
        with training(base, task.name, task.noun, task.options, method) as trainee:
            took = []
            for number in range(TRIED):
                began = time.perf_counter()
                loss = train_step(trainee, data, task.options, crew)
                took.append(time.perf_counter() - began)
                events.on_step(number + 1, loss)
            each = fmean(took[1:])
            numbers = [trainee.tokens, *(factor for pair in trainee.factors.values() for factor in pair)]
            sites, layers = len(trainee.factors), trainee.tokens.shape[0]
    sizes = picture_sizes(base, task.dataset, task.options)
    return Plan(
        images=len(sizes), sizes=tuple(sorted({*sizes})),
        placed={one.path.name: size for one, size in zip(task.dataset.examples, sizes, strict=True)},
        captions=tuple(read.prompt for read in read_captions(base, task)), method=task.options.method,
        older=len(records), against=methods.against(records, task.name, task.options),
        steps=task.options.steps, batch=task.options.batch, sites=sites, layers=layers,
        parameters=sum(n.numel() for n in numbers), seconds=each * task.options.steps, memory=peak_memory(base),
        device=base.device.type, compute=str(base.compute).removeprefix("torch."),
        prior=task.options.prior if prior.wanted(task.options) else 0,
    )  # fmt: skip


def fit(
    trainee: Trainee,
    data: Prepared,
    options: LearnOptions,
    run: Run | None,
    events: Events,
    crew: Crew = SOLO,
) -> None:
    """Trains to the last step, with a checkpoint now and then and when asked to stop. Checkpoints go to the ``run``."""
    while trainee.step < options.steps:
        loss = train_step(trainee, data, options, crew)
        events.on_step(trainee.step, loss)
        stopping = crew.meet(events.stop())
        # Also after the last step: should the commit fail, --resume only has to commit again.
        due = stopping or trainee.step % options.checkpoint_every == 0 or trainee.step == options.steps
        if due and run is not None:
            run.save(trainee.step, checkpoint(trainee))
        if stopping:
            raise CidmError(
                f"concept {trainee.name}: stopped at step {trainee.step} of {options.steps}; checkpoint saved",
                hint="the same command with --resume goes on from there",
                code=ExitCode.INTERRUPTED,
            )
        events.after_step(trainee)


def prior_captions(task: Task) -> list[str]:
    """The captions of the pictures that the base draws to be learned beside the concept's."""
    return prior.captions(task.dataset.examples, task.name, task.noun, task.style, task.options)


def caption_tokens(base: Base, task: Task, events: Events) -> tuple[text.Tokens, ...]:
    """Each picture's caption as ``read_captions`` has it; what of it is left out is told."""
    out = []
    for example, read in zip(task.dataset.examples, read_captions(base, task), strict=True):
        if read.left_out:
            kept = "only the concept is kept" if read.prompt == f"<{task.name}>" else "cut"
            rest = read.left_out if len(read.left_out) <= 60 else f"{read.left_out[:59]}…"
            events.on_note(
                f"{example.path.name}: caption too long for the text encoder; {kept}, without {rest!r}"
            )
        out.append(read.tokens)
    return tuple(out)


def read_captions(base: Base, task: Task) -> list[Read]:
    """Each picture's caption as the text encoder reads it, the concept in its place.

    Raises:
        CidmError: USAGE when not even the bare concept fits.
    """
    slot = text.Slot(task.name, 1 + len(_kept_noun(base, task)), task.noun)
    room = base.architecture.room(base)
    if slot.tokens > room:
        raise CidmError(
            f"concept {task.name}: its class noun takes {slot.tokens - 1} tokens, and a prompt holds {room}",
            hint="say it shorter, in ordinary words, with --class",
            code=ExitCode.USAGE,
        )
    return [slotted(base, caption, slot) for caption in placed_captions(task)]


def _kept_noun(base: Base, task: Task) -> list[str]:
    """Ids of the class noun's tokens, of which the concept's own begin as copies; none where the method drops it."""
    return base.architecture.pieces(base, task.noun) if methods.keeps_noun(task.options.method) else []


def placed_captions(task: Task) -> list[str]:
    """The captions as prompts, with <name> where they speak of the concept."""
    return [marked(example.caption, task.name, task.noun).prompt for example in task.dataset.examples]


def _config(registry: Registry, base: Base, task: Task) -> dict[str, Any]:
    return {
        "key": canonical_key(task.name),
        "noun": task.noun,
        "style": task.style,
        "data": task.dataset.digest,
        "base": registry.base.fingerprint,
        "precision": str(base.compute).removeprefix("torch."),
        "options": asdict(task.options),
    }


def _open_run(registry: Registry, task: Task, config: dict[str, Any], events: Events) -> Run:
    """The run to go on with, or a new one.

    Raises:
        CidmError: FAILED when there is an unfinished run that was not mentioned, or one that does not match.
    """
    old = registry.find_run(config["key"])
    saved = old.latest() if old else None
    # A run that ended before its first checkpoint holds nothing to go on with.
    if old and (task.restart or saved is None):
        old.finish()
    if old is None or saved is None or task.restart:
        if task.resume:
            events.on_note(f"no unfinished run of {task.name}: starting at step 0")
        return registry.start_run(config)
    if not task.resume:
        raise CidmError(
            f"concept {task.name}: an unfinished run of it is at step {saved[0]}",
            hint="--resume goes on with it, --restart drops it and begins again",
        )
    changed = _differences(old.config, config)
    if changed:
        raise CidmError(
            f"concept {task.name}: cannot resume, changed since the run began: {'; '.join(changed)}",
            hint="put it back as it was, or begin again with --restart",
        )
    return old


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    words = {"data": "the images or captions", "older": "the older concepts", "base": "the base's weights"}
    if "parents" in old:
        # A run of an earlier version lists them.
        old = {**old, "older": digest_of(old["parents"])}
    out = []
    for key in new:
        if key == "options":
            # A run of an earlier version lacks the settings that there were not yet: it did without them.
            was, now = {**spelled(LearnOptions), "buckets": False, **old.get(key, {})}, new[key]
            out += [
                f"--{k.replace('_', '-')} was {was.get(k)}, now {now[k]}" for k in now if was.get(k) != now[k]
            ]
        elif old.get(key) != new[key]:
            out.append(words.get(key, f"{key} was {old.get(key)}, now {new[key]}"))
    return out


def _finite(name: str, weights: ConceptWeights) -> ConceptWeights:
    tensors = [weights.tokens, *weights.up.values(), *weights.down.values(), *weights.state.values()]
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise CidmError(
            f"concept {name}: its weights hold NaN or infinite values after training; nothing was committed",
            hint="try a lower --lr or --token-lr",
        )
    return weights


def _last_tenth(values: list[float]) -> float:
    """Their mean."""
    tail = values[-max(1, len(values) // 10) :]
    return sum(tail) / len(tail)


def _draft(base: Base, task: Task, config: dict[str, Any], against: Against, trainee: Trainee) -> Draft:
    losses = trainee.losses
    return Draft(
        name=task.name,
        class_noun=task.noun,
        style=task.style,
        tokens=("[V*]", *(f"[V{piece}]" for piece in _kept_noun(base, task))),
        rank=task.options.rank,
        scale=task.options.scale,
        method=task.options.method,
        config=config,
        data_hash=task.dataset.digest,
        against=against,
        losses={"first": losses[0], "last_tenth": _last_tenth(losses), "steps": len(losses)}
        | {name: _last_tenth(values) for name, values in trainee.terms.items()},
        tools={name: version(name) for name in ("cidm", "torch", "diffusers", "transformers", "peft")}
        | {"python": platform.python_version()},
        extra={"images": len(task.dataset.examples)},
    )
