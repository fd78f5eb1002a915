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

from .attention import copy_of_layer
from .base import Base
from .offload import present


@dataclass(frozen=True)
class Slot:
    """The place of a concept in a prompt."""

    name: str
    tokens: int
    """How many positions it takes."""
    noun: str = ""
    """Its class noun: stands in its place where the prompt as a whole is summed up."""


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
    plain: tuple[int, ...] | None = None
    """Ids of the prompt with each concept's class noun in its place, as many as fit; None where a noun is not known."""


def tokenize(tokenizer: CLIPTokenizer, parts: Sequence[str | Slot]) -> Tokens:
    """Ids and slots of a prompt given as stretches of text and concepts, in order."""
    ids: list[int] = []
    slots: list[tuple[int, str, int]] = []
    plain: list[int] = []
    for part in parts:
        words = _word_ids(tokenizer, part.noun if isinstance(part, Slot) else part)
        plain += words
        if isinstance(part, Slot):
            slots += [(1 + len(ids) + k, part.name, k) for k in range(part.tokens)]
            ids += [tokenizer.unk_token_id] * part.tokens
        else:
            ids += words
    known = all(part.noun for part in parts if isinstance(part, Slot))
    length = tokenizer.model_max_length
    room = length - 2
    lost = tuple(dict.fromkeys(name for position, name, _ in slots if position > room))
    kept = tuple(s for s in slots if s[0] <= room)
    body = ids[:room]
    padding = [tokenizer.pad_token_id] * (room - len(body))
    whole = (tokenizer.bos_token_id, *body, tokenizer.eos_token_id, *padding)
    summed = tuple(plain[:room]) if known else None
    return Tokens(whole, kept, len(body), cut=len(ids) > room, lost=lost, plain=summed)


def _word_ids(tokenizer: CLIPTokenizer, words: str) -> list[int]:
    return tokenizer(words, add_special_tokens=False, truncation=False, verbose=False).input_ids


def noun_ids(base: Base, noun: str) -> list[int]:
    """Token ids of a class noun, without special tokens."""
    return base.tokenizer(noun, add_special_tokens=False).input_ids


def noun_vectors(base: Base, noun: str) -> torch.Tensor:
    """The base's own token embeddings of a class noun [n_tokens, width]: given for a slot, they read as its words."""
    ids = noun_ids(base, noun)
    return torch.cat([table.weight[ids].detach().float() for table in _tables(base)], -1)


def token_table(base: Base) -> torch.Tensor:
    """The base's token embeddings [vocabulary, width]; those of two text encoders side by side."""
    tables = [table.weight for table in _tables(base)]
    return tables[0] if len(tables) == 1 else torch.cat(tables, -1)


def token_width(base: Base) -> int:
    """Numbers that a concept's token has: those of all text encoders together (768; for SDXL 768 + 1280)."""
    return sum(table.embedding_dim for table in _tables(base))


def _tables(base: Base) -> list[nn.Embedding]:
    return [encoder.get_input_embeddings() for encoder in base.encoders]


def encode(
    base: Base, prompts: Sequence[Tokens], vectors: Mapping[str, torch.Tensor], *, layers: int
) -> tuple[torch.Tensor, ...]:
    """Text embeddings of a batch as each cross-attention layer sees it.

    Args:
        prompts: batch of tokenized prompts.
        vectors: each concept's tokens [copies, n_tokens, width]: a copy for each layer, for each group of layers, or
            one for all (``attention.copy_of_layer``); gradients flow into them.

    Returns:
        ``layers`` tensors [batch, tokens, width], the same one for layers that share their copies. Equal prompts
        are encoded once, prompts without a concept once for all layers, everything else in one batch over copies.
    """
    unique = list(dict.fromkeys(prompts))
    plain = [p for p in unique if not p.slots]
    special = [p for p in unique if p.slots]
    named = {name: vectors[name] for p in special for _, name, _ in p.slots}
    # Tokens that layers share need one encoding, not one a layer.
    copies = max((len(v) for v in named.values()), default=1)
    rows: dict[Tokens, tuple[torch.Tensor, ...]] = {}
    with present(base.device, *base.encoders):
        if plain:
            for prompt, row in zip(plain, _run(base, plain), strict=True):
                empty = base.zero_empty and not prompt.words
                rows[prompt] = (torch.zeros_like(row) if empty else row,) * copies
        if special:
            alike = {name: _with_copies(base, tokens, copies, layers) for name, tokens in named.items()}
            out = _encode_slotted(base, special, alike, copies)
            for index, prompt in enumerate(special):
                rows[prompt] = tuple(out[:, index])
    seen = [torch.stack([rows[p][copy] for p in prompts]) for copy in range(copies)]
    return tuple(seen[copy] for copy in copy_of_layer(base.unet, copies, layers))


def _with_copies(base: Base, tokens: torch.Tensor, copies: int, layers: int) -> torch.Tensor:
    """Tokens [any number of copies, n_tokens, width] as [copies, n_tokens, width]."""
    if len(tokens) in (1, copies):
        return tokens.expand(copies, -1, -1)
    wanted, there = (copy_of_layer(base.unet, count, layers) for count in (copies, len(tokens)))
    return tokens[[there[wanted.index(copy)] for copy in range(copies)]]


def _encode_slotted(
    base: Base, prompts: Sequence[Tokens], vectors: Mapping[str, torch.Tensor], copies: int
) -> torch.Tensor:
    """[copies, prompts, tokens, width] of prompts that hold concepts."""
    shape = (len(prompts), len(prompts[0].ids))
    where = [(row, *slot) for row, prompt in enumerate(prompts) for slot in prompt.slots]
    given = torch.zeros(copies, *shape, token_width(base), device=base.device)
    values = torch.stack([vectors[name][:, k] for _, _, name, k in where], dim=1)
    rows = torch.tensor([w[0] for w in where], device=base.device)
    positions = torch.tensor([w[1] for w in where], device=base.device)
    given = given.index_put(
        (torch.arange(copies, device=base.device)[:, None], rows, positions), values.float()
    )
    mask = torch.zeros(shape, dtype=torch.bool, device=base.device)
    mask[rows, positions] = True
    out = _run(base, prompts, mask.repeat(copies, 1), given.flatten(0, 1))
    return out.unflatten(0, (copies, len(prompts)))


def pooled(base: Base, prompts: Sequence[Tokens]) -> torch.Tensor | None:
    """The prompts as wholes, as SDXL's second text encoder sums them up, [batch, width]; None for other bases.

    A concept counts as its class noun there: no token that was added to the base has a part in it. The encoder's own
    summary is not asked for: it looks for the prompt's end by an id, and slots may have the same.

    Raises:
        ValueError: for a slot without a class noun.
    """
    encoder = base.text_encoder_2
    if encoder is None:
        return None
    bodies = [prompt.plain for prompt in prompts]
    unique = [body for body in dict.fromkeys(bodies) if body is not None]
    if None in bodies:
        raise ValueError("a prompt is summed up in which a concept has no class noun")
    ids = torch.tensor([_padded(base, body, 1) for body in unique], device=base.device)
    ends = [1 + len(body) for body in unique]
    with present(base.device, encoder), torch.no_grad(), base.autocast():
        hidden = encoder.text_model(input_ids=ids).last_hidden_state
        out = encoder.text_projection(hidden[torch.arange(len(unique), device=base.device), ends]).float()
    rows = {
        body: torch.zeros_like(row) if base.zero_empty and not body else row
        for body, row in zip(unique, out, strict=True)
    }
    return torch.stack([rows[body] for body in bodies if body is not None])


def _padded(base: Base, body: Sequence[int], encoder: int) -> list[int]:
    """What an encoder reads for the ids of a prompt.

    Both of SDXL's tokenizers split alike and pad differently. diffusers takes an exclamation mark in a prompt for the
    second one's padding; the program that SDXL was trained with does not, and neither does this.
    """
    first, second = base.tokenizer, base.tokenizer_2
    pad = second.pad_token_id if encoder and second is not None else first.pad_token_id
    padding = [pad] * (first.model_max_length - 2 - len(body))
    return [first.bos_token_id, *body, first.eos_token_id, *padding]


def _run(
    base: Base,
    prompts: Sequence[Tokens],
    mask: torch.Tensor | None = None,
    given: torch.Tensor | None = None,
) -> torch.Tensor:
    """Embeddings [rows, tokens, width]; rows is a multiple of the prompts, and ``given`` stands where ``mask`` is."""
    out = []
    start = 0
    for number, (encoder, table) in enumerate(zip(base.encoders, _tables(base), strict=True)):
        ids = torch.tensor(
            [_padded(base, p.ids[1 : 1 + p.words], number) for p in prompts], device=base.device
        )
        width = table.embedding_dim
        with base.autocast():
            if mask is None or given is None:
                out.append(_hidden(base, encoder, ids))
            else:
                ids = ids.repeat(len(mask) // len(ids), 1)
                with _substituted(table, mask, given[..., start : start + width]):
                    out.append(_hidden(base, encoder, ids))
        start += width
    return out[0] if len(out) == 1 else torch.cat(out, -1)


def _hidden(base: Base, encoder: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The last hidden states, or, of SDXL's encoders, those before the last layer."""
    if base.family == "sdxl":
        return encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2].float()
    return encoder(input_ids=ids).last_hidden_state.float()


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
