"""Bundles: whole concepts in one file, to carry from one registry to another.

A safetensors file of bytes: ``records`` is a JSON list of registry records, ``blob.<sha256>`` each concept's file as it
lies in the registry, ``preview.<sha256>`` each preview picture. Nothing in it is packed again or rounded: what comes
out has the same sha256. The records keep the hash of the older concepts that each was learned against, whether those
are in it or not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cidm_registry import NewerFormat, Record
from cidm_registry.records import decode, encode

from ..errors import CidmError, ExitCode
from .tensors import read_tensors, write_tensors

MARK = "cidm_bundle"
"""In the metadata: the bundle's format."""
FORMAT = "1"


@dataclass(frozen=True)
class Bundled:
    """A concept in a bundle."""

    record: Record
    """As it was in the registry it comes from."""
    blob: bytes
    preview: bytes | None


def pack_bundle(concepts: Sequence[Bundled]) -> bytes:
    """The file; equal concepts in equal order give equal bytes."""
    records = [json.loads(encode(one.record)) for one in concepts]
    tensors = {"records": _bytes(json.dumps(records, ensure_ascii=True, allow_nan=False).encode())}
    for one in concepts:
        tensors[f"blob.{one.record.blob}"] = _bytes(one.blob)
        if one.preview is not None:
            tensors[f"preview.{one.record.preview}"] = _bytes(one.preview)
    return write_tensors(tensors, {MARK: FORMAT})


def read_bundle(content: bytes, source: str) -> list[Bundled]:
    """The concepts of a bundle, each checked against its hash, in the order they were learned.

    Raises:
        CidmError: INVALID for a damaged or doctored file, or one of a newer format.
    """
    tensors, metadata = read_tensors(content, source)
    if metadata.get(MARK) != FORMAT:
        told = metadata.get(MARK, "")[:20]
        raise CidmError(
            f"{source}: is a bundle of format {told!r}, and this program knows {FORMAT}",
            "update cidm",
            ExitCode.INVALID,
        )
    try:
        parts = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
        records = [_record(entry) for entry in json.loads(parts.pop("records"))]
    except NewerFormat as error:
        message = f"{source}: its records cannot be read ({error.message})"
        raise CidmError(message, error.hint, ExitCode.INVALID) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _invalid(source, f"its records cannot be read ({error})") from error
    out = []
    for record in records:
        blob = _part(parts, "blob", record.blob, record, source)
        shot = None if record.preview is None else _part(parts, "preview", record.preview, record, source)
        out.append(Bundled(record, blob, shot))
    keys, wanted = {r.key for r in records}, {f"blob.{r.blob}" for r in records}
    wanted |= {f"preview.{r.preview}" for r in records if r.preview is not None}
    if not records or len(keys) < len(records) or parts.keys() - wanted or len({r.base for r in records}) > 1:
        raise _invalid(source, "its parts do not belong together")
    return sorted(out, key=lambda one: one.record.sequence)


def _record(entry: Any) -> Record:
    """Checked as the registry checks its own."""
    record = decode(json.dumps(entry).encode(), entry["concept"]["sequence"]).entry
    if not isinstance(record, Record):
        raise ValueError("one of them is no concept")
    return record


def _part(parts: dict[str, bytes], kind: str, sha: str, record: Record, source: str) -> bytes:
    data = parts.get(f"{kind}.{sha}")
    if data is None or hashlib.sha256(data).hexdigest() != sha:
        what = "is not in it" if data is None else "does not match its hash"
        raise _invalid(source, f"the {kind} of concept {record.name} {what}")
    return data


def _bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _invalid(source: str, what: str) -> CidmError:
    return CidmError(f"{source}: {what}", "get the bundle again: `cidm export --to bundle`", ExitCode.INVALID)
