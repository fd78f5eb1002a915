"""FLUX.2 klein and what was trained from it: the base, which learns, and the models distilled from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

from . import unet
from .family import MEGA, Family, InFiles, Preset
from .joint import SIZES, TARGETS


def _refused(config: Mapping[str, Any], _folder: Path) -> str:
    return "is told its guidance (FLUX.2 dev)" if config.get("guidance_embeds", True) else ""


def shift(cells: int, steps: int) -> float:
    """How the published pipeline shifts its noise levels: by a measure that is linear in a picture's cells, and between
    10 and 200 steps, where it is not a large one, linear in these."""
    many = 0.00016927 * cells + 0.45666666
    if cells > 4300:
        return exp(many)
    few = 8.73809524e-05 * cells + 1.89833333
    return exp(few + (many - few) * (steps - 10) / 190)


FAMILY = Family(
    name="flux2-klein",
    hub="black-forest-labs/FLUX.2-klein-base-4B",
    pipeline="Flux2KleinPipeline",
    marks=lambda index, _: not index.get("is_distilled", False),
    architecture="cidm_cli.models.flux2",
    parts={"transformer": unet.STEM, "text_encoder": "model", "vae": unet.STEM},
    targets=TARGETS,
    # diffusers' training script's, the tokens' apart: what they are best learned with was not measured.
    learn={"steps": 800, "batch": 1, "lr": 1e-4, "token_lr": 1e-2, "buckets": True, "targets": TARGETS[0]},
    draw={"steps": 50, "guidance": 4.0, "sampler": "euler"},
    sizes=SIZES,
    files=InFiles(
        "flux2_klein", "flux-2-klein", "https://github.com/black-forest-labs/flux2", ("flux2", "flux-2", "flux.2"),
        prefix="transformer.",
    ),
    refused=_refused,
    texts_once=True,
    shift=shift,
    memory={
        "learn": {
            12: Preset(MEGA, offload=True, options={"checkpointing": True, "optimizer": "adamw8bit"}),
            16: Preset(2 * MEGA, offload=True, options={"checkpointing": True}),
            24: Preset(2 * MEGA, offload=True, options={"checkpointing": True}),
        },
        "draw": {
            12: Preset(MEGA, offload=True, options={"batch": 1}),
            16: Preset(2 * MEGA, offload=True, options={"batch": 2}),
            24: Preset(4 * MEGA, offload=True),
        },
    },
)  # fmt: skip
DISTILLED = replace(
    FAMILY,
    name="flux2-klein-distilled",
    hub="",
    marks=lambda index, _: bool(index.get("is_distilled", False)),
    draw={"steps": 4, "guidance": 1.0, "sampler": "euler"},
    guided=False,
)
