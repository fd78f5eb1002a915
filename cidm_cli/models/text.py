"""Prompts to text embeddings, one a cross-attention layer.

A concept stands in a prompt as a slot: a few positions whose token embeddings are not looked up but given, a
different set for each layer (method.md calls them layer-wise concept tokens). The tokenizer and the embedding
table of the base are never changed, so no token id can clash with another concept's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPTokenizer

from .base import Base


@dataclass(frozen=True)
class Slot:
    """The place of a concept in a prompt."""

    name: str
    tokens: int
    """How many positions it takes."""


@dataclass(frozen=True)
class Tokens:
    """A tokenized prompt, padded to the encoder's length."""

    ids: tuple[int, ...]
    slots: tuple[tuple[int, str, int], ...]
    """(position, concept, number of the concept's token) of each given embedding."""
    words: int
    """Positions 1 to this one hold the prompt; before and behind are special tokens and padding."""
    cut: bool
    """Words at the end did not fit."""
    lost: tuple[str, ...]
    """Concepts of which at least one token did not fit."""


def tokenize(tokenizer: CLIPTokenizer, parts: Sequence[str | Slot]) -> Tokens:
    """Ids and slots of a prompt given as stretches of text and concepts, in order."""
    ids: list[int] = []
    slots: list[tuple[int, str, int]] = []
    for part in parts:
        if isinstance(part, Slot):
            slots += [(1 + len(ids) + k, part.name, k) for k in range(part.tokens)]
            ids += [tokenizer.unk_token_id] * part.tokens
        else:
            ids += tokenizer(part, add_special_tokens=False, truncation=False, verbose=False).input_ids
    length = tokenizer.model_max_length
    room = length - 2
    lost = tuple(dict.fromkeys(name for position, name, _ in slots if position > room))
    kept = tuple(s for s in slots if s[0] <= room)
    body = ids[:room]
    padding = [tokenizer.pad_token_id] * (room - len(body))
    whole = (tokenizer.bos_token_id, *body, tokenizer.eos_token_id, *padding)
    return Tokens(whole, kept, len(body), cut=len(ids) > room, lost=lost)


def noun_ids(base: Base, noun: str) -> list[int]:
    """Token ids of a class noun, without special tokens."""
    return base.tokenizer(noun, add_special_tokens=False).input_ids


def encode(
    base: Base, prompts: Sequence[Tokens], vectors: Mapping[str, torch.Tensor], *, layers: int
) -> tuple[torch.Tensor, ...]:
    """Text embeddings of a batch as each cross-attention layer sees it.

    Args:
        prompts: batch of tokenized prompts.
        vectors: each concept's tokens [layers, n_tokens, width], or [1, n_tokens, width] where its layers share
            them; gradients flow into them.

    Returns:
        ``layers`` tensors [batch, tokens, width]. Equal prompts are encoded once, prompts without a concept once
        for all layers, everything else in one batch over layers.
    """
    unique = list(dict.fromkeys(prompts))
    plain = [p for p in unique if not p.slots]
    special = [p for p in unique if p.slots]
    rows: dict[Tokens, tuple[torch.Tensor, ...]] = {}
    if plain:
        ids = torch.tensor([p.ids for p in plain], device=base.device)
        for prompt, row in zip(plain, _run(base, ids, None, None), strict=True):
            rows[prompt] = (row,) * layers
    if special:
        # Tokens that all layers share need one encoding, not one a layer.
        named = {name: vectors[name] for p in special for _, name, _ in p.slots}
        own = max(len(v) for v in named.values())
        out = _encode_slotted(base, special, {n: v.expand(own, -1, -1) for n, v in named.items()}, own)
        for index, prompt in enumerate(special):
            rows[prompt] = tuple(out[:, index].expand(layers, -1, -1))
    return tuple(torch.stack([rows[p][layer] for p in prompts]) for layer in range(layers))


def _encode_slotted(
    base: Base, prompts: Sequence[Tokens], vectors: Mapping[str, torch.Tensor], layers: int
) -> torch.Tensor:
    """[layers, prompts, tokens, width] of prompts that hold concepts."""
    ids = torch.tensor([p.ids for p in prompts], device=base.device)
    width = base.text_encoder.get_input_embeddings().embedding_dim
    where = [(row, *slot) for row, prompt in enumerate(prompts) for slot in prompt.slots]
    given = torch.zeros(layers, *ids.shape, width, device=base.device)
    values = torch.stack([vectors[name][:, k] for _, _, name, k in where], dim=1)
    rows = torch.tensor([w[0] for w in where], device=base.device)
    positions = torch.tensor([w[1] for w in where], device=base.device)
    given = given.index_put(
        (torch.arange(layers, device=base.device)[:, None], rows, positions), values.float()
    )
    mask = torch.zeros(ids.shape, dtype=torch.bool, device=base.device)
    mask[rows, positions] = True
    out = _run(base, ids.repeat(layers, 1), mask.repeat(layers, 1), given.flatten(0, 1))
    return out.unflatten(0, (layers, len(prompts)))


def _run(
    base: Base, ids: torch.Tensor, mask: torch.Tensor | None, given: torch.Tensor | None
) -> torch.Tensor:
    with base.autocast():
        if mask is None or given is None:
            return base.text_encoder(input_ids=ids).last_hidden_state.float()
        with _substituted(base.text_encoder.get_input_embeddings(), mask, given):
            return base.text_encoder(input_ids=ids).last_hidden_state.float()


@contextmanager
def _substituted(embedding: nn.Module, mask: torch.Tensor, given: torch.Tensor) -> Iterator[None]:
    """While open, the embedding layer answers with ``given`` wherever ``mask`` is set."""
    handle = embedding.register_forward_hook(
        lambda _m, _i, out: torch.where(mask[..., None], given.to(out), out)
    )
    try:
        yield
    finally:
        handle.remove()
