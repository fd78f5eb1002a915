"""Layer-wise concept tokens."""

from __future__ import annotations

import torch

from cidm_cli.method.tokens import initial_tokens

TABLE = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([1, 2, 3, 4, 5, 6]) + 10
NOUN = TABLE[[7, 3]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_class_nouns_own_embeddings_follow_the_new_token_in_every_layer() -> None:
    tokens = initial_tokens(NOUN, TABLE, 5, seeded())
    assert tokens.shape == (5, 3, 6)
    for layer in tokens:
        assert torch.equal(layer[1:], NOUN)
        assert torch.equal(layer[0], tokens[0, 0])


def test_the_new_token_is_the_tables_mean_and_spread_column_by_column() -> None:
    draw = torch.randn(1, 6, generator=seeded(4))
    new = initial_tokens(NOUN, TABLE, 1, seeded(4))[0, 0]
    for column in range(6):
        values = [float(row[column]) for row in TABLE]
        mean = sum(values) / 50
        spread = (sum((value - mean) ** 2 for value in values) / 49) ** 0.5
        assert abs(float(new[column]) - (mean + spread * float(draw[0, column]))) < 1e-4


def test_layers_do_not_share_memory_so_that_each_trains_its_own() -> None:
    tokens = initial_tokens(NOUN, TABLE, 3, seeded())
    before = tokens[1].clone()
    tokens[0].zero_()
    assert torch.equal(tokens[1], before)


def test_the_base_is_not_written_to_through_the_tokens() -> None:
    table, noun = TABLE.clone(), NOUN.clone()
    initial_tokens(noun, table, 1, seeded()).zero_()
    assert torch.equal(table, TABLE)
    assert torch.equal(noun, NOUN)


def test_the_draw_is_the_generators_alone() -> None:
    first = initial_tokens(NOUN, TABLE, 2, seeded(8))
    torch.rand(3)
    assert torch.equal(first, initial_tokens(NOUN, TABLE, 2, seeded(8)))
    assert not torch.equal(first, initial_tokens(NOUN, TABLE, 2, seeded(9)))


def test_a_base_in_half_precision_still_gives_float32_tokens() -> None:
    tokens = initial_tokens(NOUN.half(), TABLE.half(), 2, seeded())
    assert tokens.dtype == torch.float32
    torch.testing.assert_close(tokens, initial_tokens(NOUN, TABLE, 2, seeded()), rtol=2e-3, atol=2e-2)
