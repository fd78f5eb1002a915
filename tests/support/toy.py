"""A family of another architecture and objective, in one file: a transformer with joint attention and rectified flow.

Text enters once, so that a concept has one set of tokens: rows of what the text encoder gives. Its words are bytes. A
region is drawn by predicting each source for the whole picture and blending the predictions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

import tiny
from cidm_cli.bases import Family, InFiles, Sizes
from cidm_cli.formats.lora import Names
from cidm_cli.models.base import Base
from cidm_cli.models.family import Parts, Rows, Source
from cidm_cli.models.kl import factor, to_latents, to_pixels
from cidm_cli.models.lora import merged
from cidm_cli.models.offload import present
from cidm_cli.models.text import Piece, Slot, Tokens

__all__ = ["factor", "to_latents", "to_pixels"]

WIDTH, ROOM, HEADS, BLOCKS, SIDE = 16, 40, 2, 2, 64
STEM = "diffusion_pytorch_model"
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

FAMILY = Family(
    name="toy",
    pipeline="ToyPipeline",
    architecture="toy",
    parts={"transformer": STEM, "words": STEM, "vae": STEM},
    targets=("joint", "joint+mlp"),
    learn={"steps": 4, "batch": 2, "lr": 2e-2, "token_lr": 5e-2, "buckets": False, "targets": "joint"},
    draw={"steps": 3, "guidance": 3.0},
    sizes=Sizes(
        lambda folder: (SIDE, SIDE), lambda folder: 8, lambda folder, size: (size[0] // 8, size[1] // 8)
    ),
    files=InFiles("toy", "toy", "diffusers", ("toy",), prefix="transformer."),
)


class Joint(nn.Module):
    """Attention of a picture's cells and a text's tokens to both."""

    def __init__(self) -> None:
        super().__init__()
        for name in PROJECTIONS:
            setattr(self, name, nn.Linear(WIDTH, WIDTH))

    def forward(self, cells: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        queries, keys, values = (
            torch.cat([getattr(self, f"to_{n}")(cells), getattr(self, f"add_{n}_proj")(words)], 1)
            .unflatten(-1, (HEADS, -1))
            .transpose(1, 2)
            for n in "qkv"
        )
        out = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
        return self.to_out(out[:, : cells.shape[1]]), self.to_add_out(out[:, cells.shape[1] :])


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = Joint(), nn.Linear(WIDTH, WIDTH)

    def forward(self, cells: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen, heard = self.attn(F.layer_norm(cells, (WIDTH,)), F.layer_norm(words, (WIDTH,)))
        cells = cells + seen
        return cells + self.mlp(F.silu(cells)), words + heard


class Transformer(ModelMixin, ConfigMixin):
    """Latents and a text to a velocity."""

    @register_to_config
    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(channels, WIDTH), nn.Linear(WIDTH, channels)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))

    def forward(self, latents: torch.Tensor, sigma: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        height, width = latents.shape[-2:]
        places = torch.arange(height * width, device=latents.device)
        cells = self.enter(latents.flatten(2).transpose(1, 2)) + _waves(places)[None]
        cells = cells + _waves(100 * sigma.expand(len(latents)))[:, None]
        for block in self.blocks:
            cells, words = block(cells, words)
        return self.leave(cells).transpose(1, 2).unflatten(2, (height, width))


class Words(ModelMixin, ConfigMixin):
    """Bytes to embeddings, each of which hears of those before it."""

    @register_to_config
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(257, width), nn.Linear(width, width)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = self.table(ids)
        return rows + torch.tanh(self.mix(rows.cumsum(1)))


def _waves(numbers: torch.Tensor) -> torch.Tensor:
    rates = torch.exp(torch.arange(WIDTH // 2, device=numbers.device) * (-math.log(100) / (WIDTH // 2)))
    angles = numbers[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def save(folder: Path) -> Path:
    """Writes a base of the family."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(19)
        for part, model in (("transformer", Transformer()), ("words", Words()), ("vae", tiny.autoencoder())):
            model.save_pretrained(folder / part)
    schedule = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.5}
    for file, content in (
        ("model_index.json", {"_class_name": FAMILY.pipeline}),
        ("scheduler/scheduler_config.json", schedule),
    ):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))
    return folder


# -- cidm_cli.models.family.Architecture ------------------------------------------------------------------------


def read(place: Path, *, dtype: torch.dtype, vae: Path | None, full: bool) -> Parts:
    denoiser, words = (
        cls.from_pretrained(place, subfolder=part, dtype=dtype, use_safetensors=True, local_files_only=True)
        for cls, part in ((Transformer, "transformer"), (Words, "words"))
    )
    own = AutoencoderKL.from_pretrained(vae or place / "vae", use_safetensors=True, local_files_only=True)
    return Parts(denoiser, own, (words,), (), _schedule(place))


def outline(place: Path, *, vae: Path | None) -> Parts:
    with torch.device("meta"):
        own = AutoencoderKL.from_config(AutoencoderKL.load_config(vae or place / "vae"))
        return Parts(Transformer(), own, (Words(),), (), _schedule(place))


def _schedule(place: Path) -> dict[str, Any]:
    told = json.loads((place / "scheduler" / "scheduler_config.json").read_text())
    return {**told, "prediction_type": "flow_prediction"}


def pixels(base: Base) -> int:
    return SIDE


def channels(base: Base) -> int:
    return base.denoiser.config.channels


def multiple(base: Base) -> int:
    return base.factor


def grids(base: Base, size: tuple[int, int]) -> list[tuple[int, int]]:
    return [size]


def layers(denoiser: Transformer) -> tuple[str, ...]:
    return tuple(f"blocks.{n}.attn" for n in range(BLOCKS))


def groups(denoiser: Transformer) -> tuple[int, ...]:
    return (0,) * BLOCKS


def sites(denoiser: Transformer, targets: str) -> tuple[str, ...]:
    mlp = targets == "joint+mlp"
    return tuple(site for site in site_layers(denoiser) if mlp or not site.endswith("mlp"))


def site_layers(denoiser: Transformer) -> dict[str, int]:
    return {f"blocks.{n}.{s}": n for n in range(BLOCKS) for s in (*(f"attn.{p}" for p in PROJECTIONS), "mlp")}


def parts(denoiser: Transformer) -> dict[str, tuple[int, ...]]:
    return {}


def feature_source(site: str) -> str:
    same = {"to_k": "to_q", "to_v": "to_q", "add_k_proj": "add_q_proj", "add_v_proj": "add_q_proj"}
    block, _, leaf = site.rpartition(".")
    return f"{block}.{same.get(leaf, leaf)}"


def sees_text(site: str) -> bool:
    return False


def tokenize(base: Base, parts: Sequence[str | Slot]) -> Tokens:
    ids: list[int] = []
    slots: list[tuple[int, str, int]] = []
    for part in parts:
        if isinstance(part, Slot):
            slots += [(len(ids) + k, part.name, k) for k in range(part.tokens)]
            ids += [256] * part.tokens
        else:
            ids += part.encode()
    lost = tuple(dict.fromkeys(name for position, name, _ in slots if position >= ROOM))
    body, kept = ids[:ROOM], tuple(slot for slot in slots if slot[0] < ROOM)
    return Tokens(
        (*body, *[0] * (ROOM - len(body))), kept, len(body), cut=len(ids) > ROOM, lost=lost, first=0
    )  # fmt: skip


def chunks(base: Base, pieces: Sequence[Piece]) -> tuple[Tokens, ...]:
    return (tokenize(base, [piece.part for piece in pieces]),)


def room(base: Base) -> int:
    return ROOM


def pieces(base: Base, noun: str) -> list[str]:
    return [chr(byte) for byte in noun.encode()]


def noun_vectors(base: Base, noun: str) -> torch.Tensor:
    return embedded(base, [tokenize(base, [noun])], None, None)[0, : len(noun.encode())].detach()


def token_table(base: Base) -> torch.Tensor:
    return base.encoders[0](torch.arange(256, device=base.device)[:, None])[:, 0].detach()


def token_widths(base: Base) -> list[int]:
    return [WIDTH]


def embedded(
    base: Base, prompts: Sequence[Tokens], mask: torch.Tensor | None, given: torch.Tensor | None
) -> torch.Tensor:
    with present(base.device, *base.encoders), base.autocast():
        out = base.encoders[0](torch.tensor([prompt.ids for prompt in prompts], device=base.device)).float()
    if mask is None or given is None:
        return out
    return torch.where(mask[..., None], given, out.repeat(len(mask) // len(out), 1, 1))


def pooled(base: Base, prompts: Sequence[Tokens]) -> None:
    return None


def predict(
    base: Base,
    latents: torch.Tensor,
    t: torch.Tensor,
    contexts: Sequence[torch.Tensor],
    pooled: torch.Tensor | None,
    sizes: torch.Tensor | None,
    followed: Any,
) -> torch.Tensor:
    with base.autocast():
        return base.denoiser(latents, t / 1000, contexts[0]).float()


class _Blended:
    """``family.Regions``."""

    def cached(self, base: Base, sources: Sequence[Source]) -> Sequence[Source]:
        return sources

    def arranged(
        self, base: Base, cache: Sequence[Source], rows: Rows, size: tuple[int, int]
    ) -> tuple[Sequence[Source], Rows, torch.Tensor]:
        none = torch.zeros(0, len(rows.whole), size[1], size[0])
        return cache, rows, rows.weights(size) if rows.patches else none

    def predict(
        self, base: Base, latents: torch.Tensor, t: torch.Tensor, rows: Any, followed: Any = None
    ) -> torch.Tensor:
        sources, told, shares = rows
        shares = shares.to(latents)[:, :, None]
        found = {}
        for number in {*told.whole, *told.patches}:
            source = sources[number]
            contexts = [context.expand(len(latents), -1, -1) for context in source.contexts]
            with merged(base.denoiser, {site: up @ down for site, (up, down) in source.factors.items()}):
                found[number] = base.predict(latents, t, contexts)
        whole = torch.stack([found[number][row] for row, number in enumerate(told.whole)])
        patches = sum(share * found[number] for number, share in zip(told.patches, shares, strict=True))
        return whole * (1 - shares.sum(0)) + patches


def regions() -> _Blended:
    return _Blended()


def routed() -> None:
    return None


def follows() -> bool:
    return False


def texts_are_large(base: Base, copies: int) -> bool:
    return False


def trainable(base: Base, *, spare: bool = False) -> AbstractContextManager[None]:
    return nullcontext()


def checkpointed(base: Base, *, denoiser: bool) -> AbstractContextManager[None]:
    return nullcontext()


def is_block(name: str, module: nn.Module) -> bool:
    return False


def pipeline(base: Base) -> None:
    return None


def add_word(pipe: Any, word: str, vectors: Any) -> None:
    raise AssertionError("it has no pipeline")


def names(denoiser: Transformer) -> Names:
    modules = {site: "lora_unet_" + site.replace(".", "_") for site in site_layers(denoiser)}
    same = {site: site for site in modules}
    return Names(modules, {name: site for site, name in modules.items()}, same, same)
