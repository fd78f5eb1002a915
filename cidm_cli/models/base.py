"""A loaded base: the parts of a diffusers pipeline, on one device, frozen."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from ..errors import CidmError, ExitCode


@dataclass(frozen=True)
class Base:
    """The frozen parts of a text-to-image base. Weights are float32 unless the device computes in half."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler_config: dict[str, Any]
    device: torch.device
    compute: torch.dtype
    """What matrix products are computed in: autocast where it is not float32."""

    @property
    def pixels(self) -> int:
        """Side of the square picture the base was trained on."""
        return self.unet.config.sample_size * self.factor

    @property
    def factor(self) -> int:
        """Pixels a latent cell spans."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def prediction(self) -> str:
        """What the UNet predicts: "epsilon" or "v_prediction"."""
        return self.scheduler_config.get("prediction_type", "epsilon")

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.compute, enabled=self.compute != torch.float32)


def peak_memory(base: Base) -> int:
    """Most bytes used so far: of the GPU by this process, or of main memory."""
    if base.device.type == "cuda":
        return torch.cuda.max_memory_allocated(base.device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def trainable_attention(base: Base) -> Iterator[None]:
    """While open, attention on a CPU is computed step by step: the fused kind's backward pass takes twice as long."""
    if base.device.type != "cpu":
        yield
        return
    processors, implementation = base.unet.attn_processors, base.text_encoder.config._attn_implementation
    base.unet.set_attn_processor(AttnProcessor())
    base.text_encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.unet.set_attn_processor(dict(processors))
        base.text_encoder.set_attn_implementation(implementation)


def choose_device(name: str) -> torch.device:
    """ "auto" is a CUDA GPU, else Apple's, else the CPU.

    Raises:
        CidmError: USAGE for a device this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CidmError(
            f"--device {name}: not usable here ({str(error).splitlines()[0]})",
            hint="use --device cpu, or leave it out",
            code=ExitCode.USAGE,
        ) from error
    return device


def choose_compute(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 where the hardware multiplies it fast (GPUs from Ampere on, CPUs with AMX), else float32.

    Raises:
        CidmError: USAGE for an unknown name.
    """
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name in known:
        return known[name]
    if name != "auto":
        raise CidmError(f"--precision {name}: must be auto, fp32, bf16 or fp16", code=ExitCode.USAGE)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def load(folder: Path, *, device: torch.device, compute: torch.dtype) -> Base:
    """Loads a diffusers folder part by part: safetensors only, weights in float32, no code from the folder runs.

    Raises:
        CidmError: INVALID when diffusers or transformers cannot read the folder.
    """
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        unet = UNet2DConditionModel.from_pretrained(
            folder, subfolder="unet", dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        vae = AutoencoderKL.from_pretrained(
            folder, subfolder="vae", dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        encoder = CLIPTextModel.from_pretrained(
            folder, subfolder="text_encoder", dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
        scheduler = DDPMScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CidmError(
            f"base {folder}: diffusers cannot load it ({str(error).splitlines()[0]})",
            hint="check that the folder is whole; cidm init --base mini needs no download",
            code=ExitCode.INVALID,
        ) from error
    for part in (unet, vae, encoder):
        part.requires_grad_(False).eval().to(device)
    return Base(
        unet=unet, vae=vae, text_encoder=encoder, tokenizer=tokenizer, scheduler_config=dict(scheduler),
        device=device, compute=compute,
    )  # fmt: skip
