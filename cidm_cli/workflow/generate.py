"""Drawing prompts that name concepts, and drawing a picture again from what it says of itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..formats.merged import read_merged
from ..method.lowrank import delta
from ..models import sampling, text
from ..models.attention import cross_attention_layers, linear_shapes
from ..models.base import Base
from ..options import DRAW_METHODS, DrawOptions, resolve_draw
from ..prompts import find_unknown, parse_prompt
from .mixtures import Applied, Loader, Mixture, applied, mixture, prompt_tokens


@dataclass(frozen=True)
class Job:
    """One prompt to draw, complete: equal jobs give equal pictures, byte for byte, on one machine."""

    prompt: str
    options: DrawOptions
    """Without None."""
    layout: str | None = None
    """The layout file it came from, as TOML."""


@dataclass(frozen=True)
class Picture:
    """A drawn picture and everything needed to draw it again."""

    image: Image.Image
    facts: dict[str, Any]


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
    """Refuses unknown concepts before any model is loaded.

    Raises:
        CidmError: NOT_FOUND, with a suggestion.
    """
    names = [record.name for record in registry.records()]
    for job in jobs:
        unknown = find_unknown(parse_prompt(job.prompt), names)
        if unknown:
            raise unknown


def check_size(options: DrawOptions, base: Base) -> None:
    """Refuses a size whose latents cannot be halved as often as the base's UNet does.

    Raises:
        CidmError: USAGE.
    """
    assert options.size
    width, height = options.size
    multiple = base.factor * 2 ** (len(base.unet.config.block_out_channels) - 1)
    if any(type(side) is not int or not multiple <= side <= 4096 or side % multiple for side in options.size):
        raise CidmError(
            f"size {width}x{height}: each side must be a multiple of {multiple} up to 4096 on this base",
            code=ExitCode.USAGE,
        )


def draw(
    registry: Registry,
    base: Base,
    jobs: Sequence[Job],
    *,
    records: Sequence[Record] | None = None,
    static: Static | None = None,
    on_step: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Iterator[Picture]:
    """Draws every job's pictures, in order. Each prompt's concepts are merged into the weights once, before denoising.

    Args:
        records: the concepts there are, else all of the registry: an older state of it is a part of its records.
        static: a merged LoRA to draw with, in place of the concepts' own.
        on_step: called after each denoising step of each batch.

    Raises:
        CidmError: USAGE when a prompt is so long that a concept in it is cut off; FAILED when it names concepts
            that no one method draws.
    """
    load = Loader(registry, base)
    there = registry.records() if records is None else records
    for job in jobs:
        chosen = mixture(base, load, there, job.prompt, job.options)
        if static is not None:
            chosen = replace(chosen, method="merged", used=(), weights=())
        ready = applied(base, chosen, load) if static is None else Applied(static.deltas)
        seeds = [job.options.seed + k for k in range(job.options.count)]
        with ready.merged(base):
            for start in range(0, len(seeds), job.options.batch):
                batch = seeds[start : start + job.options.batch]
                images = _draw_batch(base, job, batch, chosen, ready, load, on_step, on_note)
                for index, image in enumerate(images):
                    yield Picture(image, _facts(registry, base, job, chosen, static, batch, index))


def redraw(registry: Registry, base: Base, facts: dict[str, Any]) -> Picture:
    """Draws again the picture that carries ``facts``: with the batch it was drawn in, so that the bytes agree.

    Raises:
        CidmError: NOT_FOUND when a concept it shows is gone, INVALID when the facts are not such, REGISTRY when
            it was drawn on another base.
    """
    try:
        job = _job_of(facts, registry.base.kind, base)
        batch, index = [int(seed) for seed in facts["batch"]], int(facts["index"])
        wanted = [(c["key"], c["blob"], c["named"], _layer_weights(c, base)) for c in facts["concepts"]]
        fingerprint, method, file = facts["base"], facts["method"], facts["merged"]
        batch[index], facts["seed"]
        if not all(0 <= seed < 2**63 for seed in batch):
            raise ValueError("its seeds are impossible")
        told = {key for key, _, named, _ in wanted if named}
        if {canonical_key(name) for name in parse_prompt(job.prompt).names} != told:
            raise ValueError("its prompt names other concepts than it shows")
        if method not in (*DRAW_METHODS[1:], "merged") or (method == "merged") != (file is not None):
            raise ValueError(f"its method is {method!r}")
    except (KeyError, TypeError, ValueError, IndexError, CidmError) as error:
        raise CidmError(
            f"the picture's cidm text is incomplete or was edited ({error!r})",
            hint="give a picture that cidm generate wrote, unedited",
            code=ExitCode.INVALID,
        ) from error
    if fingerprint != registry.base.fingerprint:
        raise CidmError(
            "the picture was drawn on another base than this registry's",
            hint="give the registry it was drawn from with --registry PATH",
            code=ExitCode.REGISTRY,
        )
    by_blob = {record.blob: record for record in registry.records(all_versions=True)}
    missing = [key for key, blob, *_ in wanted if blob not in by_blob]
    if missing:
        raise CidmError(
            f"the picture shows <{missing[0]}> as it was learned then, and the registry no longer has that version",
            hint="`cidm list` shows what there is",
            code=ExitCode.NOT_FOUND,
        )
    # Under the name it had then: the prompt calls it by that, whatever it was renamed to since.
    then = [(replace(by_blob[blob], key=key), named, weights) for key, blob, named, weights in wanted]
    used = [(record, weights) for record, _, weights in then if weights]
    chosen = Mixture(
        method, tuple(record for record, named, _ in then if named),
        tuple(record for record, _ in used), tuple(weights for _, weights in used),
    )  # fmt: skip
    load = Loader(registry, base)
    ready = applied(base, chosen, load) if file is None else Applied(_same_file(file, base).deltas)
    with ready.merged(base):
        images = _draw_batch(base, job, batch, chosen, ready, load, lambda: None, lambda note: None)
    return Picture(images[index], facts)


def _layer_weights(told: dict[str, Any], base: Base) -> tuple[float, ...]:
    """The weights of a concept at each layer, as a picture tells them; none where only its tokens were used."""
    weights = tuple(float(weight) for weight in told["weights"])
    if weights and len(weights) != len(cross_attention_layers(base.unet)):
        raise ValueError(f"it tells {len(weights)} weights of a concept")
    if not all(math.isfinite(weight) for weight in weights) or not isinstance(told["named"], bool):
        raise ValueError("its weights are impossible")
    return weights


def _same_file(told: dict[str, str], base: Base) -> Static:
    """The merged file a picture was drawn with.

    Raises:
        CidmError: NOT_FOUND when it is gone or another one by now.
    """
    path = Path(told["path"])
    static = read_static(path, base) if path.is_file() else None
    if static is None or static.sha256 != told["sha256"]:
        raise CidmError(
            f"the picture was drawn with the merged file {path}, which is gone or has changed",
            hint="put it back, or merge the same concepts again",
            code=ExitCode.NOT_FOUND,
        )
    return static


def _job_of(facts: dict[str, Any], kind: str, base: Base) -> Job:
    """The job a picture says it comes from. Raises CidmError, KeyError or TypeError for one that cannot be drawn."""
    told = DrawOptions(**{**facts["options"], "size": tuple(facts["options"]["size"])})
    usual = resolve_draw(DrawOptions(), kind, base.pixels)
    for field in fields(DrawOptions):
        value, like = getattr(told, field.name), getattr(usual, field.name)
        if not isinstance(value, (int, float) if isinstance(like, float) else type(like)):
            raise TypeError(f"{field.name} is {value!r}")
    options = resolve_draw(told, kind, base.pixels)
    check_size(options, base)
    return Job(facts["prompt"], options, facts["layout"])


def _draw_batch(
    base: Base,
    job: Job,
    seeds: Sequence[int],
    chosen: Mixture,
    ready: Applied,
    load: Loader,
    on_step: Callable[[], None],
    on_note: Callable[[str], None],
) -> list[Image.Image]:
    layers = len(cross_attention_layers(base.unet))
    vectors = {record.key: load(record).tokens for record in chosen.named}
    tokens = (
        text.tokenize(base.tokenizer, [job.options.negative]),
        prompt_tokens(base, job.prompt, vectors, on_note),
    )
    without, given = (
        [
            context.expand(len(seeds), -1, -1)
            for context in text.encode(base, [prompt], vectors, layers=layers)
        ]
        for prompt in tokens
    )
    options = job.options
    assert options.size
    assert options.steps
    assert options.guidance is not None
    estimate = sampling.guided(base, given, without, options.guidance, partial(ready.evaluate, base))
    latents = sampling.denoise(
        base, estimate, sampling.initial_noise(base, seeds, options.size),
        sampler=options.sampler, steps=options.steps, on_step=lambda _: on_step(),
    )  # fmt: skip
    return sampling.decode(base, latents)


def _facts(
    registry: Registry,
    base: Base,
    job: Job,
    chosen: Mixture,
    static: Static | None,
    batch: Sequence[int],
    index: int,
) -> dict[str, Any]:
    weights = dict(zip([record.blob for record in chosen.used], chosen.weights, strict=True))
    shown = {record.blob: record for record in (*chosen.named, *chosen.used)}
    return {
        "format": 1,
        "prompt": job.prompt,
        "seed": batch[index],
        "options": asdict(job.options),
        "batch": list(batch),
        "index": index,
        "method": chosen.method,
        "concepts": [
            {
                "name": record.name,
                "key": record.key,
                "blob": blob,
                "named": record in chosen.named,
                "weights": list(weights.get(blob, ())),
            }
            for blob, record in shown.items()
        ],
        "merged": None if static is None else {"path": str(static.path), "sha256": static.sha256},
        "base": registry.base.fingerprint,
        "layout": job.layout,
        "compute": str(base.compute).removeprefix("torch."),
        "device": base.device.type,
        "tools": {name: version(name) for name in ("cidm", "torch", "diffusers", "transformers")},
    }
