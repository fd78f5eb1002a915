"""CLIP's text encoders, one or two of them: tokens, the embeddings of prompts, and prompts as wholes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .base import Base
from .offload import present
from .text import Piece, Slot, Tokens

WHOLE = 8
"""A stretch of fewer tokens is not cut in two where a chunk ends."""


def tokenize(base: Base, parts: Sequence[str | list[int] | Slot]) -> Tokens:
    """Ids and slots of a prompt given as stretches of text (or their ids) and concepts, in order."""
    tokenizer = base.tokenizers[0]
    ids: list[int] = []
    slots: list[tuple[int, str, int]] = []
    plain: list[int] = []
    for part in parts:
        said = part.noun if isinstance(part, Slot) else part
        words = _word_ids(tokenizer, said) if isinstance(said, str) else said
        plain += words
        if isinstance(part, Slot):
            slots += [(1 + len(ids) + k, part.name, k) for k in range(part.tokens)]
            ids += [tokenizer.unk_token_id] * part.tokens
        else:
            ids += words
    known = all(part.noun for part in parts if isinstance(part, Slot))
    longest = room(base)
    lost = tuple(dict.fromkeys(name for position, name, _ in slots if position > longest))
    kept = tuple(s for s in slots if s[0] <= longest)
    body = ids[:longest]
    padding = [tokenizer.pad_token_id] * (longest - len(body))
    whole = (tokenizer.bos_token_id, *body, tokenizer.eos_token_id, *padding)
    summed = tuple(plain[:longest]) if known else None
    return Tokens(whole, kept, len(body), cut=len(ids) > longest, lost=lost, plain=summed)


def chunks(base: Base, pieces: Sequence[Piece]) -> tuple[Tokens, ...]:
    """A prompt in chunks, filled as ComfyUI does (comfy/sd1_clip.py, `tokenize_with_weights`); a concept in one."""
    longest = left = room(base)
    filled: list[list[tuple[list[int] | Slot, int, float]]] = [[]]
    for piece in pieces:
        units: list[list[int] | Slot]
        if isinstance(piece.part, Slot):
            units = [piece.part]
        else:
            ids = _word_ids(base.tokenizers[0], piece.part)
            units = [ids] if len(ids) < WHOLE else [[one] for one in ids]
        for number, unit in enumerate(units):
            size = unit.tokens if isinstance(unit, Slot) else len(unit)
            if left < longest and (size > left or (piece.apart and number == 0)):
                filled.append([])
                left = longest
            filled[-1].append((unit, size, piece.weight))
            left -= size
    out = []
    for chunk in filled:
        weights = tuple(weight for _, size, weight in chunk for _ in range(size))
        plain = all(weight == 1 for weight in weights)
        out.append(replace(tokenize(base, [unit for unit, _, _ in chunk]), weights=() if plain else weights))
    return tuple(out)


def room(base: Base) -> int:
    """Tokens that a prompt may have: two are for its beginning and its end."""
    return base.tokenizers[0].model_max_length - 2


def pieces(base: Base, noun: str) -> list[str]:
    """The tokens of a class noun, as they are written."""
    found = base.tokenizers[0].convert_ids_to_tokens(_word_ids(base.tokenizers[0], noun))
    return [piece.removesuffix("</w>") for piece in found]


def noun_vectors(base: Base, noun: str) -> torch.Tensor:
    """The base's own token embeddings of a class noun [n_tokens, width]: given for a slot, they read as its words."""
    ids = _word_ids(base.tokenizers[0], noun)
    return torch.cat([table.weight[ids].detach().float() for table in _tables(base)], -1)


def token_table(base: Base) -> torch.Tensor:
    """The base's token embeddings [vocabulary, width]; those of two text encoders side by side."""
    tables = [table.weight for table in _tables(base)]
    return tables[0] if len(tables) == 1 else torch.cat(tables, -1)


def token_widths(base: Base) -> list[int]:
    """Width of each text encoder's token embeddings (768; of SDXL's 768 and 1280)."""
    return [table.embedding_dim for table in _tables(base)]


def pooled(base: Base, prompts: Sequence[Tokens]) -> torch.Tensor | None:
    """The prompts as wholes, as SDXL's second text encoder sums them up, [batch, width]; None for other bases.

    A concept counts as its class noun there: no token that was added to the base has a part in it. The encoder's own
    summary is not asked for: it looks for the prompt's end by an id, and slots may have the same.

    Raises:
        ValueError: for a slot without a class noun.
    """
    if len(base.encoders) == 1:
        return None
    encoder = base.encoders[1]
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


def embedded(
    base: Base,
    prompts: Sequence[Tokens],
    mask: torch.Tensor | None,
    given: torch.Tensor | None,
) -> torch.Tensor:
    """Embeddings [rows, tokens, width]; rows is a multiple of the prompts, and ``given`` stands where ``mask`` is."""
    out = []
    start = 0
    for number, (encoder, table) in enumerate(zip(base.encoders, _tables(base), strict=True)):
        ids = torch.tensor(
            [_padded(base, p.ids[1 : 1 + p.words], number) for p in prompts], device=base.device
        )
        width = table.embedding_dim
        with present(base.device, encoder), base.autocast():
            if mask is None or given is None:
                out.append(_hidden(base, encoder, ids))
            else:
                ids = ids.repeat(len(mask) // len(ids), 1)
                with _substituted(table, mask, given[..., start : start + width]):
                    out.append(_hidden(base, encoder, ids))
        start += width
    return out[0] if len(out) == 1 else torch.cat(out, -1)


def _padded(base: Base, body: Sequence[int], encoder: int) -> list[int]:
    """What an encoder reads for the ids of a prompt.

    Both of SDXL's tokenizers split alike and pad differently. diffusers takes an exclamation mark in a prompt for the
    second one's padding; the program that SDXL was trained with does not, and neither does this.
    """
    first = base.tokenizers[0]
    padding = [base.tokenizers[encoder].pad_token_id] * (room(base) - len(body))
    return [first.bos_token_id, *body, first.eos_token_id, *padding]


def _hidden(base: Base, encoder: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The last hidden states, or, of SDXL's encoders, those before the last layer."""
    if len(base.encoders) > 1:
        return encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2].float()
    return encoder(input_ids=ids).last_hidden_state.float()


def _word_ids(tokenizer: Any, words: str) -> list[int]:
    return tokenizer(words, add_special_tokens=False, truncation=False, verbose=False).input_ids


def _tables(base: Base) -> list[nn.Embedding]:
    return [encoder.get_input_embeddings() for encoder in base.encoders]


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
