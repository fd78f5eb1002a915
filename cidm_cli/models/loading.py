"""Reading a base's parts from a diffusers folder or from a single file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..errors import CidmError, ExitCode
from ..files.json_files import read_json
from .building import building
from .checkpoint import inspect
from .identity import PARTS, alone, part_weights
from .pretrained import has_words
from .schedules import check_schedule
from .settings import check_base, check_settings

#: The class of a pipeline with two text encoders.
SECOND = "StableDiffusionXLPipeline"
#: What each of its tokenizers pads with; the first one's is Stable Diffusion 1.x's, too.
FIRST_PAD, SECOND_PAD = "<|endoftext|>", "!"


@dataclass(frozen=True)
class Parts:
    """What a base is made of, on the CPU."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    text_encoder_2: CLIPTextModelWithProjection | None
    tokenizer_2: CLIPTokenizer | None
    scheduler_config: dict[str, Any]
    zero_empty: bool
    """Whether an empty prompt is embedded as zeros."""


def settings_folder(family: str) -> Path:
    """The settings of a family's parts, as a diffusers folder without weights: single files bring none."""
    return Path(__file__).parent.parent / "bases" / family


def load_parts(place: Path, *, dtype: torch.dtype, vae: Path | None, full: bool = False) -> Parts:
    """The parts of a diffusers folder or a single .safetensors file, the VAE in float32, the others in ``dtype``.

    Args:
        full: read from the files in full precision where there are both (``identity.part_weights``).

    Raises:
        CidmError: INVALID when diffusers or transformers cannot read it, or it is not whole.
    """
    _check_settings(place, vae)
    with building(partial(_unreadable, place)):
        other = None if vae is None else _vae(vae, full)
        single = place.is_file()
        parts = _from_file(place, dtype, other) if single else _from_folder(place, dtype, other, full)
        _check_whole(place, parts)
    return parts


def settle(part: nn.Module) -> None:
    """Copies weights that libraries have mapped from a file into memory of their own. On a GPU they are already.

    A file puts them anywhere, and on some processors the last bits of a product depend on whether its operands begin
    at a multiple of 16 bytes. And a file that is cut while it is mapped ends the process.
    """
    for tensor in (*part.parameters(), *part.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def outline_parts(place: Path, *, vae: Path | None) -> Parts:
    """As ``load_parts`` without reading any weights: the models are on the meta device, and compute nothing.

    Raises:
        CidmError: INVALID when the settings are not those of a base.
    """
    _check_settings(place, vae)
    with building(partial(_unreadable, place)):
        parts = _outlined(place, vae)
        _check_together(place, parts)
    return parts


def _check_settings(place: Path, vae: Path | None) -> None:
    """Refuses, before a library reads them, settings that would have it run code or work without end."""
    if place.is_dir():
        check_base(place)
    if vae is not None:
        check_settings(vae)


def _outlined(place: Path, vae: Path | None) -> Parts:
    single = place.is_file()
    about = inspect(place) if single else None
    folder = settings_folder(about.family) if about else place
    second = read_json(folder / "model_index.json")["_class_name"] == SECOND

    def model(cls: Any, where: Path, **subfolder: str) -> Any:
        return cls.from_config(cls.load_config(where, local_files_only=True, **subfolder))

    def words(part: str, pad: str) -> CLIPTokenizer:
        # Settings that come with this program have their vocabulary elsewhere, as a single file's.
        if single or folder in map(settings_folder, PARTS):
            return clip_tokenizer(pad)
        return CLIPTokenizer.from_pretrained(folder, subfolder=part, local_files_only=True)

    def encoder(cls: Any, part: str) -> Any:
        return cls(CLIPTextConfig.from_json_file(folder / part / "config.json"))

    with torch.device("meta"):
        return Parts(
            unet=model(UNet2DConditionModel, folder, subfolder="unet"),
            vae=model(AutoencoderKL, vae) if vae else model(AutoencoderKL, folder, subfolder="vae"),
            text_encoder=encoder(CLIPTextModel, "text_encoder"),
            tokenizer=words("tokenizer", FIRST_PAD),
            text_encoder_2=encoder(CLIPTextModelWithProjection, "text_encoder_2") if second else None,
            tokenizer_2=words("tokenizer_2", SECOND_PAD) if second else None,
            scheduler_config={**_schedule(folder), **(about.schedule if about else {})},
            zero_empty=second,
        )


def _from_folder(folder: Path, dtype: torch.dtype, vae: AutoencoderKL | None, full: bool) -> Parts:
    index = read_json(folder / "model_index.json")
    second = index.get("_class_name") == SECOND

    def read(cls: Any, part: str, dtype: torch.dtype = dtype, **more: Any) -> Any:
        weights = part_weights(folder, part, full=full)
        return cls.from_pretrained(
            folder, subfolder=part, dtype=dtype, variant=weights.variant if weights else None,
            use_safetensors=True, local_files_only=True, **more,
        )  # fmt: skip

    def encoder(cls: Any, part: str) -> Any:
        model, told = read(cls, part, output_loading_info=True)
        # transformers fills what it does not find with random numbers; diffusers leaves it on the meta device.
        for name in sorted(told["missing_keys"]):
            raise _unreadable(folder, _no_weights(model, name))
        return model

    def words(part: str) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(folder, subfolder=part, local_files_only=True)

    return Parts(
        unet=read(UNet2DConditionModel, "unet"),
        vae=vae or read(AutoencoderKL, "vae", torch.float32),
        text_encoder=encoder(CLIPTextModel, "text_encoder"),
        tokenizer=words("tokenizer"),
        text_encoder_2=encoder(CLIPTextModelWithProjection, "text_encoder_2") if second else None,
        tokenizer_2=words("tokenizer_2") if second else None,
        scheduler_config=_schedule(folder),
        zero_empty=second and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _from_file(file: Path, dtype: torch.dtype, vae: AutoencoderKL | None) -> Parts:
    """diffusers' own conversion, with the settings and the vocabulary that come with this program: no network."""
    about = inspect(file)
    folder = settings_folder(about.family)
    given: dict[str, Any] = {"tokenizer": clip_tokenizer(FIRST_PAD)}
    if vae:
        given["vae"] = vae
    if about.family == "sdxl":
        cls, given["tokenizer_2"], given["add_watermarker"] = (
            StableDiffusionXLPipeline,
            clip_tokenizer(SECOND_PAD),
            False,
        )
    else:
        cls, given["safety_checker"] = StableDiffusionPipeline, None
    pipeline = cls.from_single_file(
        str(file), config=str(folder), dtype=dtype, local_files_only=True, use_safetensors=True, **given
    )
    return Parts(
        unet=pipeline.unet, vae=pipeline.vae.float(),
        text_encoder=pipeline.text_encoder, tokenizer=given["tokenizer"],
        text_encoder_2=getattr(pipeline, "text_encoder_2", None), tokenizer_2=given.get("tokenizer_2"),
        scheduler_config={**_schedule(folder), **about.schedule}, zero_empty=about.family == "sdxl",
    )  # fmt: skip


def _vae(folder: Path, full: bool) -> AutoencoderKL:
    weights = alone(folder, full=full)
    return AutoencoderKL.from_pretrained(
        folder,
        dtype=torch.float32,
        variant=weights.variant if weights else None,
        use_safetensors=True,
        local_files_only=True,
    )


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


def _check_whole(place: Path, parts: Parts) -> None:
    """Refuses a base in which some layer's weights were not found, or as ``_check_together``."""
    models = (parts.unet, parts.vae, parts.text_encoder, parts.text_encoder_2)
    for model in filter(None, models):
        for name, parameter in model.named_parameters():
            if parameter.is_meta:
                raise _unreadable(place, _no_weights(model, name))
    _check_together(place, parts)


def _check_together(place: Path, parts: Parts) -> None:
    """Refuses a base whose parts do not go together, no sampler follows, or whose tokenizer knows no words."""
    encoders = [model for model in (parts.text_encoder, parts.text_encoder_2) if model is not None]
    width, wanted = sum(e.config.hidden_size for e in encoders), parts.unet.config.cross_attention_dim
    if wanted != width:
        raise _unreadable(
            place, f"its text encoders give {width} numbers a token, and its UNet takes {wanted}"
        )
    longest = parts.text_encoder.config.max_position_embeddings
    if not 2 < parts.tokenizer.model_max_length <= longest:
        length = parts.tokenizer.model_max_length
        raise _unreadable(
            place, f"its tokenizer gives {length} tokens a text, and its text encoder takes {longest}"
        )
    if type(parts.unet.config.sample_size) is not int:
        raise _unreadable(place, "its UNet does not say the size of its pictures")
    if not has_words(parts.tokenizer):
        raise _unreadable(place, "its tokenizer has no vocabulary")
    if parts.tokenizer.pad_token_id is None:
        raise _unreadable(place, "its tokenizer has no token to fill texts up with")
    if parts.tokenizer_2 is not None and parts.tokenizer_2.get_vocab() != parts.tokenizer.get_vocab():
        raise _unreadable(place, "its two tokenizers have different vocabularies")
    check_schedule(parts.scheduler_config)


def _no_weights(model: torch.nn.Module, name: str) -> str:
    return f"it holds no weights for {type(model).__name__}'s {name}"


def _unreadable(place: Path, what: str) -> CidmError:
    return CidmError(
        f"base {place}: diffusers cannot load it ({what})",
        hint="check that it is whole; cidm init --base mini needs no download",
        code=ExitCode.INVALID,
    )
