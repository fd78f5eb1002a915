"""The parts of Stable Diffusion 1.x and SDXL: from a diffusers folder, a single file, or on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..bases import families
from ..files.json_files import read_json
from .checkpoint import inspect
from .family import Parts
from .identity import settings_folder
from .loading import read_alone, read_encoder, read_part
from .pretrained import has_words

#: The class of a pipeline with two text encoders.
SECOND = "StableDiffusionXLPipeline"
#: Of each text encoder, its folder, its tokenizer's, its class, and what its tokenizer pads with.
ENCODERS = (
    ("text_encoder", "tokenizer", CLIPTextModel, "<|endoftext|>"),
    ("text_encoder_2", "tokenizer_2", CLIPTextModelWithProjection, "!"),
)


def read(place: Path, *, dtype: torch.dtype, vae: Path | None, full: bool) -> Parts:
    """The parts with their weights (``family.Architecture``)."""
    other = None if vae is None else read_alone(AutoencoderKL, vae, full=full)
    parts = _from_file(place, dtype, other) if place.is_file() else _from_folder(place, dtype, other, full)
    return _checked(parts)


def outline(place: Path, *, vae: Path | None) -> Parts:
    """The same on the meta device, without weights."""
    single = place.is_file()
    about = inspect(place) if single else None
    folder = settings_folder(about.family) if about else place
    second = read_json(folder / "model_index.json")["_class_name"] == SECOND

    def model(cls: Any, where: Path, **subfolder: str) -> Any:
        return cls.from_config(cls.load_config(where, local_files_only=True, **subfolder))

    def words(part: str, pad: str) -> CLIPTokenizer:
        # Settings that come with this program have their vocabulary elsewhere, as a single file's.
        if single or folder in [settings_folder(one.name) for one in families() if one.hub]:
            return clip_tokenizer(pad)
        return CLIPTokenizer.from_pretrained(folder, subfolder=part, local_files_only=True)

    chosen = ENCODERS[: 1 + second]
    with torch.device("meta"):
        return _checked(Parts(
            denoiser=model(UNet2DConditionModel, folder, subfolder="unet"),
            vae=model(AutoencoderKL, vae) if vae else model(AutoencoderKL, folder, subfolder="vae"),
            encoders=tuple(
                cls(CLIPTextConfig.from_json_file(folder / part / "config.json")) for part, _, cls, _ in chosen
            ),
            tokenizers=tuple(words(part, pad) for _, part, _, pad in chosen),
            scheduler_config={**_schedule(folder), **(about.schedule if about else {})},
            zero_empty=second,
        ))  # fmt: skip


def _from_folder(folder: Path, dtype: torch.dtype, vae: AutoencoderKL | None, full: bool) -> Parts:
    index = read_json(folder / "model_index.json")
    second = index.get("_class_name") == SECOND

    chosen = ENCODERS[: 1 + second]
    return Parts(
        denoiser=read_part(UNet2DConditionModel, folder, "unet", dtype=dtype, full=full),
        vae=vae or read_part(AutoencoderKL, folder, "vae", dtype=torch.float32, full=full),
        encoders=tuple(read_encoder(cls, folder, part, dtype=dtype, full=full) for part, _, cls, _ in chosen),
        tokenizers=tuple(
            CLIPTokenizer.from_pretrained(folder, subfolder=part, local_files_only=True)
            for _, part, _, _ in chosen
        ),
        scheduler_config=_schedule(folder),
        zero_empty=second and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _from_file(file: Path, dtype: torch.dtype, vae: AutoencoderKL | None) -> Parts:
    """diffusers' own conversion, with the settings and the vocabulary that come with this program: no network."""
    about = inspect(file)
    folder = settings_folder(about.family)
    second = about.family == "sdxl"
    chosen = ENCODERS[: 1 + second]
    given: dict[str, Any] = {part: clip_tokenizer(pad) for _, part, _, pad in chosen}
    if vae:
        given["vae"] = vae
    given["add_watermarker" if second else "safety_checker"] = False if second else None
    cls = StableDiffusionXLPipeline if second else StableDiffusionPipeline
    pipeline = cls.from_single_file(
        str(file), config=str(folder), dtype=dtype, local_files_only=True, use_safetensors=True, **given
    )
    return Parts(
        denoiser=pipeline.unet, vae=pipeline.vae.float(),
        encoders=tuple(getattr(pipeline, part) for part, _, _, _ in chosen),
        tokenizers=tuple(given[part] for _, part, _, _ in chosen),
        scheduler_config={**_schedule(folder), **about.schedule}, zero_empty=second,
    )  # fmt: skip


def _schedule(folder: Path) -> dict[str, Any]:
    return dict(DDPMScheduler.load_config(folder, subfolder="scheduler", local_files_only=True))


def clip_tokenizer(pad: str) -> CLIPTokenizer:
    """CLIP's own, from its list of merges: the rest of its vocabulary follows from the order it was made in."""
    lines = (settings_folder("clip-tokenizer") / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = (256 + number for number in range(256 - len(printable)))
    bytes_ = [chr(code) for code in (*printable, *others)]
    pieces = [*bytes_, *(f"{byte}</w>" for byte in bytes_), *(left + right for left, right in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)


def _checked(parts: Parts) -> Parts:
    """Refuses, with ValueError, parts that do not go together or a tokenizer that knows no words."""
    width, wanted = (
        sum(e.config.hidden_size for e in parts.encoders),
        parts.denoiser.config.cross_attention_dim,
    )
    if wanted != width:
        raise ValueError(f"its text encoders give {width} numbers a token, and its UNet takes {wanted}")
    words, longest = parts.tokenizers[0], parts.encoders[0].config.max_position_embeddings
    if not 2 < words.model_max_length <= longest:
        length = words.model_max_length
        raise ValueError(f"its tokenizer gives {length} tokens a text, and its text encoder takes {longest}")
    if type(parts.denoiser.config.sample_size) is not int:
        raise ValueError("its UNet does not say the size of its images")
    if not has_words(words):
        raise ValueError("its tokenizer has no vocabulary")
    if words.pad_token_id is None:
        raise ValueError("its tokenizer has no token to fill texts up with")
    if any(other.get_vocab() != words.get_vocab() for other in parts.tokenizers[1:]):
        raise ValueError("its two tokenizers have different vocabularies")
    if len(parts.encoders) > 1:
        # Pictures of 1024 pixels are decoded one after another: a batch of them would not fit.
        parts.vae.enable_slicing()
    return parts
