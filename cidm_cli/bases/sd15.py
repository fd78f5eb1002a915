"""Stable Diffusion 1.x and what was trained from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import unet
from .family import MEGA, Family, InFiles, Preset


def _refused(config: Mapping[str, Any], _folder: Path) -> str:
    return (
        "is a Stable Diffusion 2.x model"
        if config.get("cross_attention_dim") == 1024
        else unet.refused(config)
    )


FAMILY = Family(
    name="sd15",
    hub="stable-diffusion-v1-5/stable-diffusion-v1-5",
    pipeline="StableDiffusionPipeline",
    architecture="cidm_cli.models.sd",
    parts={"unet": unet.STEM, "text_encoder": "model", "vae": unet.STEM},
    targets=unet.TARGETS,
    # The paper's (arXiv 2410.17594, section 4.1).
    learn={
        "steps": 800,
        "batch": 1,
        "lr": 1e-4,
        "token_lr": 1e-3,
        "buckets": True,
        "targets": unet.TARGETS[0],
    },
    draw={"steps": 50, "guidance": 7.5},
    sizes=unet.SIZES,
    files=InFiles("sd_v1", "stable-diffusion-v1", "diffusers", ("sd_v1", "cidm_mini")),
    refused=_refused,
    memory={
        "learn": {
            8: Preset(5 * MEGA // 4, offload=True),
            12: Preset(2 * MEGA),
            16: Preset(2 * MEGA),
            24: Preset(2 * MEGA),
        },
        "draw": {
            8: Preset(5 * MEGA // 4),
            12: Preset(2 * MEGA),
            16: Preset(2 * MEGA),
            24: Preset(4 * MEGA),
        },
    },
)
