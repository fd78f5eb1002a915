"""Files of ``cidm merge``: one static LoRA of several concepts, named as kohya's trainer names its files.

The text ``cidm`` in its metadata says what was merged and how, as JSON. Files of older versions have diffusers' names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CidmError, ExitCode
from .lora import Fit, LoraFile, refusal
from .lora_file import naming_of, read_lora
from .tensors import TensorFile, open_tensors, read_tensors


@dataclass(frozen=True)
class MergedFile:
    """A file to draw with in place of the concepts' own weights, known by its header."""

    file: TensorFile
    facts: Mapping[str, Any]
    """What it tells of itself; empty for a file of another program."""


def concepts_in(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a merged file, or the export of one concept, says of each concept in it: name, blob, weights."""
    told = facts.get("concepts", [facts])
    listed = told if isinstance(told, list) else []
    return [one for one in listed if isinstance(one, dict) and isinstance(one.get("name"), str)]


def open_merged(path: Path) -> MergedFile:
    """A merged file, its weights unread.

    Raises:
        CidmError: NOT_FOUND for no such file; INVALID for what is no safetensors file.
    """
    if not path.exists():
        raise CidmError(f"{path}: no such file", "cidm merge -o FILE writes one", ExitCode.NOT_FOUND)
    file = open_tensors(path)
    try:
        facts = json.loads(file.metadata.get("cidm", "{}"))
    except (ValueError, RecursionError):
        facts = {}
    return MergedFile(file, facts if isinstance(facts, dict) else {})


def is_merged(path: Path) -> bool:
    """Whether a file says that ``cidm merge`` made it; its weights are not looked at."""
    try:
        facts = open_merged(path).facts
    except CidmError:
        return False
    return facts.get("format") == 1 and "concepts" in facts


def read_merged(path: Path, fit: Fit) -> tuple[LoraFile, bytes]:
    """The weights of a merged file, and its bytes. What does not fit is refused before they are read.

    Raises:
        CidmError: as ``open_merged``; INVALID, naming file and layer, for anything that does not fit.
    """
    file, source = open_merged(path).file, str(path)
    kind = naming_of(file.header.tensors, source)
    found = read_lora(kind, file.outline(), file.metadata, {}, fit, source)
    if found.left_out:
        raise refusal(
            source, f"holds {found.left_out[0]}, which is not drawn with",
            "cidm import takes what it can of a LoRA of another program",
        )  # fmt: skip
    content = file.read()
    tensors, metadata = read_tensors(content, source)
    return read_lora(kind, tensors, metadata, {}, fit, source), content
