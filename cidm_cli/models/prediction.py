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
    """The UNet's prediction, as ``Base.predict`` says; each cross-attention layer attends to its own context."""
    with layer_contexts(base.denoiser, contexts):
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

    Raises:
        ValueError: when an SDXL base is not given ``pooled``.
    """
    added = None
    if base.family.told_sizes:
        if pooled is None:
            raise ValueError("SDXL's UNet wants the prompts as wholes, too")
        if sizes is None:
            height, width = (side * base.factor for side in latents.shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(latents), -1)
        added = {"text_embeds": pooled, "time_ids": sizes.to(latents)}
    with base.autocast():
        more = {} if followed is None else residuals(followed, latents, t, added)
        return base.denoiser(latents, t, context, added_cond_kwargs=added, **more).sample.float()
