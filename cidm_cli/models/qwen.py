"""Prompts read by Qwen3: rows of its inner states, and a concept's tokens among them.

A concept's tokens are rows of what the model gives, and not of what it reads: nothing is learned through it. It reads
the concept's class noun in their place, so that all other rows are those of the prompt in plain words; then the
noun's rows give way to the concept's. What it gave for the last prompts is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import pre_tokenizers
from torch import nn
from transformers import Qwen2Tokenizer, Qwen3Model

from ..errors import CidmError, ExitCode
from .base import Base
from .offload import present
from .text import Piece, Slot, Tokens

LENGTH = 512
"""Rows of a prompt, those that only fill it up among them."""
OPEN, CLOSE, SILENT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<think>\n\n</think>\n\n"
"""What a prompt stands in, as the model was trained to be asked; the last where it is not to think aloud."""
KEPT = 256
"""Prompts whose rows are kept, in main memory: of a model of 4 billion numbers, 2 GB."""
ORDINARY = "a photo of a person, an animal, a thing and a place"
"""A sentence whose rows are taken for what rows are like."""

Unit = tuple[tuple[int, ...], Slot | None]
"""Numbers of the tokens that are read for a word's piece, or for a concept, and that concept."""


class Reader(nn.Module):
    """The language model, as far as it is needed.

    Args:
        states: the layers whose outputs stand side by side in a row; those above the last of them are not needed.
        close: what stands behind a prompt.
        filled: whether rows that only fill a prompt up are looked at, too; else they are zeros.

    Raises:
        ValueError: for a model that has not so many layers.
    """

    def __init__(self, model: Qwen3Model, states: Sequence[int], close: str, *, filled: bool) -> None:
        super().__init__()
        if len(model.layers) < states[-1]:
            raise ValueError(f"its text encoder has {len(model.layers)} layers, and {states[-1]} are read")
        del model.layers[states[-1] + 1 :]
        model.config.num_hidden_layers = len(model.layers)
        self.model = model
        self.states, self.close, self.filled = states, close, filled
        self.kept: dict[tuple[int, ...], torch.Tensor] = {}

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return len(self.states) * self.model.config.hidden_size

    def forward(self, ids: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Rows [prompts, tokens, width] of ids [prompts, tokens]; ``there`` is 0 where they only fill up."""
        states = self.model(
            input_ids=ids, attention_mask=there, output_hidden_states=True, use_cache=False
        ).hidden_states
        rows = torch.cat([states[number] for number in self.states], -1)
        return rows if self.filled else rows * there[..., None]


def letters() -> Qwen2Tokenizer:
    """A tokenizer that knows bytes alone, for who has no vocabulary and counts rows only."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return Qwen2Tokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])


def tokenize(base: Base, parts: Sequence[str | Slot]) -> Tokens:
    """A prompt as the model reads it and, of each row, the number of its token there; -1 for a concept's."""
    ids, units, first, behind = _units(base, parts)
    longest, length = room(base), _length(base)
    read, rows = ids[:first], list(range(first))
    slots: list[tuple[int, str, int]] = []
    lost: list[str] = []
    words = 0
    for sources, slot in units:
        count = slot.tokens if slot else 1
        if lost or words + count > longest:
            lost.append(slot.name if slot else "")
            continue
        slots += [(len(rows) + k, slot.name, k) for k in range(count)] if slot else []
        rows += [-1] * count if slot else [len(read)]
        read += [ids[number] for number in sources]
        words += count
    whole = (*read, *ids[behind:])
    rows += range(len(read), len(read) + length - len(rows))
    return Tokens(
        tuple(min(row, length - 1) for row in rows), tuple(slots), words, cut=bool(lost),
        lost=tuple(dict.fromkeys(filter(None, lost))), plain=whole[:length], first=first,
    )  # fmt: skip


def chunks(base: Base, pieces: Sequence[Piece]) -> tuple[Tokens, ...]:
    """A prompt as a whole: a language model reads it in one, and each of its rows is of all words before it.

    Raises:
        CidmError: USAGE for words that weigh more or less, and for BREAK.
    """
    if any(piece.weight != 1 or piece.apart for piece in pieces):
        raise CidmError(
            "weights and BREAK in a prompt: have no meaning to a language model, which this base reads prompts with",
            hint=r"leave them out, write \( for a plain bracket, or give --literal",
            code=ExitCode.USAGE,
        )
    return (tokenize(base, [piece.part for piece in pieces]),)


def room(base: Base) -> int:
    """Rows that a prompt may have: some are for what it stands in."""
    ids, _, _, _ = _units(base, [])
    return _length(base) - len(ids)


def pieces(base: Base, noun: str) -> list[str]:
    """The tokens of a class noun, as they are written."""
    ids, sources = _noun(base, noun)
    return [base.tokenizers[0].decode([ids[number]]).strip() for number in sources]


def noun_vectors(base: Base, noun: str) -> torch.Tensor:
    """The rows of a class noun behind an article [n_tokens, width]."""
    ids, sources = _noun(base, noun)
    return _read(base, [tuple(ids)])[0, list(sources)]


def token_table(base: Base) -> torch.Tensor:
    """The rows of an ordinary sentence [many, width]."""
    prompt = tokenize(base, [ORDINARY])
    return embedded(base, [prompt], None, None)[0, prompt.body]


def token_widths(base: Base) -> list[int]:
    """Numbers in a row."""
    return [base.encoders[0].width]


def embedded(
    base: Base, prompts: Sequence[Tokens], mask: torch.Tensor | None, given: torch.Tensor | None
) -> torch.Tensor:
    """Rows [rows, tokens, width]; of a concept ``given``, of all else those of the prompt in plain words."""
    read = _read(base, [prompt.plain or () for prompt in prompts])
    numbers = torch.tensor([prompt.ids for prompt in prompts], device=read.device).clamp(min=0)
    out = read.gather(1, numbers[..., None].expand_as(read))
    if mask is None or given is None:
        return out
    return torch.where(mask[..., None], given, out.repeat(len(mask) // len(out), 1, 1))


def pooled(base: Base, prompts: Sequence[Tokens]) -> None:
    """Prompts are not summed up."""


@torch.no_grad()
def _read(base: Base, prompts: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Rows [prompts, tokens, width] of prompts as they are read, one by one: what is beside one changes nothing."""
    reader: Reader = base.encoders[0]
    if new := [ids for ids in dict.fromkeys(prompts) if ids not in reader.kept]:
        length, filler = _length(base), base.tokenizers[0].pad_token_id
        with present(base.device, reader), base.autocast():
            for ids in new:
                whole = [[*ids, *[filler] * (length - len(ids))]]
                there = [[int(number < len(ids)) for number in range(length)]]
                told = (torch.tensor(each, device=base.device) for each in (whole, there))
                reader.kept[ids] = reader(*told)[0].to("cpu", base.denoiser.dtype)
    found = {ids: reader.kept.pop(ids) for ids in dict.fromkeys(prompts)}
    # Those asked for last stay longest.
    reader.kept |= found
    for ids in list(reader.kept)[: max(len(reader.kept) - KEPT, 0)]:
        del reader.kept[ids]
    return torch.stack([found[ids].to(base.device).float() for ids in prompts])


def _units(base: Base, parts: Sequence[str | Slot]) -> tuple[list[int], list[Unit], int, int]:
    """Ids of all that is read, the prompt's units, and the numbers of its first token and of the one behind it."""
    text, spans = OPEN, []
    for part in parts:
        words = part.noun if isinstance(part, Slot) else part
        if isinstance(part, Slot):
            spans.append((len(text), len(text) + len(words), part))
        text += words
    end = len(text)
    text += base.encoders[0].close
    told: Any = base.tokenizers[0](text, add_special_tokens=False, return_offsets_mapping=True)
    offsets: list[tuple[int, int]] = told["offset_mapping"]
    first = sum(stop <= len(OPEN) for _, stop in offsets)
    behind = sum(start < end for start, _ in offsets)
    units: list[Unit] = []
    waiting = list(spans)
    for number in range(first, behind):
        start, stop = offsets[number]
        if units and (slot := units[-1][1]) and _meets(spans[len(spans) - len(waiting) - 1], start, stop):
            units[-1] = ((*units[-1][0], number), slot)
            continue
        # Concepts that nothing is read for, and the one that this token is of.
        while waiting and waiting[0][0] < stop:
            met = _meets(waiting[0], start, stop)
            units.append(((number,) if met else (), waiting.pop(0)[2]))
            if met:
                break
        else:
            units.append(((number,), None))
    units += [((), slot) for _, _, slot in waiting]
    return told["input_ids"], units, first, behind


def _meets(span: tuple[int, int, Slot], start: int, stop: int) -> bool:
    return start < span[1] and span[0] < stop


def _noun(base: Base, noun: str) -> tuple[list[int], tuple[int, ...]]:
    """Ids of a class noun behind an article, and the numbers of its own."""
    ids, units, _, _ = _units(base, ["a ", Slot("", 1, noun)])
    return ids, units[-1][0]


def _length(base: Base) -> int:
    return min(LENGTH, base.tokenizers[0].model_max_length)
