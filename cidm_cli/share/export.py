"""Concepts and merged files as files of other programs, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cidm_registry import Record, Registry

from .. import bases
from ..errors import CidmError
from ..formats.bundle import Bundled, pack_bundle
from ..formats.diffusers_lora import COMFYUI, WEIGHTS_FILE, json_object, pack_diffusers
from ..formats.embedding import averaged, pack_embedding
from ..formats.kohya import About, pack_kohya
from ..formats.lora import Factors, LoraFile, joined
from ..formats.lora_file import read_lora
from ..formats.merged import concepts_in, open_merged, read_merged
from ..formats.peft_folder import CONFIG_FILE, pack_peft
from ..formats.peft_folder import WEIGHTS_FILE as PEFT_WEIGHTS
from ..formats.tensors import read_tensors
from ..method.lowrank import delta
from ..models import text
from ..models.base import Base
from ..models.opening import checked, concept_weights, lora_fit
from .features import Subject
from .selection import has_tokens

_PROMPTS = 6


@dataclass(frozen=True)
class Item:
    """What one LoRA file is made of."""

    title: str
    factors: Factors
    scale: float
    """Factor on every product."""
    trigger: str
    """What to write in a prompt."""
    usage: str
    date: str
    images: int
    merged_from: tuple[str, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Exported:
    """A finished export of one concept or merged file."""

    title: str
    files: Mapping[str, bytes]
    """Content by name: one file of any name (""), or those of a folder."""
    layers: int
    """Layers whose weights are in it."""
    of: int
    """Layers of the base that a LoRA may change."""
    rank: int
    difference: float
    """Largest entry by which the weights that the file gives are off the concept's own."""


@dataclass(frozen=True)
class TokenFile:
    """A finished export of a concept's tokens."""

    title: str
    content: bytes
    tokens: int
    """Vectors in it."""
    sets: int
    """Sets of tokens that were made one: a set for each layer, or one that all layers share."""
    lost: float
    """Relative distance of the text embeddings that the file gives from the concept's own."""
    noun: float
    """The same of its class noun's: what would be lost without the file."""

    def told(self) -> dict[str, Any]:
        """All but the content."""
        return {
            "title": self.title, "tokens": self.tokens, "sets": self.sets, "lost": self.lost, "noun": self.noun
        }  # fmt: skip


def concept_item(registry: Registry, base: Base, record: Record) -> Item:
    """A concept's low-rank weights, with what a file tells of them.

    Raises:
        CidmError: FAILED for a concept that has none.
    """
    weights = checked(base, registry.read_blob(record.blob), record)
    if not weights.up:
        raise CidmError(
            f"concept {record.name}: has no low-rank weights", "export its tokens: --to embedding"
        )
    own = has_tokens(registry, record)
    trigger = record.name if own else record.class_noun
    return Item(
        title=record.name,
        factors={site: (weights.up[site], weights.down[site]) for site in weights.up},
        scale=record.scale,
        trigger=trigger,
        usage=f"write {record.name} with the embedding of that name loaded (cidm export --to embedding), "
        f"else {record.class_noun}; strength 1"
        if own
        else f"write {record.class_noun}; strength 1",
        date=record.created,
        images=_count(record.extra.get("images")),
        merged_from=(),
        facts={
            "format": 1, "name": record.name, "class_noun": record.class_noun, "style": record.style,
            "blob": record.blob, "scale": record.scale, "base": record.base,
        },
    )  # fmt: skip


def merged_file_item(registry: Registry, base: Base, path: Path) -> Item:
    """A file of ``cidm merge``, with what a file of another kind tells of it.

    Raises:
        CidmError: as ``read_merged``.
    """
    found, _ = read_merged(path, lora_fit(base))
    factors = {site: (m.scale * m.up, m.down) for site, m in found.modules.items()}
    return merged_item(registry, path.stem, factors, open_merged(path).facts)


def merged_item(registry: Registry, title: str, factors: Factors, facts: Mapping[str, Any]) -> Item:
    """A finished merge, with what a file tells of it.

    Args:
        title: what the file is called.
        facts: what the merge tells of itself.
    """
    names = [one["name"] for one in concepts_in(facts)]
    there = {record.name: record for record in registry.records()}
    known = [there[name] for name in names if name in there]
    return Item(
        title=title,
        factors=factors,
        scale=1.0,
        trigger=", ".join(names),
        usage="write the concepts' names with their embeddings loaded (cidm export --to embedding), else their "
        "class nouns; strength 1",
        date=max((record.created for record in known), default=""),
        images=sum(_count(record.extra.get("images")) for record in known),
        merged_from=tuple(names),
        facts=facts,
    )  # fmt: skip


def lora(base: Base, kind: str, family: str, item: Item) -> Exported:
    """A LoRA file of a kind, read back and compared.

    Args:
        family: the base's, as the registry has it.
    """
    folded, fit = base.convolutions, lora_fit(base)

    def under(names: Mapping[str, str]) -> tuple[Factors, float, set[str]]:
        return joined(item.factors, names, fit.shapes), item.scale, {names[site] for site in folded}

    if kind == "kohya":
        about = About(
            title=item.title, family=bases.family(family).files, resolution=base.pixels,
            prediction=base.prediction, date=item.date, trigger=item.trigger, usage=item.usage,
            tags=tuple(filter(None, [item.trigger])),
            images=item.images, merged_from=item.merged_from, facts=item.facts,
        )  # fmt: skip
        files = {"": pack_kohya(*under(fit.names.kohya), about)}
    elif kind == "comfyui":
        files = {"": pack_diffusers(*under(fit.names.native), COMFYUI, item.facts)}
    elif kind == "diffusers":
        files = {WEIGHTS_FILE: pack_diffusers(item.factors, item.scale, folded, fit.prefix, item.facts)}
    else:
        files = pack_peft(item.factors, item.scale, folded, item.facts)
    back = _read_back(base, kind, files)
    return Exported(
        title=item.title, files=files, layers=len(back.modules), of=len(fit.shapes),
        rank=max(module.down.shape[0] for module in back.modules.values()), difference=_apart(item, back),
    )  # fmt: skip


def tokens(registry: Registry, base: Base, record: Record) -> TokenFile:
    """A concept's tokens as an embedding file. Where each layer has its own, their mean, and what that costs.

    Raises:
        CidmError: FAILED for a concept without tokens.
    """
    if not has_tokens(registry, record):
        raise CidmError(
            f"concept {record.name}: has no tokens of its own, it came from a LoRA file",
            hint=f"its trigger word is {record.class_noun}; nothing more is needed",
        )
    own = concept_weights(registry, base, record).tokens
    mean = averaged(own)
    lost, noun = token_loss(base, record, own, mean)
    content = pack_embedding(mean.cpu(), base.architecture.token_widths(base), {
        "format": 1, "name": record.name, "class_noun": record.class_noun, "blob": record.blob,
        "base": record.base, "sets": own.shape[0], "lost": lost,
    })  # fmt: skip
    return TokenFile(record.name, content, own.shape[1], own.shape[0], lost, noun)


def token_loss(base: Base, record: Record, own: torch.Tensor, mean: torch.Tensor) -> tuple[float, float]:
    """How far the text embeddings of prompts move, relative to their size, when one set of tokens is for all layers.

    Over all layers and a few prompts, and all positions from the concept on: what stands before it does not depend
    on it. Also how far they would move with the class noun's mean embedding in place of each token.
    """
    subject = Subject(text.Slot(record.key, own.shape[1], record.class_noun), record.style)
    prompts = subject.prompts(base, _PROMPTS)
    words = text.noun_vectors(base, record.class_noun).mean(0)

    def rows(vectors: torch.Tensor) -> list[torch.Tensor]:
        with torch.no_grad():
            contexts = text.encode(base, prompts, {record.key: vectors})
        firsts = [prompt.slots[0][0] for prompt in prompts]
        return [context[n, first:] for context in contexts for n, first in enumerate(firsts)]

    exact = rows(own)
    size = sum(float(row.square().sum()) for row in exact)
    apart = [
        sum(float((one - other).square().sum()) for one, other in zip(exact, rows(other), strict=True))
        for other in (mean, words.expand(1, own.shape[1], -1))
    ]
    lost, noun = ((each / size) ** 0.5 for each in apart)
    return lost, noun


def bundle(registry: Registry, records: Sequence[Record]) -> bytes:
    """Whole concepts in one file, as they lie in the registry.

    Raises:
        CidmError: FAILED for more than a file may hold.
        RegistryError: for a damaged blob.
    """
    concepts = [
        Bundled(
            record, registry.read_blob(record.blob),
            None if record.preview is None else registry.read_blob(record.preview),
        )
        for record in records
    ]  # fmt: skip
    return pack_bundle(concepts)


def _read_back(base: Base, kind: str, files: Mapping[str, bytes]) -> LoraFile:
    """The file as a reader takes it: an unknown key would be an error."""
    name = {"diffusers": WEIGHTS_FILE, "peft": PEFT_WEIGHTS}.get(kind, "")
    source = "the exported file"
    tensors, metadata = read_tensors(files[name], source)
    config = json_object(files[CONFIG_FILE], source, CONFIG_FILE) if kind == "peft" else {}
    return read_lora(kind, tensors, metadata, config, lora_fit(base), source)


def _apart(item: Item, back: LoraFile) -> float:
    """Largest entry by which the products differ."""
    worst = 0.0
    for site, (up, down) in item.factors.items():
        module = back.modules[site]
        theirs = delta(module.up, module.down, module.scale)
        worst = max(worst, float((delta(up, down, item.scale) - theirs).abs().max()))
    return worst


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
