"""Embedding files (textual inversion): a concept's tokens for programs that know one set of them, for all layers.

One text encoder: ``emb_params`` [n_tokens, width]. SDXL's two: ``clip_l`` [n_tokens, 768] and ``clip_g``
[n_tokens, 1280].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import CidmError
from ..files.tensor_files import read_header
from .tensors import facts_as_metadata, write_tensors


def averaged(tokens: torch.Tensor) -> torch.Tensor:
    """One set of tokens [1, n_tokens, width] for all layers; exact where the layers share theirs already."""
    return tokens if tokens.shape[0] == 1 else tokens.mean(0, keepdim=True)


def pack_embedding(tokens: torch.Tensor, widths: Sequence[int], facts: Mapping[str, Any]) -> bytes:
    """The file; equal tokens and facts give equal bytes.

    Args:
        tokens: [1, n_tokens, width].
        widths: of each text encoder's token embeddings; their sum is ``width``.
        facts: what the file tells of itself under ``cidm``.

    Raises:
        ValueError: for tokens of several layers, or widths that are not theirs.
    """
    if tokens.shape[0] != 1 or sum(widths) != tokens.shape[2] or len(widths) not in (1, 2):
        raise ValueError(f"tokens of shape {tuple(tokens.shape)} for text encoders of {list(widths)}")
    names = ("emb_params",) if len(widths) == 1 else ("clip_l", "clip_g")
    parts = tokens[0].float().split(list(widths), dim=1)
    return write_tensors(dict(zip(names, parts, strict=True)), facts_as_metadata(facts))


def is_embedding(path: Path) -> bool:
    """Whether a file says that its tokens were exported here; they are not looked at."""
    try:
        header = read_header(path)
    except CidmError:
        return False
    return "cidm" in header.metadata and header.tensors.keys() <= {"emb_params", "clip_l", "clip_g"}
