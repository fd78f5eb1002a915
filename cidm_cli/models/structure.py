"""Following a given structure: what a ControlNet or T2I-Adapter adds to the UNet's own features.

The models hear no concept: where they attend to text, as ControlNets do, they are told the prompt with class nouns in
the concepts' places. They were trained on plain words, and a concept's tokens differ from layer to layer of the UNet,
whose layers have no counterpart in theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, T2IAdapter
from PIL import Image

from ..errors import CidmError, ExitCode
from .base import Base
from .building import building
from .control_files import ControlFiles
from .loading import settle
from .offload import present
from .settings import check_settings

Window = tuple[int, int, int, int]
"""Cells x0, y0, x1, y1 of the latents, the last two outside."""


@dataclass(frozen=True)
class Control:
    """A ControlNet or T2I-Adapter, frozen; where the base's UNet is, or waits."""

    model: ControlNetModel | T2IAdapter
    files: ControlFiles

    @property
    def channels(self) -> int:
        """Of the pictures it looks at: 1 or 3."""
        config = self.model.config
        return config.in_channels if self.files.kind == "t2i-adapter" else config.conditioning_channels


@dataclass(frozen=True)
class Guide:
    """A structure that a picture of one size follows."""

    control: Control
    pixels: torch.Tensor
    """[1, channels, height, width], from 0 to 1"""
    scale: float
    steps: frozenset[int]
    """The numbers of those at which it is followed."""


@dataclass(frozen=True)
class Condition:
    """What is followed in each row of a batch."""

    control: Control
    scale: float
    pixels: torch.Tensor
    """[rows, channels, height, width], from 0 to 1"""
    texts: torch.Tensor
    """[rows, tokens, width]"""
    features: tuple[torch.Tensor, ...] = ()
    """What a T2I-Adapter makes of the pixels, [rows, channels, h, w] at each block; it does not depend on the step."""


def load(base: Base, files: ControlFiles) -> Control:
    """Loads a model: safetensors only, no code from its folder runs. It is kept as the base's UNet is.

    Raises:
        CidmError: INVALID when diffusers cannot read it, it is not whole, or it does not fit the base.
    """
    if not base.architecture.follows():
        raise _refused(files, f"bases of the family {base.family.name} follow no structure", "fitting")
    cls: Any = T2IAdapter if files.kind == "t2i-adapter" else ControlNetModel
    check_settings(files.folder)
    with building(lambda why: _refused(files, f"diffusers cannot load it ({why})", "whole")):
        model = cls.from_pretrained(
            files.folder, dtype=base.denoiser.dtype, variant=files.variant, use_safetensors=True,
            local_files_only=True,
        )  # fmt: skip
    absent = next((name for name, parameter in model.named_parameters() if parameter.is_meta), None)
    if absent:
        raise _refused(files, f"it holds no weights for {absent}", "whole")
    settle(model.requires_grad_(False).eval().to(base.denoiser.device))
    control = Control(model, files)
    unfit = _unfit_adapter(base, control) if files.kind == "t2i-adapter" else _unfit_controlnet(base, control)
    if unfit:
        raise _refused(files, f"it does not fit the base: {unfit}", "fitting")
    return control


def in_pixels(base: Base, control: Control, picture: Image.Image) -> torch.Tensor:
    """A picture as the model looks at it, [1, channels, height, width], from 0 to 1."""
    array = np.asarray(picture.convert("RGB" if control.channels == 3 else "L"), np.float32) / 255
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))[None].to(base.device, control.model.dtype)


@torch.no_grad()
def condition(
    base: Base, guide: Guide, texts: torch.Tensor, windows: Sequence[Window | None] | None = None
) -> Condition:
    """What the rows of a batch follow.

    Args:
        texts: of each row, [rows, tokens, width].
        windows: the part of the latents that each row looks at, all of one size; None for the whole.
    """
    where = [None] * len(texts) if windows is None else windows
    different = list(dict.fromkeys(where))
    parts = torch.cat([_part(base, guide.pixels, window) for window in different])
    rows = [different.index(window) for window in where]
    features: tuple[torch.Tensor, ...] = ()
    if isinstance(guide.control.model, T2IAdapter):
        with present(base.device, guide.control.model), base.autocast():
            features = tuple(guide.scale * made[rows] for made in guide.control.model(parts))
    return Condition(guide.control, guide.scale, parts[rows], texts, features)


def residuals(
    followed: Condition,
    latents: torch.Tensor,
    t: torch.Tensor,
    added: Mapping[str, torch.Tensor] | None,
) -> dict[str, Any]:
    """What the UNet is given besides its own inputs, by the names of its arguments.

    Args:
        latents: the UNet's own, scaled [rows, channels, h, w].
        added: what SDXL's UNet is told besides; its ControlNets are told it, too.
    """
    model = followed.control.model
    if isinstance(model, T2IAdapter):
        # The UNet takes them off the list one by one.
        return {"down_intrablock_additional_residuals": list(followed.features)}
    down, middle = model(
        latents,
        t,
        followed.texts,
        followed.pixels,
        followed.scale,
        added_cond_kwargs=added,
        return_dict=False,
    )
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _part(base: Base, pixels: torch.Tensor, window: Window | None) -> torch.Tensor:
    if window is None:
        return pixels
    x0, y0, x1, y1 = (edge * base.factor for edge in window)
    return pixels[:, :, y0:y1, x0:x1]


def _unfit_controlnet(base: Base, control: Control) -> str:
    """Why a ControlNet cannot be used with a base; empty where it can."""
    told, unet = control.model.config, base.denoiser.config
    for name, word in (
        ("cross_attention_dim", "it attends to text of width"),
        ("block_out_channels", "its blocks have channels"),
        ("layers_per_block", "the layers of its blocks are"),
        ("in_channels", "the channels of its latents are"),
        ("addition_embed_type", "besides the text it is told"),
        ("projection_class_embeddings_input_dim", "besides the text it is told numbers,"),
    ):
        theirs, own = (_listed(config.get(name)) for config in (told, unet))
        if theirs != own:
            return f"{word} {theirs}, and the base's {own}"
    if told.global_pool_conditions:
        return "it follows an image's contents and not its structure"
    if control.channels not in (1, 3):
        return f"it looks at images of {control.channels} channels"
    across = 2 ** (len(told.conditioning_embedding_out_channels) - 1)
    if across != base.factor:
        return f"its cells are {across} pixels wide, and the base's {base.factor}"
    return ""


def _unfit_adapter(base: Base, control: Control) -> str:
    """Why a T2I-Adapter cannot be used with a base; empty where it can."""
    if control.channels not in (1, 3):
        return f"it looks at images of {control.channels} channels"
    side = 2 ** len(base.denoiser.config.block_out_channels)
    pixels = torch.zeros(1, control.channels, *[side * base.factor] * 2, device=base.device)
    try:
        with present(base.device, control.model), torch.no_grad(), base.autocast():
            made = [tuple(f.shape[1:]) for f in control.model(pixels.to(control.model.dtype))]
    except (RuntimeError, ValueError, IndexError) as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    wanted = _taken(base, side)
    # The last one is the middle block's, for those that make it.
    if made not in (wanted, wanted[:-1]):
        theirs, own = (", ".join(" x ".join(map(str, shape)) for shape in some) for some in (made, wanted))
        return f"it makes features of {theirs}, and the base takes {own}"
    return ""


def _taken(base: Base, side: int) -> list[tuple[int, int, int]]:
    """The shapes (channels, h, w) that the UNet adds to its blocks for latents of a side, the middle block's last."""
    channels = base.denoiser.config.block_out_channels
    shapes = []
    for block, count in zip(base.denoiser.down_blocks, channels, strict=True):
        # A block that attends adds them before it halves, others after it.
        halved = side if block.downsamplers is None else side // 2
        at = side if getattr(block, "has_cross_attention", False) else halved
        shapes.append((count, at, at))
        side = halved
    return [*shapes, (channels[-1], side, side)]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _refused(files: ControlFiles, why: str, should: str) -> CidmError:
    hints = {
        "whole": "check that it is whole, or fetch it again",
        "fitting": "give a ControlNet or T2I-Adapter that was made for the base's family",
    }
    return CidmError(f"--control {files.source}: {why}", hint=hints[should], code=ExitCode.INVALID)
