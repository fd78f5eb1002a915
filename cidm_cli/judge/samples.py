"""Pictures drawn for an evaluation, kept by content: what was drawn once, in any run, is not drawn again."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from cidm_registry import Record, Registry, canonical_key

from ..draw import images as generate
from ..draw import png, structure
from ..draw.encoded import Said
from ..draw.facts import told_base
from ..draw.jobs import Ablation, Job
from ..draw.mixtures import Loader
from ..draw.scenes import Part, choose, makes_crops
from ..errors import CidmError, ExitCode
from ..files.images import MAX_FILE_BYTES, opened
from ..files.reading import read_bounded
from ..files.writing import write_whole
from ..layout import Layout
from ..models.base import Base
from ..options.draw import APART, ONE_AT_A_TIME, DrawOptions
from ..options.prompts import parse_prompt
from .rivals import with_nouns

_SETTINGS = ("steps", "guidance", "size", "sampler", "negative")
"""What a picture depends on besides its prompt, its batch and the weights."""


@dataclass(frozen=True)
class Scene:
    """What pictures are drawn from, but for the prompt."""

    records: tuple[Record, ...]
    """The concepts there are."""
    options: DrawOptions
    static: generate.Static | None = None
    """A merged LoRA in place of the concepts' own."""


@dataclass(frozen=True)
class Batch:
    """Pictures of one prompt that are drawn together."""

    keys: tuple[str, ...]
    """Of each picture: a hash of all that it depends on, and the stem of its file's name."""
    job: Job
    scene: Scene


def scene(
    records: Sequence[Record],
    options: DrawOptions,
    nouns: Mapping[str, str],
    static: generate.Static | None = None,
) -> Scene:
    """A scene with these concepts and no others: in the negative prompt the others are their class nouns, by key."""
    there = {record.key for record in records}
    others = {key: noun for key, noun in nouns.items() if key not in there}
    return Scene(tuple(records), replace(options, negative=with_nouns(options.negative, others)), static)


def plan(
    registry: Registry,
    base: Base,
    load: Loader,
    scene: Scene,
    prompts: Sequence[str],
    followed: structure.Followed | None = None,
) -> list[Batch]:
    """The batches that draw every prompt's pictures, in order, with a structure that all follow if need be."""
    jobs = [Job(prompt, scene.options, structure=followed) for prompt in prompts]
    return [batch for job in jobs for batch in _planned(registry, base, load, scene, job)]


def plan_layout(
    registry: Registry,
    base: Base,
    load: Loader,
    scene: Scene,
    layout: Layout,
    ablation: Ablation,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[Batch]:
    """The batches that draw a layout's pictures: ``scene.options.count`` of them, as its options say.

    Raises what reading its masks and its structure raises.
    """
    followed = structure.of_layout(layout, on_note=on_note)
    job = Job(layout.base.prompt, scene.options, layout, ablation, followed)
    return _planned(registry, base, load, scene, job)


def _planned(registry: Registry, base: Base, load: Loader, scene: Scene, job: Job) -> list[Batch]:
    chosen = choose(base, load, scene.records, job)
    said = Part(job, chosen, ()).said
    common, *regions = (_content(registry, base, scene, one) for one in said)
    heard: Any = [structure.heard(one.prompt, one.chosen.named) for one in said]
    if layout := job.layout:
        common["layout"] = {
            **layout.image.model_dump(exclude={"size", "seed", "steps", "guidance", "count"}),
            "crops": makes_crops(base, layout, scene.options.size, job.ablation),
            "alpha": layout.base.alpha,
            "regions": [
                {
                    **region.model_dump(exclude={"prompt", "mask"}),
                    "negative": None if region.negative is None else content["options"]["negative"],
                    "mask": mask and mask.sha256,
                    "prompt": content["prompt"],
                    "used": content["used"],
                }
                for region, content, mask in zip(layout.regions, regions, chosen.masks, strict=True)
            ],
            "ablation": asdict(job.ablation),
        }
    if job.structure:
        common["structure"] = {**job.structure.content(), "heard": heard if layout else heard[0]}
    return _batches(scene, job, common)


def _batches(scene: Scene, job: Job, common: dict[str, Any]) -> list[Batch]:
    """A job in the batches it is drawn in; ``common`` is what all its pictures depend on."""
    out = []
    first, count = scene.options.seed, scene.options.count
    for start in range(first, first + count, scene.options.batch):
        seeds = list(range(start, min(start + scene.options.batch, first + count)))
        keys = tuple(_hash({**common, "batch": seeds, "index": index}) for index in range(len(seeds)))
        part = replace(job, options=replace(scene.options, seed=start, count=len(seeds)))
        out.append(Batch(keys, part, scene))
    return out


def missing(folder: Path, batches: Sequence[Batch]) -> list[Batch]:
    """The batches of which a picture is not there yet, each once."""
    by_keys = {batch.keys: batch for batch in batches}
    return [batch for keys, batch in by_keys.items() if not all(file(folder, key).is_file() for key in keys)]


def fill(
    registry: Registry,
    base: Base,
    folder: Path,
    batches: Sequence[Batch],
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Draws the batches, a file a picture; each is whole as soon as it is there, whenever the work is stopped.

    ``on_step`` is called as by ``generate.draw``.
    """
    for _, group in itertools.groupby(batches, key=lambda batch: id(batch.scene)):
        some = list(group)
        scene = some[0].scene
        pictures = generate.draw(
            registry, base, [batch.job for batch in some],
            records=scene.records, static=scene.static, mixed=False, on_step=on_step,
        )  # fmt: skip
        keys = [key for batch in some for key in batch.keys]
        for key, picture in zip(keys, pictures, strict=True):
            write_whole(file(folder, key), png.encode(picture.image, picture.facts))


def read(folder: Path, key: str) -> Image.Image:
    """A picture that was drawn, RGB.

    Raises:
        CidmError: INVALID for a damaged file.
    """
    path = file(folder, key)
    try:
        with opened(read_bounded(path, MAX_FILE_BYTES), str(path), ("PNG",)) as image:
            return image.convert("RGB")
    except CidmError as error:
        hint = "delete it; the same command draws it again"
        raise CidmError(error.message, hint, ExitCode.INVALID) from error


def file(folder: Path, key: str) -> Path:
    """Where the picture of a key is kept."""
    return folder / f"{key[:32]}.png"


def _content(registry: Registry, base: Base, scene: Scene, said: Said) -> dict[str, Any]:
    """All that a prompt's pictures depend on: words, settings, and the weights by content, not by name or method."""
    chosen = said.chosen
    used: Any = [
        [record.blob, record.scale, list(weights)]
        for record, weights in zip(chosen.used, chosen.weights, strict=True)
    ]
    if scene.static is not None:
        used = {"merged": scene.static.sha256}
    settings = asdict(scene.options)
    special = chosen.method in (*ONE_AT_A_TIME, *APART)
    return {
        "format": 1,
        "prompt": _words(said.prompt, chosen.named),
        "used": used,
        "one_at_a_time": chosen.method if special and len(chosen.used) > 1 else None,
        "options": {
            **{name: settings[name] for name in _SETTINGS},
            # Without concepts a text, as the keys of all pictures kept so far have it.
            "negative": _words(said.negative, chosen.against) if chosen.against else said.negative,
        },
        **told_base(registry, base, scene.options.size),
        # As the keys of all pictures kept so far have it.
        "compute": str(base.compute),
    }


def _words(prompt: str, named: Sequence[Record]) -> list[Any]:
    """A prompt with its concepts by content."""
    concepts = {record.key: [record.blob, record.class_noun] for record in named}
    read = parse_prompt(prompt)
    parts: list[Any] = [
        part if isinstance(part, str) else {"concept": concepts[canonical_key(part.name)]}
        for part in read.parts
    ]
    if read.breaks or any(weight != 1 for weight in read.weights):
        parts.append({"weights": read.weights, "breaks": read.breaks})
    return parts


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
