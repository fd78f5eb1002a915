"""Drawing prompts that name concepts, and drawing a picture again from what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..formats.concept import ConceptWeights
from ..method.lowrank import delta, weighted_sum
from ..models import sampling, text
from ..models.attention import cross_attention_layers, merged
from ..models.base import Base
from ..options import DrawOptions, resolve_draw
from ..prompts import Mention, find_unknown, parse_prompt
from .bases import concept_weights


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
class Mixture:
    """The concepts a prompt names, with their weights in the merged model."""

    records: tuple[Record, ...]
    weights: tuple[float, ...]


Loader = Callable[[Record], ConceptWeights]


def loader(registry: Registry, base: Base) -> Loader:
    """Loads each concept's weights once, however many prompts name it."""
    known: dict[str, ConceptWeights] = {}

    def load(record: Record) -> ConceptWeights:
        if record.blob not in known:
            known[record.blob] = concept_weights(registry, base, record.blob, record.name)
        return known[record.blob]

    return load


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


def named(registry: Registry, prompt: str) -> Mixture:
    """The mixture of a prompt: the concepts it names, each with its full weight, and no other (method.md, row 9)."""
    records = {record.key: record for record in registry.records()}
    found = tuple(records[canonical_key(name)] for name in parse_prompt(prompt).names)
    return Mixture(found, (1.0,) * len(found))


def draw(
    registry: Registry,
    base: Base,
    jobs: Sequence[Job],
    *,
    on_step: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Iterator[Picture]:
    """Draws every job's pictures, in order. Each prompt's concepts are merged into the weights once, before denoising.

    ``on_step`` is called after each denoising step of each batch.

    Raises:
        CidmError: USAGE when a prompt is so long that a concept in it is cut off.
    """
    load = loader(registry, base)
    for job in jobs:
        mixture = named(registry, job.prompt)
        seeds = [job.options.seed + k for k in range(job.options.count)]
        with _merged(base, mixture, load):
            for start in range(0, len(seeds), job.options.batch):
                batch = seeds[start : start + job.options.batch]
                images = _draw_batch(base, job, batch, mixture, load, on_step, on_note)
                for index, image in enumerate(images):
                    yield Picture(image, _facts(registry, base, job, mixture, batch, index))


def redraw(registry: Registry, base: Base, facts: dict[str, Any]) -> Picture:
    """Draws again the picture that carries ``facts``: with the batch it was drawn in, so that the bytes agree.

    Raises:
        CidmError: NOT_FOUND when a concept it shows is gone, INVALID when the facts are not such, REGISTRY when
            it was drawn on another base.
    """
    try:
        job = _job_of(facts, registry.base.kind, base)
        batch, index = [int(seed) for seed in facts["batch"]], int(facts["index"])
        wanted = [(c["key"], c["blob"], float(c["weight"])) for c in facts["concepts"]]
        fingerprint = facts["base"]
        batch[index], facts["seed"]
        if not all(0 <= seed < 2**63 for seed in batch):
            raise ValueError("its seeds are impossible")
        if {canonical_key(name) for name in parse_prompt(job.prompt).names} != {key for key, _, _ in wanted}:
            raise ValueError("its prompt names other concepts than it shows")
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
    missing = [key for key, blob, _ in wanted if blob not in by_blob]
    if missing:
        raise CidmError(
            f"the picture shows <{missing[0]}> as it was learned then, and the registry no longer has that version",
            hint="`cidm list` shows what there is",
            code=ExitCode.NOT_FOUND,
        )
    # Under the name it had then: the prompt calls it by that, whatever it was renamed to since.
    records = tuple(replace(by_blob[blob], key=key) for key, blob, _ in wanted)
    mixture = Mixture(records, tuple(weight for _, _, weight in wanted))
    load = loader(registry, base)
    with _merged(base, mixture, load):
        images = _draw_batch(base, job, batch, mixture, load, lambda: None, lambda note: None)
    return Picture(images[index], facts)


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


def _merged(base: Base, mixture: Mixture, load: Loader) -> AbstractContextManager[None]:
    """The base with ΔŴ = Σ_i w_i ΔW_i merged into its weights, for as long as it is open."""
    loaded = [(load(record), record.scale) for record in mixture.records]
    deltas = {}
    for site in sorted({site for weights, _ in loaded for site in weights.up}):
        having = [k for k, (weights, _) in enumerate(loaded) if site in weights.up]
        products = [delta(loaded[k][0].up[site], loaded[k][0].down[site], loaded[k][1]) for k in having]
        deltas[site] = weighted_sum(products, [mixture.weights[k] for k in having])
    return merged(base.unet, deltas)


def _draw_batch(
    base: Base,
    job: Job,
    seeds: Sequence[int],
    mixture: Mixture,
    load: Loader,
    on_step: Callable[[], None],
    on_note: Callable[[str], None],
) -> list[Image.Image]:
    layers = len(cross_attention_layers(base.unet))
    vectors = {record.key: load(record).tokens for record in mixture.records}
    tokens = (
        text.tokenize(base.tokenizer, [job.options.negative]),
        _tokens(base, job.prompt, vectors, on_note),
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
    latents = sampling.denoise(
        base, given, without, sampling.initial_noise(base, seeds, options.size),
        sampler=options.sampler, steps=options.steps, guidance=options.guidance, on_step=lambda _: on_step(),
    )  # fmt: skip
    return sampling.decode(base, latents)


def _tokens(
    base: Base, prompt: str, vectors: Mapping[str, torch.Tensor], on_note: Callable[[str], None]
) -> text.Tokens:
    """A prompt's token ids, with a slot for each concept in it; ``vectors`` are their tokens by key."""
    parts: list[str | text.Slot] = []
    for part in parse_prompt(prompt).parts:
        if isinstance(part, Mention):
            key = canonical_key(part.name)
            parts.append(text.Slot(key, vectors[key].shape[1]))
        else:
            parts.append(part)
    tokens = text.tokenize(base.tokenizer, parts)
    if tokens.lost:
        raise CidmError(
            f"prompt {prompt!r}: too long, <{tokens.lost[0]}> is cut off",
            hint=f"the text encoder holds {base.tokenizer.model_max_length - 2} tokens; name the concept earlier",
            code=ExitCode.USAGE,
        )
    if tokens.cut:
        on_note(f"prompt {prompt!r}: too long, its end is cut off")
    return tokens


def _facts(
    registry: Registry, base: Base, job: Job, mixture: Mixture, batch: Sequence[int], index: int
) -> dict[str, Any]:
    return {
        "format": 1,
        "prompt": job.prompt,
        "seed": batch[index],
        "options": asdict(job.options),
        "batch": list(batch),
        "index": index,
        "concepts": [
            {"name": r.name, "key": r.key, "blob": r.blob, "weight": w}
            for r, w in zip(mixture.records, mixture.weights, strict=True)
        ],
        "base": registry.base.fingerprint,
        "layout": job.layout,
        "compute": str(base.compute).removeprefix("torch."),
        "device": base.device.type,
        "tools": {name: version(name) for name in ("cidm", "torch", "diffusers", "transformers")},
    }
