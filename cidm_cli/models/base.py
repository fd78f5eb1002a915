"""A loaded base: the parts of a diffusers pipeline, on one device, frozen."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..bases import Family
from ..errors import CidmError, ExitCode
from ..options.computing import Computing
from ..options.declared import declared
from .family import Architecture, Parts, Regions
from .loading import architecture, family_at, load_parts, outline_parts, settle
from .offload import ONE_MEMORY

if TYPE_CHECKING:
    from .structure import Condition

WHOLE = 2 << 20
"""Pixels of a picture up to which the VAE takes it as a whole where nothing else is said: twice those of SDXL's own."""


@dataclass(frozen=True)
class Base:
    """The frozen parts of a text-to-image base. Weights are float32, on GPUs that compute in half in half."""

    family: Family
    architecture: Architecture
    """How its parts compute."""
    denoiser: Any
    vae: Any
    """Always float32."""
    encoders: tuple[Any, ...]
    """Its text encoders."""
    tokenizers: tuple[Any, ...]
    """One of each text encoder."""
    scheduler_config: dict[str, Any]
    device: torch.device
    compute: torch.dtype
    """What matrix products are computed in: autocast where it is not float32."""
    zero_empty: bool = False
    """Whether an empty prompt is embedded as zeros, as SDXL was trained."""
    offload: bool = False
    """Whether its parts wait in main memory while they are not needed (``offload.present``)."""
    whole: int = WHOLE
    """Pixels of a picture up to which the VAE takes it as a whole, and not in tiles."""
    stands_for: str = ""
    """The type of device it is worked out for, where its tensors hold no numbers (``skeleton``); else empty."""
    compiled: bool = False
    """Whether blocks of its denoiser are compiled (``compiling.compiled``)."""

    @property
    def hardware(self) -> str:
        """The type of device that it computes on, or is worked out for."""
        return self.stands_for or self.device.type

    @property
    def parts(self) -> dict[str, Any]:
        """Its models, by their folders in a pipeline's."""
        models = (self.denoiser, *self.encoders, self.vae)
        return dict(zip(self.family.parts, models, strict=True))

    @property
    def pixels(self) -> int:
        """Side of the square picture the base was trained on."""
        return self.architecture.pixels(self)

    @property
    def factor(self) -> int:
        """Pixels a latent cell spans."""
        return self.architecture.factor(self)

    @property
    def multiple(self) -> int:
        """What a picture's sides must be multiples of, in pixels."""
        return self.architecture.multiple(self)

    @property
    def prediction(self) -> str:
        """What the denoiser predicts: "epsilon", "v_prediction" or "flow_prediction"."""
        return self.scheduler_config.get("prediction_type", "epsilon")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers at which concepts are weighted, in forward order: those that attend to text."""
        return self.architecture.layers(self.denoiser)

    @property
    def groups(self) -> int:
        """How many copies of a concept's tokens its layers share."""
        return max(self.architecture.groups(self.denoiser)) + 1

    def sites(self, targets: str) -> tuple[str, ...]:
        """The linear layers that a LoRA sits on, in forward order."""
        return self.architecture.sites(self.denoiser, targets)

    @property
    def site_layers(self) -> dict[str, int]:
        """The number of the layer that each site belongs to, of all sites that any file may change."""
        return self.architecture.site_layers(self.denoiser)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each of these sites."""
        return {site: tuple(self.denoiser.get_submodule(site).weight.shape[:2]) for site in self.site_layers}

    @property
    def convolutions(self) -> frozenset[str]:
        """Those that are 1x1 convolutions: linear all the same, with two more dimensions in files of weights."""
        found = (site for site in self.site_layers if self.denoiser.get_submodule(site).weight.ndim == 4)
        return frozenset(found)

    def predict(
        self,
        latents: torch.Tensor,
        t: torch.Tensor,
        contexts: Sequence[torch.Tensor],
        pooled: torch.Tensor | None = None,
        sizes: torch.Tensor | None = None,
        followed: Condition | None = None,
    ) -> torch.Tensor:
        """The denoiser's prediction for scaled latents [batch, channels, h, w], in float32.

        Args:
            t: a timestep, or one of each sample [batch].
            contexts: for each layer, text embeddings [batch, tokens, width].
            pooled: the texts as wholes (``text.pooled``), where the base wants them.
            sizes: what a base with ``told_sizes`` is told of each picture, [batch, 6]: its height and width before it
                was resized, top and left of the piece that was cut out, height and width of that, in pixels. None for
                a picture that is whole.
            followed: the structure that each row follows.

        Raises:
            ValueError: when a base that wants ``pooled`` is not given it.
        """
        return self.architecture.predict(self, latents, t, contexts, pooled, sizes, followed)

    @property
    def regions(self) -> Regions:
        """How regions are drawn.

        Raises:
            CidmError: FAILED for a family that has no way to.
        """
        found = self.architecture.regions()
        if found is None:
            raise CidmError(
                f"bases of the family {self.family.name} draw no regions",
                hint="draw the layout's prompt by itself, with --prompt",
            )
        return found

    @property
    def routed(self) -> Regions:
        """How concepts of one prompt are kept apart.

        Raises:
            CidmError: FAILED for a family that has no way to.
        """
        found = self.architecture.routed()
        if found is None:
            raise CidmError(
                f"bases of the family {self.family.name} keep no concepts of one prompt apart",
                hint="draw with --method named, or give each concept a box in a layout",
            )
        return found

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.compute, enabled=self.compute != torch.float32)

    def vae_autocast(self) -> torch.autocast:
        """As ``autocast``, but float32 for a VAE that says it leaves the range of float16, as SDXL's first one does."""
        overflows = self.compute == torch.float16 and self.vae.config.get("force_upcast", False)
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
    declared(Computing)["precision"].checked(name)
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

    On a GPU that computes in half, the denoiser and the text encoders are kept in half.

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
    for part in (parts.denoiser, parts.vae, *parts.encoders):
        settle(part.requires_grad_(False).eval().to(resting))
    return replace(_base(place, parts, device, compute), offload=offload, whole=whole)


def outline(place: Path, *, vae: Path | None = None) -> Base:
    """A base's settings, shapes and tokenizers, read in a moment: for what neither encodes nor draws.

    Its models are on the meta device and hold no weights; whoever computes with them gets no numbers.

    Raises:
        CidmError: INVALID when its settings cannot be read.
    """
    return _base(place, outline_parts(place, vae=vae), torch.device("cpu"), torch.float32)


def _base(place: Path, parts: Parts, device: torch.device, compute: torch.dtype) -> Base:
    kind = family_at(place)
    return Base(
        family=kind, architecture=architecture(kind), denoiser=parts.denoiser, vae=parts.vae,
        encoders=parts.encoders, tokenizers=parts.tokenizers, scheduler_config=parts.scheduler_config,
        device=device, compute=compute, zero_empty=parts.zero_empty,
    )  # fmt: skip
