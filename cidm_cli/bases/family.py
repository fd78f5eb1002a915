"""What is said of a family of bases: all that differs between families and needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEGA = 1 << 20
JUDGES = {"clip": "openai/clip-vit-base-patch32", "dino": "facebook/dino-vits16"}
"""The paper's judges."""


@dataclass(frozen=True)
class Preset:
    """What ``--vram`` fills in for a memory where nothing else is said."""

    whole: int
    """Pixels of a picture up to which the VAE takes it as a whole."""
    offload: bool = False
    """Whether parts of the base wait in main memory."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the command, by field."""
    precision: str = "half"
    """What "auto" stands for."""


@dataclass(frozen=True)
class Sizes:
    """How finely a base sees a picture, read from its folder. Each raises CidmError INVALID where that does not say."""

    default: Callable[[Path], tuple[int, int]]
    """Width and height in pixels of what it draws unless told otherwise."""
    multiple: Callable[[Path], int]
    """What a picture's sides must be multiples of, in pixels."""
    coarsest: Callable[[Path, tuple[int, int]], tuple[int, int]]
    """Cells, across and down, of the coarsest map at which it attends to text in a picture of so many pixels."""


@dataclass(frozen=True)
class InFiles:
    """What LoRA files say of the family in their metadata."""

    version: str
    """kohya's ss_base_model_version."""
    architecture: str
    """ModelSpec's, without "/lora"."""
    implementation: str
    """ModelSpec's: the code that names the layers."""
    accepted: tuple[str, ...]
    """What ss_base_model_version may begin with for a file to fit."""
    prefix: str = "unet."
    """What diffusers puts before the names of the denoiser's layers."""


@dataclass(frozen=True)
class Family:
    """A family of bases; ``models.family.Architecture`` is how one computes."""

    name: str
    """What a registry calls it, and ``--base`` where ``hub`` is set."""
    pipeline: str
    """The class in a folder's model_index.json; empty where no folder of a user is of the family."""
    architecture: str
    """The module that computes with its models, imported when one is loaded."""
    parts: Mapping[str, str]
    """The folders with weights, the denoiser's first, and what the files in each are called."""
    targets: tuple[str, ...]
    """What ``--targets`` may be; the first takes the least memory."""
    learn: Mapping[str, Any]
    """Defaults of learning, by field; "targets" among them."""
    draw: Mapping[str, Any]
    """Defaults of drawing, by field."""
    sizes: Sizes
    files: InFiles
    judges: Mapping[str, str] = field(default_factory=lambda: JUDGES)
    """Who judges where a base brings nobody along; "none" for "dino" is no second judge."""
    refused: Callable[[Mapping[str, Any], Path], str] = lambda config, folder: ""
    """Given the denoiser's settings and the folder: what a model of that pipeline is that cannot be used, or empty."""
    told_sizes: bool = False
    """Whether the denoiser is told each picture's size and cutting, [height, width, top, left, height, width]."""
    memory: Mapping[str, Mapping[int, Preset]] = field(default_factory=dict)
    """For "learn" and "draw", what fits on a GPU of so many gigabytes; without it, it fits on any."""
    hub: str = ""
    """The well-known base of the family on the hub."""
    elsewhere: bool = True
    """Whether other programs can load its bases."""
    references: bool = False
    """Whether reference images come along, to judge by where none are given."""
    side: int | None = None
    """Pixels of an image's shorter side from which on its bases do it no justice."""
    beyond: str = ""
    """What they do draw, told of such images, and where to go with them."""
    marks: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] = lambda index, schedule: True
    """Whether a folder of that pipeline is of the family, by its model_index.json and the settings of its schedule."""
    guided: bool = True
    """Whether guidance leads away from a negative prompt; a distilled base is asked with the prompt alone."""
    texts_once: bool = False
    """Whether a concept's tokens are rows of what the text encoders give; learning then asks these once a caption."""
    shift: Callable[[int, int], float] | None = None
    """Of a rectified flow, how much of the drawing goes to much noise, for latents of so many cells in so many steps;
    None: as the schedule says."""

    @property
    def denoiser(self) -> str:
        """The folder of the part that predicts."""
        return next(iter(self.parts))

    def doubts(self, sizes: Sequence[tuple[int, int]]) -> str | None:
        """What to tell of images of these widths and heights that its bases do no justice to; None where they do."""
        large = sum(self.side is not None and min(size) > self.side for size in sizes)
        if not large:
            return None
        return f"{large} of {len(sizes)} images are larger than {self.side} pixels, {self.beyond}"
