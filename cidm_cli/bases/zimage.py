"""Z-Image and what was trained from it: the base, which learns, and Turbo, which was distilled from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import unet
from .family import MEGA, Family, InFiles, Preset
from .joint import SIZES, TARGETS

_TURBO = 3.0
"""How Turbo's schedule shifts its noise levels, by which its folders are known: the base's shifts them by 6."""


def _refused(config: Mapping[str, Any], _folder: Path) -> str:
    return "looks at images, too (Z-Image Omni)" if config.get("siglip_feat_dim") else ""


def _distilled(index: Mapping[str, Any], schedule: Mapping[str, Any]) -> bool:
    """A De-Turbo, on Turbo's schedule, says that it is not."""
    return bool(index.get("is_distilled", schedule.get("shift") == _TURBO))


FAMILY = Family(
    name="z-image",
    hub="Tongyi-MAI/Z-Image",
    pipeline="ZImagePipeline",
    marks=lambda index, schedule: not _distilled(index, schedule),
    architecture="cidm_cli.models.zimage",
    parts={"transformer": unet.STEM, "text_encoder": "model", "vae": unet.STEM},
    targets=TARGETS,
    # diffusers' training script's, the tokens' apart: what they are best learned with was not measured.
    learn={"steps": 800, "batch": 1, "lr": 1e-4, "token_lr": 1e-2, "buckets": True, "targets": TARGETS[0]},
    # The published scale of 4 is this one less 1: its pipeline counts from the prompt's prediction.
    draw={"steps": 50, "guidance": 5.0, "sampler": "euler"},
    sizes=SIZES,
    files=InFiles(
        "z_image", "z-image", "https://github.com/Tongyi-MAI/Z-Image", ("z_image", "zimage", "z-image"),
        prefix="transformer.",
    ),
    refused=_refused,
    texts_once=True,
    memory={
        "learn": {
            16: Preset(MEGA, offload=True, options={"checkpointing": True, "optimizer": "adamw8bit"}),
            24: Preset(2 * MEGA, offload=True, options={"checkpointing": True}),
        },
        "draw": {
            16: Preset(MEGA, offload=True, options={"batch": 1}),
            24: Preset(4 * MEGA, offload=True, options={"batch": 4}),
        },
    },
)  # fmt: skip
TURBO = replace(
    FAMILY,
    name="z-image-turbo",
    hub="",
    marks=_distilled,
    draw={"steps": 8, "guidance": 1.0, "sampler": "euler"},
    guided=False,
)
