"""SDXL and what was trained from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import unet
from .family import MEGA, Family, InFiles, Preset


def _refused(config: Mapping[str, Any], folder: Path) -> str:
    return unet.refused(config) or ("" if (folder / "text_encoder").is_dir() else "is the refiner of SDXL")


FAMILY = Family(
    name="sdxl",
    hub="stabilityai/stable-diffusion-xl-base-1.0",
    pipeline="StableDiffusionXLPipeline",
    architecture="cidm_cli.models.sd",
    parts={"unet": unet.STEM, "text_encoder": "model", "text_encoder_2": "model", "vae": unet.STEM},
    targets=unet.TARGETS,
    # The paper's, as for Stable Diffusion 1.5 (arXiv 2410.17594, section 4.1).
    learn={"steps": 800, "batch": 1, "lr": 1e-4, "token_lr": 1e-3, "buckets": True, "targets": unet.TARGETS[0]},
    draw={"steps": 50, "guidance": 7.5},
    sizes=unet.SIZES,
    files=InFiles(
        "sdxl_base_v1-0", "stable-diffusion-xl-v1-base",
        "https://github.com/Stability-AI/generative-models", ("sdxl",),
    ),
    refused=_refused,
    told_sizes=True,
    memory={
        "learn": {
            8: Preset(5 * MEGA // 4, offload=True, options={"checkpointing": True, "optimizer": "adamw8bit"}),
            12: Preset(2 * MEGA, options={"checkpointing": True}),
            16: Preset(2 * MEGA, options={"checkpointing": True}),
            24: Preset(2 * MEGA),
        },
        "draw": {
            8: Preset(5 * MEGA // 4, offload=True, options={"batch": 2}),
            12: Preset(2 * MEGA, offload=True),
            16: Preset(2 * MEGA),
            24: Preset(4 * MEGA),
        },
    },
)  # fmt: skip
