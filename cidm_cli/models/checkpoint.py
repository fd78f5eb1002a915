"""What a single .safetensors file is, read from its header alone: the checkpoints that people share. No torch.

The names of the tensors are those of the programs the models were trained with: `ldm` for Stable Diffusion 1.x,
`sgm` for SDXL. diffusers translates them (``models.base``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CidmError, ExitCode
from ..files.tensor_files import read_header

_UNET = "model.diffusion_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
_SCHEDULES = {"v": {"prediction_type": "v_prediction"}, "v_prediction": {"prediction_type": "v_prediction"}}
#: What a checkpoint is that some tensor's name begins so, where that cannot be used.
_OTHERS = (
    ("lora_", "a LoRA file, not a model"),
    ("lycoris_", "a LoRA file, not a model"),
    ("control_model.", "a ControlNet, not a model"),
    ("joint_blocks.", "a Stable Diffusion 3 model"),
    (f"{_UNET}joint_blocks.", "a Stable Diffusion 3 model"),
    ("double_blocks.", "a Flux model"),
    (f"{_UNET}double_blocks.", "a Flux model"),
    ("conditioner.embedders.0.model.", "the refiner of SDXL"),
    ("cond_stage_model.model.", "a Stable Diffusion 2.x model"),
    ("edm_mean", "a model with EDM's noise schedule (Playground 2.5)"),
    ("edm_vpred.", "a model with EDM's noise schedule"),
    ("down_blocks.", "one part of a diffusers folder"),
    ("unet.", "one part of a diffusers folder"),
)
_CHANNELS = {8: "an image editing model (InstructPix2Pix)", 9: "an inpainting model"}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint's header says of it."""

    family: str
    """ "sd15" or "sdxl"."""
    schedule: dict[str, Any] = field(default_factory=dict)
    """Where its noise schedule differs from the family's, in diffusers' words."""


def inspect(path: Path) -> Checkpoint:
    """What a .safetensors file holds.

    Raises:
        CidmError: INVALID, saying what it is, for anything but a whole Stable Diffusion 1.x or SDXL.
    """
    header = read_header(
        path, shown=f"base {path}",
        hint="give a model saved as .safetensors; files that need unpickling (.ckpt, .pt) are never read",
    )  # fmt: skip
    shapes, metadata = {name: tensor.shape for name, tensor in header.tensors.items()}, header.metadata
    for start, words in _OTHERS:
        if any(name.startswith(start) for name in shapes):
            raise _unusable(path, f"is {words}")
    first = shapes.get(_FIRST)
    if first is None or len(first) != 4:
        raise _unusable(path, "holds no Stable Diffusion UNet")
    if first[1] != 4:
        raise _unusable(path, f"is {_CHANNELS.get(first[1], f'a model of {first[1]} input channels')}")
    families = {
        "sd15": ("cond_stage_model.transformer.text_model.",),
        "sdxl": ("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."),
    }
    found = [f for f, starts in families.items() if all(_any(shapes, start) for start in starts)]
    if len(found) != 1:
        raise _unusable(path, "holds a UNet without its text encoder")
    if not _any(shapes, "first_stage_model."):
        raise _unusable(path, "holds a UNet without its VAE")
    return Checkpoint(found[0], _schedule(shapes, metadata))


def _any(shapes: Mapping[str, Any], start: str) -> bool:
    return any(name.startswith(start) for name in shapes)


def _schedule(shapes: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """From ModelSpec's metadata, or from the empty tensors that v-prediction models carry as marks."""
    out: dict[str, Any] = dict(_SCHEDULES.get(str(metadata.get("modelspec.prediction_type", "")), {}))
    if "v_pred" in shapes:
        out["prediction_type"] = "v_prediction"
    if "ztsnr" in shapes:
        # Noise without any signal is one of its timesteps: sampling has to begin there.
        out |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return out


def _unusable(path: Path, what: str) -> CidmError:
    return CidmError(
        f"base {path}: {what}",
        hint="give a whole Stable Diffusion 1.x or SDXL checkpoint, with text encoder and VAE in it",
        code=ExitCode.INVALID,
    )
