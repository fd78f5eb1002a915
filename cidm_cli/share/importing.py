"""LoRA files of other programs, and bundles, as concepts of a registry."""

from __future__ import annotations

import hashlib
import platform
import re
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cidm_registry import (
    Against,
    Draft,
    InvalidName,
    Record,
    Registry,
    canonical_key,
    display_name,
    running_digests,
)

from ..bases import family
from ..data.nouns import class_noun
from ..errors import CidmError, ExitCode
from ..formats import bundle
from ..formats.bundle import Bundled, read_bundle
from ..formats.concept import ConceptWeights, pack
from ..formats.diffusers_lora import WEIGHTS_FILE, json_object
from ..formats.lora import LoraFile, common_scale
from ..formats.lora_file import naming_of, read_lora
from ..formats.peft_folder import CONFIG_FILE, open_peft
from ..formats.tensors import TensorFile, open_tensors, read_tensors
from ..machine.session import Session
from ..models.base import Base
from ..models.opening import checked, lora_fit, outlined
from ..options.learn import CARRIED, SUMMED

METHOD = "import"
"""What the record of a concept from a LoRA file says of how it was learned."""


@dataclass(frozen=True)
class Source:
    """A file or folder to import, its kind known by its header, before any model is loaded."""

    path: Path
    kind: str
    """"kohya", "diffusers", "comfyui", "peft" or "bundle"."""
    file: TensorFile
    config: Mapping[str, Any]
    """PEFT's settings, where there are any."""
    bundled: tuple[Bundled, ...]
    """The concepts of a bundle."""

    @property
    def told(self) -> dict[str, Any]:
        """What a file of our own says of its concept; nothing for files of other programs."""
        text = self.file.metadata.get("cidm", "{}")
        return json_object(text, str(self.path), "its cidm text") if self.kind != "bundle" else {}


def read(path: Path) -> Source:
    """The file, or the file in a folder that PEFT or diffusers saved.

    Raises:
        CidmError: NOT_FOUND for no such file, INVALID for what holds no LoRA and is no bundle.
    """
    config: dict[str, Any] = {}
    if (path / CONFIG_FILE).exists():
        file, config = open_peft(path)
    elif path.is_dir() and not (path / WEIGHTS_FILE).exists():
        raise CidmError(
            f"{path}: a folder without {CONFIG_FILE} or {WEIGHTS_FILE}",
            "give a .safetensors file, or a folder that PEFT or diffusers saved",
            ExitCode.NOT_FOUND,
        )
    else:
        file = open_tensors(path / WEIGHTS_FILE if path.is_dir() else path)
    if bundle.MARK in file.metadata:
        return Source(path, "bundle", file, {}, tuple(read_bundle(file.read(), str(path))))
    kind = "peft" if config else naming_of(file.header.tensors, str(path))
    return Source(path, kind, file, config, ())


def names(registry: Registry, source: Source, name: str | None, only: str | None) -> dict[str, str]:
    """What to call each concept, by the name it has in the file; refused where a name is taken.

    Args:
        name: what to call it instead, of a file with one concept.
        only: the one concept of a bundle that is wanted.

    Raises:
        CidmError: USAGE for a name that does not apply or cannot be used, NOT_FOUND for a concept that is not in the
            bundle, FAILED for a name that is taken.
        RegistryError: for a name that may be that of a concept whose record cannot be read.
    """
    own = [one.record.name for one in source.bundled] or [str(source.told.get("name") or source.path.stem)]
    if only is not None:
        own = [one for one in own if source.bundled and canonical_key(one) == canonical_key(only)]
        if not own:
            raise CidmError(f"--concept {only}: not in {source.path}", code=ExitCode.NOT_FOUND)
    if name is not None and len(own) > 1:
        raise CidmError(
            f"--as {name}: {source.path} holds {len(own)} concepts",
            "name the one that is meant with --concept", ExitCode.USAGE,
        )  # fmt: skip
    taken = {record.key: record for record in registry.records()}
    out = {one: _usable(one) if name is None else display_name(name) for one in own}
    for one in out.values():
        registry.check_free(one)
        if canonical_key(one) in taken:
            raise CidmError(
                f"concept {one}: there already is one of that name",
                "call the new one something else with --as NAME"
                + (" and --concept, one at a time" if len(own) > 1 else ""),
            )
    return out


def check(registry: Registry, source: Source, wanted: Mapping[str, str]) -> None:
    """Refuses, before any model is loaded, what the registry cannot take.

    Raises:
        CidmError: INVALID for a bundle of another base, FAILED for concepts that do not go together.
    """
    chosen = [one.record for one in source.bundled if one.record.name in wanted]
    for record in chosen:
        # A distilled model draws what was learned on the one it was made from, which is not known; shapes are checked.
        if record.base != registry.base.fingerprint and family(registry.base.kind).guided:
            raise CidmError(
                f"{source.path}: its concepts were learned on another base (weights {record.base[:12]}…) than this "
                f"registry's ({registry.base.source}, {registry.base.fingerprint[:12]}…)",
                "import it into a registry on the same base: cidm init --base … --registry PATH",
                ExitCode.INVALID,
            )
    methods = {METHOD} if not source.bundled else {record.method for record in chosen}
    methods |= {record.method for record in registry.records()}
    if len(methods) > 1 and methods & {*CARRIED, *SUMMED}:
        raise CidmError(
            f"{source.path}: concepts learned by {', '.join(sorted(methods))} do not go together in one registry",
            "import it into another registry: cidm init --registry PATH",
        )


@dataclass(frozen=True)
class Imported:
    """What came of a file."""

    kind: str
    """Of the file: bundle, or the form of a LoRA."""
    records: tuple[Record, ...]
    lora: LoraFile | None
    """What a LoRA file holds."""


def bring(
    session: Session, source: Source, wanted: Mapping[str, str], noun: str | None, *, style: bool
) -> Imported:
    """Commits what a file holds; what is lost on the way is told.

    Args:
        wanted: name here by name there, as ``names`` gives it.
        noun: what kind of thing a LoRA shows, else what the file or the name says.

    Raises:
        CidmError: INVALID for what does not fit the base; USAGE for a class noun that a prompt has no room for.
        RegistryError: when a concept cannot be committed.
    """
    registry, base = session.registry, outlined(session.registry)
    if source.kind == "bundle":
        records = _bring_bundle(registry, base, source, wanted)
        if any(one.record.base != registry.base.fingerprint for one in source.bundled):
            session.listener.note(
                "note: learned on another base, and drawn as it should be if this one was distilled from it"
            )
        if lonely := _without_older(source, wanted):
            session.listener.note(
                f"note: {lonely} of these were learned against older concepts that did not all come with them"
            )
        return Imported(source.kind, tuple(records), None)
    (title,) = wanted.values()
    said = source.told.get("class_noun")
    kind = class_noun(noun or (said if isinstance(said, str) else None), title)
    record, found = _bring_lora(
        registry, base, source, title, kind, style=style or source.told.get("style") is True
    )
    if found.left_out:
        session.listener.warn(
            f"{source.path}: left out {len(found.left_out)} parts that a concept has no place for (of text encoders, "
            f"embeddings, or the UNet outside its transformers), {found.left_out[0]} for one; what they did is missing"
        )
    if idle := found.idle:
        session.listener.warn(
            f"{source.path}: changes nothing at {len(idle)} of its {len(found.modules)} layers, where its alpha is 0 "
            f"or a factor all zeros, {idle[0]} for one"
        )
    return Imported(source.kind, (record,), found)


def _bring_lora(
    registry: Registry, base: Base, source: Source, name: str, noun: str, *, style: bool
) -> tuple[Record, LoraFile]:
    """Commits the LoRA as a concept without tokens: where a prompt names it, its class noun's words stand.

    Raises:
        CidmError: INVALID for what does not fit the base; USAGE for a class noun that is too long for a prompt.
        RegistryError: when the concept cannot be committed.
    """
    room = base.architecture.room(base)
    if not 0 < len(base.architecture.pieces(base, noun)) <= room:
        raise CidmError(
            f"concept {name}: the class noun {noun!r} takes no token, or more than the {room} a prompt holds",
            "say it in ordinary words with --class", ExitCode.USAGE,
        )  # fmt: skip
    found, digest = _lora(base, source)
    scale = common_scale(found.modules.values())
    weights = ConceptWeights(
        up={site: m.up if scale is not None else m.scale * m.up for site, m in found.modules.items()},
        down={site: m.down for site, m in found.modules.items()},
        tokens=torch.zeros(1, 0, 0),
    )
    ranks = sorted({m.down.shape[0] for m in found.modules.values()})
    alphas = sorted({m.alpha for m in found.modules.values()})
    draft = Draft(
        name=name, class_noun=noun, style=style, tokens=tuple(noun.split()), rank=ranks[-1],
        scale=1.0 if scale is None else scale, method=METHOD,
        config={"format": found.kind, "ranks": ranks, "alphas": alphas, "left_out": len(found.left_out)},
        data_hash=digest, against=Against.of((), 0), losses={},
        tools={tool: version(tool) for tool in ("cidm", "torch")} | {"python": platform.python_version()},
        extra={"imported_from": source.path.name[:200]},
    )  # fmt: skip
    return registry.commit(draft, pack(weights), expected_head=registry.head()), found


def _bring_bundle(registry: Registry, base: Base, source: Source, wanted: Mapping[str, str]) -> list[Record]:
    """Commits the concepts of a bundle, in the order they were learned, their files byte for byte.

    All are checked before the first is committed.

    Raises:
        CidmError: INVALID for weights that do not fit the base.
        RegistryError: when a concept cannot be committed.
    """
    chosen = [one for one in source.bundled if one.record.name in wanted]
    for one in chosen:
        read_tensors(one.blob, f"{source.path}: concept {one.record.name}")
        checked(base, one.blob, one.record)
    out = []
    for one in chosen:
        draft = _draft(one.record, wanted[one.record.name])
        record = registry.commit(draft, one.blob, expected_head=registry.head(), preview=one.preview)
        out.append(registry.annotate(record, scores=one.record.scores) if one.record.scores else record)
    return out


def _without_older(source: Source, wanted: Mapping[str, str]) -> int:
    """How many of a bundle's concepts were learned against older ones that are not all brought with them."""
    chosen = [one.record for one in source.bundled if one.record.name in wanted]
    digests = [*running_digests(record.blob for record in chosen)]
    numbers = [record.sequence for record in chosen]
    return sum(digests[bisect(numbers, one.against.sequence)] != one.against.digest for one in chosen)


def _draft(record: Record, name: str) -> Draft:
    """What was known about a concept where it comes from; number, version and date are the new registry's.

    What it was learned against is told by the numbers of that other registry, which mean nothing here: the hash stays.
    """
    values = {field.name: getattr(record, field.name) for field in fields(Draft)}
    origin = {"name": record.name, "sequence": record.sequence, "created": record.created}
    against = replace(record.against, sequence=0)
    return Draft(**{**values, "name": name, "against": against, "extra": {**record.extra, "bundled": origin}})


def _lora(base: Base, source: Source) -> tuple[LoraFile, str]:
    """The weights, and the file's sha256. What does not fit the base is refused before the weights are read."""
    fit, shown = lora_fit(base), str(source.path)
    read_lora(source.kind, source.file.outline(), source.file.metadata, source.config, fit, shown)
    content = source.file.read()
    tensors, metadata = read_tensors(content, shown)
    found = read_lora(source.kind, tensors, metadata, source.config, fit, shown)
    return found, hashlib.sha256(content).hexdigest()


def _usable(name: str) -> str:
    """A concept's name, as near as may be to what a file is called.

    Raises:
        CidmError: USAGE when nothing usable is left.
    """
    try:
        return display_name(name)
    except InvalidName:
        pass
    try:
        return display_name(re.sub(r"[^\w-]+", "_", name).strip("_-")[:60])
    except InvalidName as error:
        raise CidmError(
            f"{name[:80]!r} cannot be a concept's name", "choose one with --as NAME", ExitCode.USAGE
        ) from error
