"""The small base that comes along: built as Stable Diffusion 1.x is, of no use on a memory of gigabytes."""

from __future__ import annotations

from dataclasses import replace

from . import sd15, unet
from .family import JUDGES, InFiles

FAMILY = replace(
    sd15.FAMILY,
    name="mini",
    hub="",
    pipeline="",
    # Measured on concepts that no benchmark judges (docs/embedded-base.md).
    learn={
        "steps": 200,
        "batch": 8,
        "lr": 1e-3,
        "token_lr": 1e-3,
        "buckets": False,
        "targets": unet.TARGETS[1],
    },
    draw={"steps": 20, "guidance": 4.0, "style_from": 0.45},
    files=InFiles("cidm_mini", "cidm-mini", "diffusers", sd15.FAMILY.files.accepted),
    # It brings its own; a second judge from elsewhere says nothing about pictures so unlike photographs.
    judges={**JUDGES, "dino": "none"},
    memory={},
    elsewhere=False,
    references=True,
    side=256,
    beyond="as photographs are: the base mini draws 64 pixels wide, knows 66 kinds of drawn things and no photographs; "
    "use Stable Diffusion for them: cidm init --registry sd --base sd15",
)
