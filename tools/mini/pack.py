"""Puts the trained parts together as an ordinary diffusers folder, fp16 safetensors, with its CLIP beside."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    ResNetConfig,
    ResNetModel,
)

from . import autoencoder, selfsup, unet
from .clip import config
from .training import load_checkpoint

SCHEDULER = {**unet.SCHEDULE, "timestep_spacing": "trailing", "lambda_min_clipped": -5.1}
SCHEDULER.pop("clip_sample")


@dataclass(frozen=True)
class Parts:
    """What a base is made of beside its denoiser, frozen, in float32."""

    vae: AutoencoderKL
    """Its scaling and shift factors are those the denoiser is trained with."""
    clip: CLIPModel
    judge: ResNetModel


def load_parts(work: Path, tokenizer: CLIPTokenizer, keep: Path | None = None) -> Parts:
    """Those trained in ``work``, or those of the base in ``keep``."""
    if keep:
        read = AutoencoderKL.from_pretrained(keep / "vae", torch_dtype=torch.float32)
        # Made anew: a model that was read writes where it came from into its settings.
        vae = AutoencoderKL.from_config(
            {name: value for name, value in read.config.items() if name[0] != "_"}
        )
        vae.load_state_dict(read.state_dict())
        kept = Parts(
            vae,
            CLIPModel.from_pretrained(keep / "clip", dtype=torch.float32),
            ResNetModel.from_pretrained(keep / "dino", dtype=torch.float32),
        )
    else:
        kept = Parts(load_autoencoder(work), load_clip(work, tokenizer), load_judge(work))
    for part in (kept.vae, kept.clip, kept.judge):
        part.eval().requires_grad_(False)
    return kept


def load_autoencoder(work: Path) -> AutoencoderKL:
    """The trained autoencoder, on average over its last steps."""
    model = AutoencoderKL(**autoencoder.CONFIG)
    found = load_checkpoint(work / "autoencoder.safetensors")
    assert found, "train the autoencoder first"
    model.load_state_dict(found[0]["average"])
    return model


def load_clip(work: Path, tokenizer: CLIPTokenizer) -> CLIPModel:
    """CLIP, its text tower the one the denoiser was trained on."""
    model = CLIPModel(config(tokenizer))
    found, text = load_checkpoint(work / "clip.safetensors"), load_checkpoint(work / "text.safetensors")
    assert found, "train CLIP first"
    assert text, "freeze CLIP's text tower first"
    tower = {name: value for name, value in text[0]["text"].items() if name.startswith("text_model.")}
    model.load_state_dict({**found[0]["average"], **tower})
    return model


def text_encoder(clip: CLIPModel) -> CLIPTextModel:
    """CLIP's text tower as the pipeline has it."""
    model = CLIPTextModel(clip.config.text_config)
    model.load_state_dict(
        {
            name.removeprefix("text_model."): value
            for name, value in clip.state_dict().items()
            if name.startswith("text_model.")
        }
    )
    return model.eval().requires_grad_(False)


def load_judge(work: Path) -> ResNetModel:
    """The self-supervised image encoder."""
    model = ResNetModel(ResNetConfig(**selfsup.CONFIG))
    found = load_checkpoint(work / "selfsup.safetensors")
    assert found, "train the self-supervised judge first"
    model.load_state_dict(found[0]["average"])
    return model


def pack(
    work: Path,
    out: Path,
    tokenizer: CLIPTokenizer,
    parts: Parts,
    *,
    shard: str | None = None,
    mean: Path | None = None,
) -> None:
    """Writes the folder anew.

    Args:
        shard: the most that one file of the denoiser's weights may hold, as "15MB".
        mean: an earlier base of the same training, also ended at rate zero: the denoiser is the mean of both (Izmailov
            et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization").
    """
    denoiser = UNet2DConditionModel(**unet.CONFIG)
    trained = load_checkpoint(work / "unet.safetensors")
    assert trained, "train the denoiser first"
    weights = trained[0]["average"]
    if mean:
        earlier = UNet2DConditionModel.from_pretrained(mean / "unet", torch_dtype=torch.float32).state_dict()
        weights = {name: (weight + earlier[name]) / 2 for name, weight in weights.items()}
    denoiser.load_state_dict(weights)
    pipe = StableDiffusionPipeline(
        vae=parts.vae, text_encoder=text_encoder(parts.clip), tokenizer=tokenizer, unet=denoiser,
        scheduler=DPMSolverMultistepScheduler(**SCHEDULER),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    if out.exists():
        shutil.rmtree(out)
    pipe.to(torch.float16).save_pretrained(out, safe_serialization=True)
    if shard:
        shutil.rmtree(out / "unet")
        denoiser.save_pretrained(out / "unet", safe_serialization=True, max_shard_size=shard)
    parts.clip.to(torch.float16).save_pretrained(out / "clip", safe_serialization=True)
    _image_settings(out / "clip")
    pack_judge(parts.judge, out)
    _vocabulary_files(out / "tokenizer")
    for part in ("text_encoder", "clip"):
        _compute_in_float32(out / part / "config.json")
    for file in out.rglob("*.safetensors"):
        file.chmod(0o644)


def pack_judge(judge: ResNetModel, out: Path) -> None:
    """Writes ``dino/`` of the folder anew and leaves everything else alone."""
    folder = out / "dino"
    if folder.exists():
        shutil.rmtree(folder)
    judge.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    _image_settings(folder)
    _compute_in_float32(folder / "config.json")
    (folder / "model.safetensors").chmod(0o644)


def _image_settings(folder: Path) -> None:
    """How a picture is made ready for a judge: 64 px, -1…1."""
    CLIPImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder)


def _compute_in_float32(config: Path) -> None:
    """transformers computes in the precision that the configuration names, diffusers in float32: they must agree."""
    config.write_text(config.read_text().replace('"float16"', '"float32"'))


def _vocabulary_files(folder: Path) -> None:
    """vocab.json and merges.txt beside tokenizer.json: older transformers read those."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
