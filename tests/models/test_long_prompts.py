"""Weights of words and prompts longer than the encoder, against ComfyUI's own arithmetic (comfy/sd1_clip.py)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

import tiny
from cidm_cli.models.base import Base
from cidm_cli.models.text import Piece, Slot, alike, chunks, encode, pooled, read, token_width, tokenize
from cidm_cli.options.prompts import parse_prompt

ROOM = tiny.TOKENS - 2
LAYERS = 7
DOG = Slot("rex", 2, "dog")
SAID = [
    "a photo of a (dog:1.3) on the beach",
    "a ((red)) (dog) in the (snow and (a beach:0.4) here:1.5)",
    "(dog:-0.5) a \\(red\\) cat",
    "a (photo of a dog on the beach with a cat in the snow and a dog:1.2) " * 3,
    "a dog on the beach " * 12 + "(a red cat:0.7) in the snow",
    "dog " * (ROOM - 2) + "(a red cat:1.1) dog",
    "dog " * ROOM,
    "",
]


def pieces(prompt: str) -> list[Piece]:
    found = parse_prompt(prompt)
    return [
        Piece(str(part), weight, number in found.breaks)
        for number, (part, weight) in enumerate(zip(found.parts, found.weights, strict=True))
    ]


def comfy_weights(text: str, current: float = 1.0) -> list[tuple[str, float]]:
    """ComfyUI's `token_weights`."""
    out: list[tuple[str, float]] = []
    for item in comfy_parentheses(text):
        weight = current
        if len(item) >= 2 and item[-1] == ")" and item[0] == "(":
            item = item[1:-1]
            colon = item.rfind(":")
            weight *= 1.1
            if colon > 0:
                try:
                    weight = float(item[colon + 1 :])
                    item = item[:colon]
                except ValueError:
                    pass
            out += comfy_weights(item, weight)
        else:
            out += [(item, current)]
    return out


def comfy_parentheses(text: str) -> list[str]:
    """ComfyUI's `parse_parentheses`."""
    result, item, nesting = [], "", 0
    for char in text:
        if char == "(":
            if nesting == 0:
                if item:
                    result.append(item)
                item = "("
            else:
                item += char
            nesting += 1
        elif char == ")":
            nesting -= 1
            if nesting == 0:
                result.append(item + ")")
                item = ""
            else:
                item += char
        else:
            item += char
    return [*result, item] if item else result


def comfy_chunks(base: Base, prompt: str) -> list[list[tuple[int, float]]]:
    """ComfyUI's `tokenize_with_weights`, without the special tokens."""
    escaped = prompt.replace("\\)", "\0\1").replace("\\(", "\0\2")
    batches: list[list[tuple[int, float]]] = [[]]
    for segment, weight in comfy_weights(escaped):
        words = segment.replace("\0\1", ")").replace("\0\2", "(")
        group = [(one, weight) for one in base.tokenizers[0](words, add_special_tokens=False).input_ids]
        is_large = len(group) >= 8
        while group:
            left = ROOM - len(batches[-1])
            if len(group) > left:
                if is_large:
                    batches[-1] += group[:left]
                    group = group[left:]
                batches.append([])
            else:
                batches[-1] += group
                group = []
    return batches


def comfy_encoded(base: Base, prompt: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """ComfyUI's `encode_token_weights`, of each encoder, side by side; and the first chunk as a whole."""
    batches, out, whole = comfy_chunks(base, prompt), [], None
    for number, encoder in enumerate(base.encoders):
        words = base.tokenizers[0]
        pad = base.tokenizers[number].pad_token_id

        def padded(
            body: Sequence[int],
            pad: int = pad,
            start: int = words.bos_token_id,
            end: int = words.eos_token_id,
        ) -> list[int]:
            return [start, *body, end, *[pad] * (ROOM - len(body))]

        ids = torch.tensor([padded([one for one, _ in batch]) for batch in batches] + [padded([])])
        with torch.no_grad():
            said = encoder(input_ids=ids, output_hidden_states=True)
        z = said.hidden_states[-2] if len(base.encoders) > 1 else said.last_hidden_state
        z, z_empty = z[:-1].clone(), z[-1]
        for k, batch in enumerate(batches):
            for j, (_, weight) in enumerate(batch, 1):
                z[k, j] = (z[k, j] - z_empty[j]) * weight + z_empty[j]
        out.append(z.flatten(0, 1))
        if number:
            end = len(batches[0]) + 1
            with torch.no_grad():
                hidden = encoder.text_model(input_ids=ids[:1]).last_hidden_state
                whole = encoder.text_projection(hidden[:, end])
    return torch.cat(out, -1), whole


@pytest.mark.parametrize("prompt", SAID)
def test_weights_and_chunks_are_comfyuis_on_the_same_encoder(base: Base, prompt: str) -> None:
    (rows,) = read(base, [chunks(base, pieces(prompt))], {}, layers=1)
    torch.testing.assert_close(rows[0][0], comfy_encoded(base, prompt)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompt", SAID[:-1])
def test_so_are_those_of_sdxl_and_the_whole_is_that_of_the_first_chunk(sdxl: Base, prompt: str) -> None:
    parts = chunks(sdxl, pieces(prompt))
    (rows,) = read(sdxl, [parts], {}, layers=1)
    wanted, whole = comfy_encoded(sdxl, prompt)
    torch.testing.assert_close(rows[0][0], wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled(sdxl, parts[:1]), whole, rtol=0, atol=1e-5)


def test_a_concept_weighs_at_each_layer_as_its_tokens_are_there(base: Base) -> None:
    vectors = {"rex": torch.randn(LAYERS, 2, token_width(base), generator=torch.Generator().manual_seed(1))}
    (weighed,) = read(
        base, [chunks(base, [Piece("a "), Piece(DOG, 1.4), Piece(" here")])], vectors, layers=LAYERS
    )
    plain = encode(base, [tokenize(base, ["a ", DOG, " here"])], vectors, layers=LAYERS)
    (empty,) = encode(base, [tokenize(base, [])], {}, layers=1)
    for ours, z in zip(weighed, plain, strict=True):
        wanted = z.clone()
        wanted[0, 2:4] = (z[0, 2:4] - empty[0, 2:4]) * 1.4 + empty[0, 2:4]
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
        assert torch.equal(ours[0, :2], z[0, :2])


@pytest.mark.parametrize("before", range(ROOM - 3, ROOM + 2))
def test_a_concept_is_never_cut_in_two(base: Base, before: int) -> None:
    parts = chunks(base, [Piece("dog " * before), Piece(DOG), Piece(" here")])
    assert [(name, k) for one in parts for _, name, k in one.slots] == [("rex", 0), ("rex", 1)]
    assert sum(one.words for one in parts) == before + 2 + len(base.tokenizers[0](" here").input_ids) - 2
    assert len([one for one in parts if one.slots]) == 1
    assert not any(one.cut for one in parts)


def test_break_begins_a_chunk_where_something_stands_before_it(base: Base) -> None:
    def words(prompt: str) -> list[int]:
        return [one.words for one in chunks(base, pieces(prompt))]

    assert words("a dog BREAK a red cat") == [2, 3]
    assert words("BREAK a dog BREAK BREAK a cat BREAK") == [2, 2]
    assert len(words("a dog \\BREAK a red cat")) == 1


def test_a_shorter_text_said_again_says_the_same_to_attention(base: Base) -> None:
    short, long = (
        read(base, [chunks(base, pieces(words))], {}, layers=1)[0] for words in ("a dog", "a dog " * ROOM)
    )
    stretched, same = alike([short, long])
    assert stretched[0].shape == same[0].shape
    assert torch.equal(same[0], long[0])
    query = torch.randn(1, 5, short[0].shape[-1])
    torch.testing.assert_close(
        *(F.scaled_dot_product_attention(query, said, said) for said in (short[0], stretched[0])),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_layers_that_see_one_text_still_share_it(base: Base) -> None:
    texts = [
        read(base, [chunks(base, pieces(words))], {}, layers=LAYERS)[0] for words in ("a", "a dog " * ROOM)
    ]
    assert all(len({id(one) for one in text}) == 1 for text in alike(texts))
