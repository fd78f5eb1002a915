"""A loaded base: the parts of a diffusers pipeline, on one device, frozen."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..errors import CidmError, ExitCode
from ..options.declared import check_precision
from .loading import Parts, load_parts, outline_parts, settle
from .offload import ONE_MEMORY

WHOLE = 2 << 20
"""Pixels of a picture up to which the VAE takes it as a whole where nothing else is said: twice those of SDXL's own."""


@dataclass(frozen=True)
class Base:
    """The frozen parts of a text-to-image base. Weights are float32, on GPUs that compute in half in half."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    """Always float32."""
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler_config: dict[str, Any]
    device: torch.device
    compute: torch.dtype
    """What matrix products are computed in: autocast where it is not float32."""
    text_encoder_2: CLIPTextModelWithProjection | None = None
    """SDXL's second one."""
    tokenizer_2: CLIPTokenizer | None = None
    """SDXL's second one: it splits as the first does, and pads otherwise."""
    zero_empty: bool = False
    """Whether an empty prompt is embedded as zeros, as SDXL was trained."""
    offload: bool = False
    """Whether its parts wait in main memory while they are not needed (``offload.present``)."""
    whole: int = WHOLE
    """Pixels of a picture up to which the VAE takes it as a whole, and not in tiles."""
    stands_for: str = ""
    """The type of device it is worked out for, where its tensors hold no numbers (``skeleton``); else empty."""
    compiled: bool = False
    """Whether blocks of its UNet are compiled (``compiling.compiled``)."""

    @property
    def hardware(self) -> str:
        """The type of device that it computes on, or is worked out for."""
        return self.stands_for or self.device.type

    @property
    def family(self) -> str:
        """What its architecture is: "sd15" (the embedded base, too) or "sdxl"."""
        return "sd15" if self.text_encoder_2 is None else "sdxl"

    @property
    def encoders(self) -> tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]:
        """Its text encoders."""
        return tuple(e for e in (self.text_encoder, self.text_encoder_2) if e is not None)

    @property
    def pixels(self) -> int:
        """Side of the square picture the base was trained on."""
        return self.unet.config.sample_size * self.factor

    @property
    def factor(self) -> int:
        """Pixels a latent cell spans."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """What a picture's sides must be multiples of, in pixels, for the UNet to halve its latents."""
        return self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def prediction(self) -> str:
        """What the UNet predicts: "epsilon" or "v_prediction"."""
        return self.scheduler_config.get("prediction_type", "epsilon")

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.compute, enabled=self.compute != torch.float32)

    def vae_autocast(self) -> torch.autocast:
        """As ``autocast``, but float32 for a VAE that says it leaves the range of float16, as SDXL's first one does."""
        overflows = self.compute == torch.float16 and self.vae.config.force_upcast
        enabled = self.compute != torch.float32 and not overflows
        return torch.autocast(self.device.type, self.compute, enabled=enabled)


def peak_memory(base: Base) -> int:
    """Most bytes used so far: of the GPU by this process, or of main memory."""
    if base.device.type == "cuda":
        return torch.cuda.max_memory_allocated(base.device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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

    "half" is the same, but float16 on CUDA GPUs that do not multiply bfloat16 fast.

    Raises:
        CidmError: USAGE for an unknown name.
    """
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name in known:
        return known[name]
    check_precision(name)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and fast_bfloat16()
    if fast:
        return torch.bfloat16
    return torch.float16 if name == "half" and device.type == "cuda" else torch.float32


def fast_bfloat16() -> bool:
    """Whether torch multiplies bfloat16 on this CPU with AMX: it has it, and ATEN_CPU_CAPABILITY does not forbid it."""
    return torch.cpu._is_amx_tile_supported() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def load(
    place: Path,
    *,
    device: torch.device,
    compute: torch.dtype,
    vae: Path | None = None,
    full: bool = False,
    offload: bool = False,
    whole: int = WHOLE,
) -> Base:
    """Loads a diffusers folder or a single file: safetensors only, no code from it runs.

    On a GPU that computes in half, the UNet and the text encoders are kept in half.

    Args:
        vae: the folder of a VAE that stands in for the base's own.
        full: read from the files in full precision where there are both.
        offload: its parts wait in main memory; nothing changes where the device has no other.
        whole: pixels of a picture up to which the VAE takes it as a whole.

    Raises:
        CidmError: INVALID when diffusers or transformers cannot read it, or it is not whole.
    """
    kept = compute if device.type != "cpu" else torch.float32
    parts = load_parts(place, dtype=kept, vae=vae, full=full)
    offload = offload and device.type not in ONE_MEMORY
    resting = torch.device("cpu") if offload else device
    for part in (parts.unet, parts.vae, parts.text_encoder, parts.text_encoder_2):
        if part is not None:
            settle(part.requires_grad_(False).eval().to(resting))
    if parts.text_encoder_2 is not None:
        # Pictures of 1024 pixels are decoded one after another: a batch of them would not fit.
        parts.vae.enable_slicing()
    return replace(_base(parts, device, compute), offload=offload, whole=whole)


def outline(place: Path, *, vae: Path | None = None) -> Base:
    """A base's settings, shapes and tokenizers, read in a moment: for what neither encodes nor draws.

    Its models are on the meta device and hold no weights; whoever computes with them gets no numbers.

    Raises:
        CidmError: INVALID when its settings cannot be read.
    """
    return _base(outline_parts(place, vae=vae), torch.device("cpu"), torch.float32)


def _base(parts: Parts, device: torch.device, compute: torch.dtype) -> Base:
    return Base(
        unet=parts.unet, vae=parts.vae, text_encoder=parts.text_encoder, tokenizer=parts.tokenizer,
        scheduler_config=parts.scheduler_config, device=device, compute=compute,
        text_encoder_2=parts.text_encoder_2, tokenizer_2=parts.tokenizer_2, zero_empty=parts.zero_empty,
    )  # fmt: skip
