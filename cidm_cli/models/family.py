"""The seam between the program and the models it draws with: what differs from one architecture to the next.

An architecture is a module with these functions, named by a ``bases.Family``: ``sd``, ``flux2`` and ``zimage``. What
needs no torch (defaults, sizes, what to fetch) is said there, in ``bases.Family``. All else is the same for all: the
noise follows from the scheduler's settings (``schedules``), and whatever is learned and drawn goes through a ``Base``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from ..formats.lora import Names

if TYPE_CHECKING:
    from .base import Base
    from .structure import Condition
    from .text import Piece, Slot, Tokens


@dataclass(frozen=True)
class Parts:
    """What a base is made of, on the CPU."""

    denoiser: Any
    vae: Any
    encoders: tuple[Any, ...]
    """Its text encoders."""
    tokenizers: tuple[Any, ...]
    """One of each text encoder."""
    scheduler_config: dict[str, Any]
    """diffusers' settings of the noise schedule; "prediction_type" is the objective (``method.objective``)."""
    zero_empty: bool = False
    """Whether an empty prompt is embedded as zeros."""


Factors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Of each LoRA site: up [out, r] and down [r, in]; what they are scaled by is in ``up``."""


@dataclass(frozen=True)
class Own:
    """A concept that keeps to its own words and cells."""

    factors: Factors
    words: torch.Tensor
    """1 at its own tokens of the text [tokens]"""
    rows: torch.Tensor
    """Its part in each row of the text [tokens]: there its changes of keys and values act."""


@dataclass(frozen=True)
class Source:
    """What a part of a picture is drawn from."""

    contexts: Sequence[torch.Tensor]
    """The text as each layer sees it, [tokens, width]."""
    factors: Factors
    pooled: torch.Tensor | None = None
    """The text as a whole [width], where the base wants it."""
    own: tuple[Own, ...] = ()
    """Concepts that are kept apart; all sources of a batch have the same, in one order."""


@dataclass(frozen=True)
class Routing:
    """How the cells of a batch's rows are dealt out to concepts that are kept apart."""

    told_by: tuple[int, ...]
    """Of each row, the one whose text says it: without a prompt a picture follows what is seen with it."""
    decide: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    """Given how much each cell attends to each concept's words [rows, concepts, height, width]: each concept's part of
    each cell, and how much less the cell looks at its words, in logits; both alike."""


@dataclass(frozen=True)
class Rows:
    """Which source each part of each row of a batch is drawn from."""

    whole: tuple[int, ...]
    """The source of each row, where no patch is."""
    patches: tuple[int, ...]
    """The source of each patch."""
    weights: Callable[[tuple[int, int]], torch.Tensor]
    """Given a grid (width, height): each patch's share of each cell of each row, [patches, rows, height, width]; in
    no cell do they sum to more than 1."""
    routing: Routing | None = None
    """How cells are dealt out; None where all concepts are drawn everywhere."""


class Regions(Protocol):
    """Drawing regions by texts and weights of their own, all in one pass of the denoiser."""

    def cached(self, base: Base, sources: Sequence[Source]) -> Any:
        """All that depends on the sources alone."""

    def arranged(self, base: Base, cache: Any, rows: Rows, size: tuple[int, int]) -> Any:
        """A batch of rows of latents of a size (width, height), drawn from the cache's sources."""

    def predict(
        self, base: Base, latents: torch.Tensor, t: torch.Tensor, rows: Any, followed: Condition | None = None
    ) -> torch.Tensor:
        """As ``Architecture.predict``, for rows that ``arranged`` gave."""


class Architecture(Protocol):
    """How the models of a family are built and asked. Names of layers are those of the denoiser's submodules."""

    # Parts

    def read(self, place: Path, *, dtype: torch.dtype, vae: Path | None, full: bool) -> Parts:
        """A base's parts with their weights, the VAE in float32; raises whatever it may for one that is not whole."""

    def outline(self, place: Path, *, vae: Path | None) -> Parts:
        """The same on the meta device, without weights."""

    # Sizes

    def pixels(self, base: Base) -> int:
        """Side of the square picture the base was trained on."""

    def factor(self, base: Base) -> int:
        """Pixels a latent cell spans."""

    def channels(self, base: Base) -> int:
        """Of latents."""

    def multiple(self, base: Base) -> int:
        """What a picture's sides must be multiples of, in pixels."""

    def grids(self, base: Base, size: tuple[int, int]) -> list[tuple[int, int]]:
        """For latents of a width and height, those of each map at which they are looked at, the coarsest last."""

    def to_latents(self, base: Base, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the scaled latents of pixels [N, 3, height, width] from -1 to 1."""

    def to_pixels(self, base: Base, latents: torch.Tensor) -> torch.Tensor:
        """The way back, from -1 to 1 and a little beyond."""

    # Layers and sites

    def layers(self, denoiser: Any) -> tuple[str, ...]:
        """The layers at which concepts are weighted, in forward order: those that attend to text."""

    def groups(self, denoiser: Any) -> tuple[int, ...]:
        """For each layer, the number of the copy of a concept's tokens that it sees; all 0 where text enters once."""

    def sites(self, denoiser: Any, targets: str) -> tuple[str, ...]:
        """The linear layers that a LoRA sits on, in forward order."""

    def site_layers(self, denoiser: Any) -> dict[str, int]:
        """The number of the layer that each site belongs to, of all sites that any file may change."""

    def parts(self, denoiser: Any) -> Mapping[str, Sequence[int]]:
        """Of sites that are several matrices one below the other, how many rows each of them has."""

    def feature_source(self, site: str) -> str:
        """The first of the sites that are fed what ``site`` is fed."""

    def sees_text(self, site: str) -> bool:
        """Whether a site is fed what the text encoders give, the same at every step; it is then some layer's ``to_k``
        or ``to_v``."""

    # Prompts

    def tokenize(self, base: Base, parts: Sequence[str | Slot]) -> Tokens:
        """A prompt as the text encoders read it, given as stretches of text and concepts, in order."""

    def chunks(self, base: Base, pieces: Sequence[Piece]) -> tuple[Tokens, ...]:
        """A prompt of any length, in as many parts as the text encoders need; no concept is cut in two."""

    def room(self, base: Base) -> int:
        """Tokens that a prompt may have."""

    def pieces(self, base: Base, noun: str) -> list[str]:
        """The tokens of a class noun, as they are written."""

    def noun_vectors(self, base: Base, noun: str) -> torch.Tensor:
        """What stands for a class noun where a concept's tokens would [n_tokens, width]."""

    def token_table(self, base: Base) -> torch.Tensor:
        """Vectors like those of concepts' tokens [many, width]: new ones are drawn from their distribution."""

    def token_widths(self, base: Base) -> list[int]:
        """Of a concept's token, the width of the part for each text encoder."""

    def embedded(
        self, base: Base, prompts: Sequence[Tokens], mask: torch.Tensor | None, given: torch.Tensor | None
    ) -> torch.Tensor:
        """Text embeddings [rows, tokens, width]; rows is a multiple of the prompts.

        Where ``mask`` [rows, tokens] is set, the tokens are not looked up, but are ``given`` [rows, tokens, width].
        """

    def pooled(self, base: Base, prompts: Sequence[Tokens]) -> torch.Tensor | None:
        """The prompts as wholes [batch, width], where the denoiser wants them."""

    # Prediction

    def predict(
        self,
        base: Base,
        latents: torch.Tensor,
        t: torch.Tensor,
        contexts: Sequence[torch.Tensor],
        pooled: torch.Tensor | None,
        sizes: torch.Tensor | None,
        followed: Condition | None,
    ) -> torch.Tensor:
        """What ``Base.predict`` gives."""

    def regions(self) -> Regions | None:
        """How regions are drawn; None for an architecture that has no such way: layouts with regions are refused."""

    def routed(self) -> Regions | None:
        """How concepts of one prompt are kept apart without boxes: rows without patches, of sources with ``own``.

        None for an architecture that has no such way: the methods of drawing that need it are refused.
        """

    def follows(self) -> bool:
        """Whether there are ControlNets and T2I-Adapters for it (``structure``)."""

    # Computing

    def trainable(self, base: Base, *, spare: bool = False) -> AbstractContextManager[None]:
        """While open, gradients through the base cost less (``trainable``); it may do nothing."""

    def checkpointed(self, base: Base, *, denoiser: bool) -> AbstractContextManager[None]:
        """While open, inner values are computed again for the gradients (``checkpointing``)."""

    def texts_are_large(self, base: Base, copies: int) -> bool:
        """Whether encoders are ``checkpointed`` unasked, for a concept with so many sets of tokens."""

    def is_block(self, name: str, module: nn.Module) -> bool:
        """Whether a module of the denoiser is compiled by ``--compile``."""

    # Other programs

    def pipeline(self, base: Base) -> Any:
        """A stock diffusers pipeline of the base's parts; None where there is none."""

    def add_word(self, pipe: Any, word: str, vectors: Mapping[str, torch.Tensor]) -> None:
        """Makes the vectors of an embedding file a word of that pipeline."""

    def names(self, denoiser: Any) -> Names:
        """What LoRA files of other programs call the sites."""


if TYPE_CHECKING:
    from . import flux2, sd, zimage

    _sd: Architecture = sd
    _flux2: Architecture = flux2
    _zimage: Architecture = zimage
