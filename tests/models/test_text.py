"""Prompts to text embeddings, one a cross-attention layer."""

from __future__ import annotations

import copy

import pytest
import torch

import tiny
from cidm_cli.models.base import Base
from cidm_cli.models.text import Slot, Tokens, encode, tokenize

LAYERS = 7
ROOM = tiny.TOKENS - 2
DOG, CAT = Slot("rex", 2), Slot("tom", 3)
SPARE = ("q", "w", "x", "y", "z")
"""Words that no prompt here uses: brute force lets them stand for a concept's tokens."""


def concept(tokens: int, seed: int, layers: int = LAYERS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(layers, tokens, tiny.TEXT_WIDTH, generator=generator) * 0.5


VECTORS = {"rex": concept(2, 1), "tom": concept(3, 2)}


def word(base: Base, text: str) -> int:
    (token,) = base.tokenizers[0](text, add_special_tokens=False).input_ids
    return int(token)


def brute_force(base: Base, prompt: Tokens, vectors: dict[str, torch.Tensor], layer: int) -> torch.Tensor:
    """One layer's embedding of a prompt: the table itself is overwritten and the words are really in the prompt."""
    encoder = copy.deepcopy(base.encoders[0])
    table = encoder.get_input_embeddings().weight
    ids = list(prompt.ids)
    for spare, (position, name, number) in zip(SPARE, prompt.slots, strict=False):
        ids[position] = word(base, spare)
        table.data[ids[position]] = vectors[name][layer, number]
    assert len(prompt.slots) <= len(SPARE)
    with torch.no_grad():
        return encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]


# -- tokenize ---------------------------------------------------------------------------------------------------


def test_a_prompt_without_concepts_is_tokenized_as_the_base_does(base: Base) -> None:
    prompt = tokenize(base, ["a photo of a dog on the beach"])
    whole = base.tokenizers[0]("a photo of a dog on the beach", padding="max_length").input_ids
    assert list(prompt.ids) == whole
    assert prompt.slots == ()
    assert not prompt.cut
    assert prompt.lost == ()


def test_a_slot_takes_its_positions_between_the_words_around_it(base: Base) -> None:
    prompt = tokenize(base, ["a photo of a ", DOG, " on the beach with ", CAT])
    around = base.tokenizers[0](" on the beach with ", add_special_tokens=False).input_ids
    assert prompt.slots[:2] == ((5, "rex", 0), (6, "rex", 1))
    assert list(prompt.ids[7 : 7 + len(around)]) == around
    start = 7 + len(around)
    assert prompt.slots[2:] == tuple((start + k, "tom", k) for k in range(3))
    assert prompt.ids[start + 3] == base.tokenizers[0].eos_token_id
    assert len(prompt.ids) == tiny.TOKENS


def test_a_concept_named_twice_has_two_slots(base: Base) -> None:
    prompt = tokenize(base, [DOG, " on ", DOG])
    assert prompt.slots == ((1, "rex", 0), (2, "rex", 1), (4, "rex", 0), (5, "rex", 1))


@pytest.mark.parametrize(("words", "cut"), [(ROOM - 2, False), (ROOM - 1, True), (ROOM, True)])
def test_what_does_not_fit_is_cut_and_said(base: Base, words: int, cut: bool) -> None:
    prompt = tokenize(base, [DOG, " dog" * words])
    assert len(prompt.ids) == tiny.TOKENS
    assert prompt.ids[-1] == base.tokenizers[0].eos_token_id
    assert prompt.cut is cut
    assert prompt.lost == ()


@pytest.mark.parametrize(
    ("words", "kept", "lost"), [(ROOM - 2, 2, ()), (ROOM - 1, 1, ("rex",)), (ROOM, 0, ("rex",))]
)
def test_a_concept_that_loses_even_one_token_is_named(
    base: Base, words: int, kept: int, lost: tuple[str, ...]
) -> None:
    prompt = tokenize(base, [" dog" * words, DOG])
    assert len(prompt.slots) == kept
    assert all(position <= ROOM for position, _, _ in prompt.slots)
    assert prompt.lost == lost
    assert prompt.cut is bool(lost)


def test_each_lost_concept_is_named_once(base: Base) -> None:
    prompt = tokenize(base, [" dog" * ROOM, DOG, CAT, DOG])
    assert prompt.lost == ("rex", "tom")


def test_a_word_is_no_concept_however_it_is_written(base: Base) -> None:
    """The base's own marks in a prompt are tokens of the base, never a slot."""
    prompt = tokenize(base, ["rex <rex> tom"])
    assert prompt.slots == ()


def test_a_nouns_tokens_are_its_own_without_marks(base: Base) -> None:
    assert base.architecture.pieces(base, "duck toy") == ["duck", "toy"]


# -- encode -----------------------------------------------------------------------------------------------------


def test_a_prompt_without_concepts_is_the_plain_text_encoders_for_every_layer(base: Base) -> None:
    text = "a photo of a dog on the beach"
    rows = encode(base, [tokenize(base, [text])], VECTORS, layers=LAYERS)
    ids = base.tokenizers[0](text, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        plain = base.encoders[0](input_ids=ids).last_hidden_state
    assert len(rows) == LAYERS
    for row in rows:
        assert torch.equal(row, plain)


def test_each_layers_rows_are_those_of_a_table_that_holds_its_tokens(base: Base) -> None:
    prompts = [
        tokenize(base, ["a photo of a ", DOG, " on the beach"]),
        tokenize(base, ["a cat in the snow"]),
        tokenize(base, [CAT, " and ", DOG]),
        tokenize(base, ["a red ", CAT]),
    ]
    rows = encode(base, prompts, VECTORS, layers=LAYERS)
    for layer in range(LAYERS):
        for number, prompt in enumerate(prompts):
            torch.testing.assert_close(
                rows[layer][number], brute_force(base, prompt, VECTORS, layer), rtol=1e-4, atol=1e-5
            )
    assert not torch.allclose(rows[0][0], rows[1][0], atol=1e-2)


def test_equal_prompts_get_equal_rows_and_order_is_kept(base: Base) -> None:
    one = tokenize(base, ["a ", DOG])
    two = tokenize(base, ["a ", CAT])
    plain = tokenize(base, ["a dog"])
    rows = encode(base, [two, one, plain, two, one, plain], VECTORS, layers=LAYERS)
    for row in rows:
        assert torch.equal(row[:3], row[3:])
        assert not torch.allclose(row[0], row[1], atol=1e-3)
        assert not torch.allclose(row[1], row[2], atol=1e-3)


def test_a_cut_off_concept_keeps_the_tokens_that_fit(base: Base) -> None:
    prompt = tokenize(base, [" dog" * (ROOM - 1), DOG])
    rows = encode(base, [prompt], VECTORS, layers=LAYERS)
    torch.testing.assert_close(rows[3][0], brute_force(base, prompt, VECTORS, 3), rtol=1e-4, atol=1e-5)


def test_tokens_shared_by_all_layers_are_encoded_as_if_repeated_for_each(base: Base) -> None:
    shared = {"rex": concept(2, 5, layers=1)}
    repeated = {"rex": shared["rex"].expand(LAYERS, -1, -1)}
    prompts = [tokenize(base, ["a ", DOG])]
    for one, other in zip(
        encode(base, prompts, shared, layers=LAYERS),
        encode(base, prompts, repeated, layers=LAYERS),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_shared_and_layer_wise_tokens_stand_in_one_prompt(base: Base) -> None:
    mixed = {"rex": concept(2, 5, layers=1), "tom": VECTORS["tom"]}
    repeated = {"rex": mixed["rex"].expand(LAYERS, -1, -1), "tom": VECTORS["tom"]}
    prompt = tokenize(base, [DOG, " on ", CAT])
    for layer, row in enumerate(encode(base, [prompt], mixed, layers=LAYERS)):
        torch.testing.assert_close(row[0], brute_force(base, prompt, repeated, layer), rtol=1e-4, atol=1e-5)


def test_a_concept_that_no_prompt_names_changes_nothing(base: Base) -> None:
    """Also where the named one is shared by its layers and the other is not: their lengths differ."""
    prompt = tokenize(base, ["a ", DOG])
    shared = {"rex": concept(2, 5, layers=1)}
    alone = encode(base, [prompt], shared, layers=LAYERS)
    beside = encode(base, [prompt], {**shared, "tom": VECTORS["tom"]}, layers=LAYERS)
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_the_gradient_of_each_layers_rows_reaches_its_own_tokens_and_no_others(base: Base) -> None:
    prompts = [tokenize(base, ["a ", DOG]), tokenize(base, [CAT, " on ", DOG])]
    for layer in range(LAYERS):
        vectors = {name: value.clone().requires_grad_() for name, value in VECTORS.items()}
        encode(base, prompts, vectors, layers=LAYERS)[layer].square().sum().backward()
        for name, value in vectors.items():
            assert value.grad is not None, name
            assert value.grad[layer].any(dim=-1).all(), "every token of the concept"
            others = [other for other in range(LAYERS) if other != layer]
            assert not value.grad[others].any()


def test_gradients_are_what_finite_differences_give(base: Base) -> None:
    prompts = [tokenize(base, [DOG, " on ", DOG])]
    pull = torch.randn(1, tiny.TOKENS, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(3))

    def value(vectors: torch.Tensor) -> torch.Tensor:
        return sum((row * pull).sum() for row in encode(base, prompts, {"rex": vectors}, layers=LAYERS))

    vectors = VECTORS["rex"].clone().requires_grad_()
    value(vectors).backward()
    assert vectors.grad is not None
    for seed in range(3):
        way = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            slope = (value(VECTORS["rex"] + 0.005 * way) - value(VECTORS["rex"] - 0.005 * way)) / 0.01
        torch.testing.assert_close((vectors.grad * way).sum(), slope, rtol=2e-2, atol=0.5)


def test_the_base_is_left_untouched(base: Base) -> None:
    table = base.encoders[0].get_input_embeddings()
    before, size = table.weight.clone(), len(base.tokenizers[0])
    plain = [tokenize(base, ["a dog"])]
    first = encode(base, plain, {}, layers=LAYERS)[0]
    vectors = {name: value.clone().requires_grad_() for name, value in VECTORS.items()}
    encode(base, [tokenize(base, [DOG, CAT])], vectors, layers=LAYERS)[0].sum().backward()
    assert torch.equal(table.weight, before)
    assert len(base.tokenizers[0]) == size
    assert not table._forward_hooks
    assert all(p.grad is None and not p.requires_grad for p in base.encoders[0].parameters())
    assert torch.equal(encode(base, plain, {}, layers=LAYERS)[0], first)


def test_an_encoder_that_fails_leaves_no_tokens_behind(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_kwargs: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(base.encoders[0], "forward", fail)
        with pytest.raises(InterruptedError):
            encode(base, [tokenize(base, [DOG])], VECTORS, layers=LAYERS)
    assert not base.encoders[0].get_input_embeddings()._forward_hooks
