"""Layer-wise concept tokens.

| symbol | here | shape |
|---|---|---|
| y_g^{k,l} | tokens of concept g: its k-th token as cross-attention layer l sees it | [L, n_tokens, width] |
"""

from __future__ import annotations

import torch


def initial_tokens(
    noun: torch.Tensor, table: torch.Tensor, layers: int, generator: torch.Generator
) -> torch.Tensor:
    """y — one new token followed by the class noun's own, alike in all layers (CIDM, section 3.1).

    Args:
        noun: embeddings of the class noun's tokens [m, width].
        table: the base's token embeddings [vocabulary, width]; the new token is drawn from their distribution.
        layers: number of cross-attention layers L.
        generator: source of the new token's draw.

    Returns:
        [L, 1 + m, width], float32.
    """
    table = table.float()
    draw = torch.randn(1, table.shape[1], generator=generator).to(table.device)
    new = table.mean(0) + table.std(0) * draw
    return torch.cat([new, noun.float()]).expand(layers, -1, -1).clone()
