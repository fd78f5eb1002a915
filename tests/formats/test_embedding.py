"""Embedding files: a concept's tokens for other programs."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load

from cidm_cli.formats.embedding import averaged, pack_embedding

TOKENS = torch.randn(3, 2, 10, generator=torch.Generator().manual_seed(0))


def test_one_text_encoder_has_one_tensor_of_vectors() -> None:
    file = load(pack_embedding(TOKENS[:1], [10], {}))
    assert file.keys() == {"emb_params"}
    assert torch.equal(file["emb_params"], TOKENS[0])


def test_the_two_of_sdxl_get_their_own_part_of_each_vector() -> None:
    file = load(pack_embedding(TOKENS[:1], [4, 6], {}))
    assert file.keys() == {"clip_l", "clip_g"}
    assert torch.equal(file["clip_l"], TOKENS[0, :, :4])
    assert torch.equal(file["clip_g"], TOKENS[0, :, 4:])


def test_tokens_that_layers_share_are_kept_to_the_bit_and_others_averaged() -> None:
    assert averaged(TOKENS[:1]) is not None
    assert torch.equal(averaged(TOKENS[:1]), TOKENS[:1])
    torch.testing.assert_close(
        averaged(TOKENS)[0, 1, 7], (TOKENS[0, 1, 7] + TOKENS[1, 1, 7] + TOKENS[2, 1, 7]) / 3
    )


@pytest.mark.parametrize(("count", "widths"), [(3, [10]), (1, [9]), (1, [4, 3, 3])])
def test_what_does_not_fit_the_text_encoders_is_a_fault(count: int, widths: list[int]) -> None:
    with pytest.raises(ValueError, match="text encoders"):
        pack_embedding(TOKENS[:count], widths, {})
