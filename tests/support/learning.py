"""Learning small concepts on the tiny base, by the command line or directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
from cidm_cli.data import load_examples
from cidm_cli.formats.concept import ConceptWeights
from cidm_cli.learn.assignment import Task
from cidm_cli.learn.run import Events, learn
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.opening import concept_weights, open_base
from cidm_cli.options.learn import resolve_learn
from cidm_registry import Record, Registry

FAST = (
    "--steps", 4, "--batch", 2, "--lr", 0.02, "--token-lr", 0.05, "--variants", 2, "--no-preview-image",
)  # fmt: skip
"""A training of milliseconds that changes what is drawn; it draws nothing itself."""
STRONG = {"lr": 0.1, "token_lr": 0.5, "steps": 3, "variants": 1}
"""Few steps that change what is drawn."""


def task(
    folder: Path,
    *,
    name: str = "dog",
    noun: str = "dog",
    update: bool = False,
    resume: bool = False,
    restart: bool = False,
    kind: str = "sd15",
    **options: Any,
) -> Task:
    """What FAST asks for, but for ``options``."""
    fast = {"steps": 4, "batch": 2, "lr": 0.02, "token_lr": 0.05, "variants": 2}
    chosen = resolve_learn({**fast, **options}, kind)
    dataset = load_examples(folder, class_noun=noun)
    return Task(name, noun, False, dataset, chosen, update=update, resume=resume, restart=restart)


def learn_direct(registry: Registry, base: Base, work: Task, events: Events | None = None) -> Record:
    return learn(registry, base, work, events or Events())


def taught(base: Path, place: Path, **options: Any) -> Registry:
    """A registry in a folder, on a base's folder, that knows <dog> and <cat>, by the images under its pictures/."""
    registry = Registry.create(place / "registry", identify(str(base)))
    loaded = open_base(registry, device="cpu", precision="fp32")
    for seed, name in enumerate(("dog", "cat")):
        pictures = tiny.save_pictures(place / "pictures" / name, (f"a {name}",) * 2, seed=seed)
        learn_direct(
            registry, loaded, task(pictures, name=name, noun=name, kind=registry.base.kind, **options)
        )
    return registry


def pictures(registry: Registry, name: str) -> Path:
    """What ``taught`` had it learn."""
    return registry.root.parent / "pictures" / name


def weights(registry: Registry, base: Base, name: str) -> ConceptWeights:
    return concept_weights(registry, base, registry.get(name))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file in a folder with its content, but for locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if path.name != "lock"}
