"""Prompts to text embeddings, one a layer.

A concept stands in a prompt as a slot: a few positions whose token embeddings are not looked up but given, a
different set for each layer (method.md calls them layer-wise concept tokens). The tokenizer and the embedding
table of the base are never changed, so no token id can clash with another concept's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm

import torch

from .base import Base

Contexts = tuple[torch.Tensor, ...]
"""A text as each layer sees it, [1, tokens, width]."""


@dataclass(frozen=True)
class Slot:
    """The place of a concept in a prompt."""

    name: str
    tokens: int
    """How many positions it takes."""
    noun: str = ""
    """Its class noun: stands in its place where the prompt as a whole is summed up."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt."""

    part: str | Slot
    weight: float = 1.0
    apart: bool = False
    """A new chunk begins with it."""


@dataclass(frozen=True)
class Tokens:
    """A tokenized prompt, or a chunk of a long one, padded to the encoder's length."""

    ids: tuple[int, ...]
    """A number for each position, by which its row is found where none is given."""
    slots: tuple[tuple[int, str, int], ...]
    """(position, concept, number of the concept's token) of each given embedding."""
    words: int
    """How many positions hold the prompt; before and behind are special tokens and padding."""
    cut: bool
    """Words at the end did not fit."""
    lost: tuple[str, ...]
    """Concepts of which at least one token did not fit."""
    plain: tuple[int, ...] | None = None
    """Ids of the prompt with each concept's class noun in its place, as many as fit; None where a noun is not known."""
    first: int = 1
    """The first of the positions that hold the prompt."""
    weights: tuple[float, ...] = ()
    """Of each of these positions; none where all are 1."""

    @property
    def body(self) -> slice:
        """The positions that hold the prompt."""
        return slice(self.first, self.first + self.words)


def tokenize(base: Base, parts: Sequence[str | Slot]) -> Tokens:
    """A prompt given as stretches of text and concepts, in order."""
    return base.architecture.tokenize(base, parts)


def chunks(base: Base, pieces: Sequence[Piece]) -> tuple[Tokens, ...]:
    """A prompt of any length, in as many parts as the text encoders need; no concept is cut in two."""
    return base.architecture.chunks(base, pieces)


def noun_vectors(base: Base, noun: str) -> torch.Tensor:
    """What stands for a class noun where a concept's tokens would [n_tokens, width]."""
    return base.architecture.noun_vectors(base, noun)


def token_table(base: Base) -> torch.Tensor:
    """Vectors like those of concepts' tokens [many, width]: new ones are drawn from their distribution."""
    return base.architecture.token_table(base)


def token_width(base: Base) -> int:
    """Numbers that a concept's token has: those of all text encoders together (768; for SDXL 768 + 1280)."""
    return sum(base.architecture.token_widths(base))


def pooled(base: Base, prompts: Sequence[Tokens]) -> torch.Tensor | None:
    """The prompts as wholes [batch, width], where the base wants them.

    Raises:
        ValueError: for a slot without a class noun.
    """
    return base.architecture.pooled(base, prompts)


def copy_of_layer(base: Base, copies: int, layers: int) -> tuple[int, ...]:
    """Which of the copies of a concept's tokens each layer sees.

    There is one for all layers, one for each of the base's groups of layers, or one a layer.

    Raises:
        ValueError: for any other number of copies.
    """
    if copies == 1:
        return (0,) * layers
    if copies == layers:
        return tuple(range(layers))
    groups = base.architecture.groups(base.denoiser)
    if copies != max(groups) + 1:
        raise ValueError(f"{copies} copies of a concept's tokens for {layers} layers")
    return groups


def encode(
    base: Base, prompts: Sequence[Tokens], vectors: Mapping[str, torch.Tensor], *, layers: int | None = None
) -> tuple[torch.Tensor, ...]:
    """Text embeddings of a batch as each layer sees it.

    Args:
        prompts: batch of tokenized prompts.
        vectors: each concept's tokens [copies, n_tokens, width]: a copy for each layer, for each group of layers, or
            one for all (``copy_of_layer``); gradients flow into them.
        layers: as many as there are, or 1 for prompts without a concept.

    Returns:
        ``layers`` tensors [batch, tokens, width], the same one for layers that share their copies. Equal prompts
        are encoded once, prompts without a concept once for all layers, everything else in one batch over copies.
        Weights of words are those of ComfyUI (comfy/sd1_clip.py, `encode_token_weights`): a word's embedding moves
        along the line from the empty prompt's at its position.
    """
    layers = len(base.layers) if layers is None else layers
    unique = list(dict.fromkeys(prompts))
    plain = [p for p in unique if not p.slots]
    special = [p for p in unique if p.slots]
    named = {name: vectors[name] for p in special for _, name, _ in p.slots}
    # Tokens that layers share need one encoding, not one a layer.
    copies = max((len(v) for v in named.values()), default=1)
    rows: dict[Tokens, tuple[torch.Tensor, ...]] = {}
    if plain:
        for prompt, row in zip(plain, base.architecture.embedded(base, plain, None, None), strict=True):
            empty = base.zero_empty and not prompt.words
            rows[prompt] = (torch.zeros_like(row) if empty else row,) * copies
    if special:
        alike = {name: _with_copies(base, tokens, copies, layers) for name, tokens in named.items()}
        out = _encode_slotted(base, special, alike, copies)
        for index, prompt in enumerate(special):
            rows[prompt] = tuple(out[:, index])
    if any(p.weights for p in unique):
        (nothing,) = base.architecture.embedded(base, [tokenize(base, [])], None, None)
        for prompt in (p for p in unique if p.weights):
            weight = torch.ones(len(nothing), 1, device=nothing.device)
            weight[prompt.body, 0] = torch.tensor(prompt.weights, device=nothing.device)
            rows[prompt] = tuple(torch.lerp(nothing, row, weight) for row in rows[prompt])
    seen = [torch.stack([rows[p][copy] for p in prompts]) for copy in range(copies)]
    return tuple(seen[copy] for copy in copy_of_layer(base, copies, layers))


def read(
    base: Base,
    prompts: Sequence[Sequence[Tokens]],
    vectors: Mapping[str, torch.Tensor],
    *,
    layers: int | None = None,
) -> list[Contexts]:
    """Of each prompt in chunks, the text embeddings of them all, one behind the other; arguments are ``encode``'s."""
    rows = encode(base, [chunk for chunks in prompts for chunk in chunks], vectors, layers=layers)
    sizes = [len(chunks) for chunks in prompts]
    cut = {id(row): [part.flatten(0, 1)[None] for part in row.split(sizes)] for row in rows}
    return list(zip(*(cut[id(row)] for row in rows), strict=True))


def alike(texts: Sequence[Contexts]) -> list[Contexts]:
    """Texts of one length: shorter ones said again and again, which changes nothing of what attention finds in them."""
    longest = lcm(*(text[0].shape[1] for text in texts))
    longer = {
        id(one): one.repeat(1, longest // one.shape[1], 1)
        for text in texts
        for one in text
        if one.shape[1] < longest
    }
    return [tuple(longer.get(id(one), one) for one in text) for text in texts]


def _with_copies(base: Base, tokens: torch.Tensor, copies: int, layers: int) -> torch.Tensor:
    """Tokens [any number of copies, n_tokens, width] as [copies, n_tokens, width]."""
    if len(tokens) in (1, copies):
        return tokens.expand(copies, -1, -1)
    wanted, there = (copy_of_layer(base, count, layers) for count in (copies, len(tokens)))
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
    out = base.architecture.embedded(base, prompts, mask.repeat(copies, 1), given.flatten(0, 1))
    return out.unflatten(0, (copies, len(prompts)))
