"""Asking the UNet: whatever a base's family wants to be told besides latents, timesteps and text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .attention import layer_contexts
from .base import Base
from .structure import Condition, residuals


def predict(
    base: Base,
    latents: torch.Tensor,
    t: torch.Tensor,
    contexts: Sequence[torch.Tensor],
    pooled: torch.Tensor | None = None,
    sizes: torch.Tensor | None = None,
    followed: Condition | None = None,
) -> torch.Tensor:
    """The UNet's prediction for scaled latents [batch, channels, h, w], in float32.

    Args:
        t: a timestep, or one of each sample [batch].
        contexts: for each cross-attention layer, text embeddings [batch, tokens, width].
        pooled: the texts as wholes (``text.pooled``), which SDXL wants; None for other bases.
        sizes: see ``ask``.
        followed: the structure that each row follows.
    """
    with layer_contexts(base.unet, contexts):
        return ask(base, latents, t, contexts[0], pooled, sizes, followed)


def ask(
    base: Base,
    latents: torch.Tensor,
    t: torch.Tensor,
    context: torch.Tensor,
    pooled: torch.Tensor | None = None,
    sizes: torch.Tensor | None = None,
    followed: Condition | None = None,
) -> torch.Tensor:
    """As ``predict``, with one text for all layers, or one that nothing attends to.

    Args:
        sizes: what SDXL is told of each picture, [batch, 6]: its height and width before it was resized, top and
            left of the piece that was cut out, height and width of that, in pixels. None for a picture that is whole.

    Raises:
        ValueError: when an SDXL base is not given ``pooled``.
    """
    added = None
    if base.family == "sdxl":
        if pooled is None:
            raise ValueError("SDXL's UNet wants the prompts as wholes, too")
        if sizes is None:
            height, width = (side * base.factor for side in latents.shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(latents), -1)
        added = {"text_embeds": pooled, "time_ids": sizes.to(latents)}
    with base.autocast():
        more = {} if followed is None else residuals(followed, latents, t, added)
        return base.unet(latents, t, context, added_cond_kwargs=added, **more).sample.float()
