"""Which concepts are merged or exported, refused before any model is loaded where they cannot be. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cidm_registry import Record, Registry, canonical_key, check_safetensors

from ..errors import CidmError, ExitCode
from ..options.learn import CARRIED, SUMMED
from ..options.merge import MergeOptions
from ..options.prompts import find_unknown, parse_prompt

LORA_KINDS = ("kohya", "comfyui", "diffusers", "peft")
"""Kinds of files that hold low-rank weights; docs/export.md says who reads which."""


@dataclass(frozen=True)
class Selection:
    """What is to be merged, complete and checked, before any model is loaded."""

    records: tuple[Record, ...]
    factors: tuple[float, ...]
    """What each concept's weight is multiplied by."""
    prompt: str | None
    """Whose similarities ewa takes its weights from."""
    options: MergeOptions


def to_merge(
    registry: Registry,
    names: Sequence[str],
    factors: Mapping[str, float],
    prompt: str | None,
    options: MergeOptions,
) -> Selection:
    """The concepts to merge: those named, each once, or all there are, in the order of learning; none of weight 0.

    Raises:
        CidmError: NOT_FOUND for unknown concepts, USAGE for settings that do not go together, FAILED for concepts
            that were not learned to be merged.
        RegistryError: NOT_FOUND for an unknown name; as ``Registry.chosen``.
    """
    records = tuple(registry.chosen(names))
    if not records:
        raise CidmError("no concepts to merge", "`cidm learn NAME IMAGES` learns one", ExitCode.NOT_FOUND)
    keys = {canonical_key(name): name for name in factors}
    for key, name in keys.items():
        if key not in {record.key for record in records}:
            raise CidmError(f"--weight {name}: not among the concepts merged", code=ExitCode.USAGE)
    if options.method == "ewa":
        if prompt is None:
            raise CidmError(
                "--method ewa takes its weights from a prompt", "give one with --prompt", ExitCode.USAGE
            )
        unknown = find_unknown(parse_prompt(prompt), [record.name for record in records])
        if unknown:
            raise unknown
    elif prompt is not None:
        raise CidmError(
            f"--prompt has no meaning with --method {options.method}", "add --method ewa", ExitCode.USAGE
        )
    for record in records:
        if record.method in CARRIED and len(records) > 1:
            raise CidmError(
                f"concept {record.name}: learned by {record.method}, whose newest LoRA stands for all older ones",
                hint="give the newest one by itself",
            )
        if record.method in SUMMED and options.method != "sum" and len(records) > 1:
            raise CidmError(
                f"concept {record.name}: learned by {record.method}, on top of the sum of all older ones",
                hint="use --method sum",
            )
    by_key = {key: factors[name] for key, name in keys.items()}
    # A concept of weight 0 asks for nothing; fuse would still leave room for what its prompts produce.
    records = tuple(record for record in records if by_key.get(record.key, 1.0))
    if not records:
        raise CidmError("every concept has weight 0", "give one another --weight", ExitCode.USAGE)
    return Selection(records, tuple(by_key.get(r.key, 1.0) for r in records), prompt, options)


def to_export(registry: Registry, names: Sequence[str], kind: str) -> list[Record]:
    """The concepts to export: those named, each once, or all there are, in the order they were learned.

    Raises:
        CidmError: NOT_FOUND without any; FAILED for a concept that its own weights alone do not draw.
        RegistryError: NOT_FOUND for an unknown name; as ``Registry.chosen``.
    """
    records = registry.chosen(names)
    if not records:
        raise CidmError("no concepts to export", "`cidm learn NAME IMAGES` learns one", ExitCode.NOT_FOUND)
    every = registry.records()
    for record in records if kind in LORA_KINDS else ():
        newest = max(every, key=lambda one: one.sequence)
        if (record.method in CARRIED and record != newest) or (record.method in SUMMED and len(every) > 1):
            raise CidmError(
                f"concept {record.name}: learned by {record.method}, and is drawn with other concepts' weights too",
                hint=f"export {newest.name}, whose LoRA stands for all"
                if record.method in CARRIED
                else "make them one with `cidm merge --method sum`, and export that with --merged",
            )
    return records


def has_tokens(registry: Registry, record: Record) -> bool:
    """Whether a concept has tokens of its own; one from a LoRA file of another program has none."""
    return any(name.startswith("tokens.") for name in check_safetensors(registry.read_blob(record.blob)))
