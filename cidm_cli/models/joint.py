"""What architectures have in common whose transformer takes what Qwen3 says and a picture as one sequence.

Text enters once, no gradient goes through the encoder, and a concept's tokens are rows of what it gives (``qwen``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from ..bases import families
from ..errors import CidmError
from .base import Base
from .family import Parts
from .identity import settings_folder
from .loading import read_alone, read_encoder, read_part
from .pretrained import has_words
from .qwen import Reader, letters
from .schedules import FLOW


@dataclass(frozen=True)
class Made:
    """What the parts of a family are made of."""

    transformer: Any
    """Its class in diffusers."""
    vae: Any
    """Its class in diffusers."""
    reader: Callable[[Qwen3Model], Reader]
    """What is heard of the language model."""
    takes: Callable[[Any], tuple[int, int]]
    """Given the transformer's settings: numbers of a text's row, and channels of the VAE."""


def read(made: Made, place: Path, *, dtype: torch.dtype, vae: Path | None, full: bool) -> Parts:
    """The parts with their weights (``family.Architecture``)."""
    if vae is None:
        own = read_part(made.vae, place, "vae", dtype=torch.float32, full=full)
    else:
        own = read_alone(made.vae, vae, full=full)
    denoiser = read_part(made.transformer, place, "transformer", dtype=dtype, full=full)
    reader = made.reader(read_encoder(Qwen3Model, place, "text_encoder", dtype=dtype, full=full))
    return _checked(made, Parts(denoiser, own, (reader,), (_tokenizer(place),), _schedule(place)))


def outline(made: Made, place: Path, *, vae: Path | None) -> Parts:
    """The same on the meta device, without weights."""
    kinds = (made.transformer, place / "transformer"), (made.vae, vae or place / "vae")
    # Settings that come with this program have their vocabulary elsewhere.
    words = (
        letters() if place in map(settings_folder, (one.name for one in families())) else _tokenizer(place)
    )
    with torch.device("meta"):
        denoiser, own = (
            cls.from_config(cls.load_config(where, local_files_only=True)) for cls, where in kinds
        )
        reader = made.reader(Qwen3Model(Qwen3Config.from_json_file(place / "text_encoder" / "config.json")))
        return _checked(made, Parts(denoiser, own, (reader,), (words,), _schedule(place)))


def _tokenizer(folder: Path) -> Qwen2Tokenizer:
    return Qwen2Tokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)


def _schedule(folder: Path) -> dict[str, Any]:
    told = FlowMatchEulerDiscreteScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
    return {**told, "prediction_type": FLOW}


def _checked(made: Made, parts: Parts) -> Parts:
    """Refuses, with ValueError, parts that do not go together or a tokenizer that knows no words."""
    given = parts.encoders[0].width, parts.vae.config.latent_channels
    for what, own, taken in zip(
        ("text encoder", "VAE"), given, made.takes(parts.denoiser.config), strict=True
    ):
        if own != taken:
            raise ValueError(f"its {what} gives {own} numbers a position, and its transformer takes {taken}")
    if not has_words(parts.tokenizers[0]):
        raise ValueError("its tokenizer has no vocabulary")
    # Pictures of 1024 pixels are decoded one after another: a batch of them would not fit.
    parts.vae.enable_slicing()
    return parts


def layers(kinds: Sequence[str], denoiser: Any) -> tuple[str, ...]:
    """The blocks of the transformer's lists of those names, in forward order."""
    return tuple(f"{kind}.{n}" for kind in kinds for n in range(len(denoiser.get_submodule(kind))))


def groups(kinds: Sequence[str], denoiser: Any) -> tuple[int, ...]:
    """All blocks see the same tokens."""
    return (0,) * len(layers(kinds, denoiser))


def feature_source(fed_alike: Mapping[str, str], site: str) -> str:
    """The first of the sites that are fed what ``site`` is fed.

    Args:
        fed_alike: the name of a block's layer that stands for another's.
    """
    block, _, leaf = site.rpartition(".")
    return f"{block}.{fed_alike.get(leaf, leaf)}"


def pixels(base: Base) -> int:
    """Side of the square picture the base was trained on."""
    return base.vae.config.sample_size


def sees_text(site: str) -> bool:
    """In a joint attention, text changes with the picture."""
    return False


def routed() -> None:
    """Without boxes nothing keeps concepts apart: text and image are one sequence."""


def follows() -> bool:
    """There are no ControlNets for it that are read."""
    return False


def trainable(base: Base, *, spare: bool = False) -> AbstractContextManager[None]:
    """It computes as ever."""
    return nullcontext()


@contextmanager
def checkpointed(base: Base, *, denoiser: bool) -> Iterator[None]:
    """While open, the blocks keep only their inputs for the backward pass."""
    if denoiser:
        base.denoiser.enable_gradient_checkpointing()
    try:
        yield
    finally:
        base.denoiser.disable_gradient_checkpointing()


def texts_are_large(base: Base, copies: int) -> bool:
    """No gradients go through the text encoder."""
    return False


def add_word(pipe: Any, word: str, vectors: Mapping[str, torch.Tensor]) -> None:
    """Raises CidmError: the pipeline's text encoder gives rows, and is given none."""
    raise CidmError(
        f"{word}: tokens of this base are rows of what its text encoder gives, and no words of diffusers' pipeline",
        hint="draw with generate()",
    )
