"""Concepts that were not learned, for tests of what is drawn with some."""

from __future__ import annotations

import torch

from cidm_cli.formats.concept import ConceptWeights, pack
from cidm_cli.models import text
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_registry import Registry
from registry_support import make_draft


def fill(registry: Registry, base: Base) -> Registry:
    """Commits <dog> and <cat>, of random weights."""
    shapes, sites = base.shapes, lora_sites(base.denoiser)
    for number, name in enumerate(("dog", "cat")):
        generator = torch.Generator().manual_seed(number)
        up = {s: 0.1 * torch.randn(shapes[s][0], 2, generator=generator) for s in sites}
        down = {s: torch.randn(2, shapes[s][1], generator=generator) for s in sites}
        layers = len(base.layers)
        tokens = torch.randn(layers, 2, text.token_width(base), generator=generator)
        draft = make_draft(name, class_noun=name, rank=2, scale=1.0, method="plain")
        registry.commit(draft, pack(ConceptWeights(up, down, tokens)), expected_head=registry.head())
    return registry
