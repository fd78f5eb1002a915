"""Trains the small CLIP model: its text tower becomes the pipeline's text encoder, the whole scores IA and TA.

Two losses: the usual contrastive one on captioned scenes, and recognition of the individual drawing (of all of
Noto's, captioned or not) by a linear head that is thrown away. The second keeps apart individuals whose captions
are alike, which is what image alignment of a personal concept has to see.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from .autoencoder import pixels
from .scenes import Art, Scene, background_phrase, render, render_individual
from .training import Average, Clock, MuonAdamW, clip_norm, load_checkpoint, save_checkpoint
from .vocabulary import MAX_LENGTH
from .world import BACKGROUNDS, PLAIN, article

CONTRAST, RECOGNISE = 96, 32


def config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    text = dict(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=MAX_LENGTH, projection_dim=128, hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = dict(
        hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=6, image_size=64,
        patch_size=8, projection_dim=128, hidden_act="quick_gelu",
    )  # fmt: skip
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids [N, 32], padded and cut as the pipeline does it."""
    return tokenizer(
        captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def embed_images(model: CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """Unit image embeddings [N, 128] of pictures in -1…1."""
    return F.normalize(model.get_image_features(pixel_values=images).pooler_output.float(), dim=-1)


def embed_texts(model: CLIPModel, ids: torch.Tensor) -> torch.Tensor:
    """Unit text embeddings [N, 128] of token ids."""
    return F.normalize(model.get_text_features(input_ids=ids).pooler_output.float(), dim=-1)


@torch.no_grad()
def name_classes(
    model: CLIPModel, tokenizer: CLIPTokenizer, images: torch.Tensor, nouns: list[str]
) -> torch.Tensor:
    """Similarity [N, classes] of pictures to "a photo of a CLASS", over all classes."""
    texts = [f"a photo of {article(n)} {n}".replace("  ", " ") for n in nouns]
    return embed_images(model, images) @ embed_texts(model, tokens(tokenizer, texts)).T


@torch.no_grad()
def name_backgrounds(
    model: CLIPModel, tokenizer: CLIPTokenizer, images: torch.Tensor, noun: str
) -> torch.Tensor:
    """Similarity [N, backgrounds] of pictures of one noun to "a photo of a NOUN BACKGROUND"."""
    places = [background_phrase(b) for b in (*BACKGROUNDS, *PLAIN)]
    texts = [f"a photo of {article(noun)} {noun} {p}".replace("  ", " ") for p in places]
    return embed_images(model, images) @ embed_texts(model, tokens(tokenizer, texts)).T


def accuracy(
    model: CLIPModel, tokenizer: CLIPTokenizer, scenes: list[Scene], nouns: list[str]
) -> dict[str, float]:
    """Share of true scenes whose class, or background, the model names right."""
    images = pixels([s.image for s in scenes])
    single = [i for i, s in enumerate(scenes) if len(s.nouns) == 1]
    named = name_classes(model, tokenizer, images[single], nouns).argmax(1)
    right = [nouns[n] == scenes[i].nouns[0] for n, i in zip(named.tolist(), single, strict=True)]
    places = [*BACKGROUNDS, *PLAIN]
    found = [
        places[int(name_backgrounds(model, tokenizer, images[i : i + 1], scenes[i].nouns[0]).argmax())]
        == scenes[i].background
        for i in single
    ]
    return {"class": sum(right) / len(right), "background": sum(found) / len(found)}


def freeze_text(out: Path) -> None:
    """Fixes the text tower as it now is on average: the denoiser is trained on it, the image tower goes on."""
    start = load_checkpoint(out / "clip.safetensors")
    if start is None:
        raise FileNotFoundError("train CLIP first")
    text = {k: v for k, v in start[0]["average"].items() if _is_text(k)}
    save_checkpoint(out / "text.safetensors", {"text": text}, start[1])


def _is_text(name: str) -> bool:
    return name.startswith(("text_model.", "text_projection."))


def train(
    art: Art,
    others: Art,
    tokenizer: CLIPTokenizer,
    out: Path,
    *,
    budget_s: float,
    seed: int,
    stop_s: float = float("inf"),
) -> None:
    """Trains until the budget, or ``stop_s`` of it, is spent; resumes. Once ``freeze_text`` was called, only images."""
    torch.manual_seed(seed)
    model = CLIPModel(config(tokenizer))
    model.set_attn_implementation(
        "eager"
    )  # on CPU its backward pass is several times faster than the fused one
    everyone = [(art, noun, k) for noun in art for k in range(len(art[noun]))]
    everyone += [(others, name, 0) for name in others]
    number = {(name, k): i for i, (_, name, k) in enumerate(everyone)}
    head = nn.Linear(128, len(everyone), bias=False)
    whole = nn.ModuleDict({"clip": model, "head": head})
    start = load_checkpoint(out / "clip.safetensors")
    step, spent = 0, 0.0
    if start:
        whole.load_state_dict(start[0]["model"])
        step, spent = start[1]["step"], start[1]["spent_s"]
    optimizer = MuonAdamW(
        whole, lr=1e-3, adamw_lr=1e-3, skip=lambda n: "embedding" in n or n.startswith("head")
    )
    average = Average(model, 600)
    if start:
        optimizer.load(start[0].get("optimizer", {}))
        average.shadow, average.updates = start[0]["average"], step
    frozen = load_checkpoint(out / "text.safetensors")
    if frozen:
        model.load_state_dict(frozen[0]["text"], strict=False)
        average.shadow.update(frozen[0]["text"])
    text_parameters = [p for n, p in model.named_parameters() if frozen and _is_text(n)]
    clock = Clock(budget_s, spent)
    if clock.progress >= 1:
        return
    held_out = [render(art, seed + 1, i) for i in range(400)]
    last_save = time.monotonic()
    ended = False
    while not ended:
        rng = np.random.default_rng((seed, step, 2))
        scenes = [render(art, seed, step * CONTRAST + i) for i in range(CONTRAST)]
        picked = rng.integers(len(everyone), size=RECOGNISE)
        extra = [render_individual(*everyone[i], rng) for i in picked]  # type: ignore[arg-type]
        images = pixels([s.image for s in scenes] + extra)
        ids = tokens(tokenizer, [s.caption for s in scenes])
        labels = torch.zeros(CONTRAST + RECOGNISE, len(everyone))
        for row, scene in enumerate(scenes):
            for individual in scene.individuals:
                labels[row, number[individual]] = 1 / len(scene.individuals)
        labels[torch.arange(CONTRAST, CONTRAST + RECOGNISE), torch.from_numpy(picked)] = 1
        with torch.autocast("cpu", torch.bfloat16):
            pictures = embed_images(model, images)
            texts = embed_texts(model, ids)
        logits = model.logit_scale.exp().clamp(max=60) * pictures[:CONTRAST] @ texts.T
        target = torch.arange(CONTRAST)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        known = 20 * pictures @ F.normalize(head.weight, dim=-1).T
        recognise = -(labels * known.log_softmax(-1)).sum(1).mean()
        (contrast + 0.35 * recognise).backward()
        for parameter in text_parameters:
            parameter.grad = None
        clip_norm(whole.parameters(), 1.0)
        optimizer.step(clock.rate())
        average.update(model)
        step += 1
        ended = clock.progress >= 1 or clock.spent_s >= stop_s
        if step % 100 == 0 or ended:
            probe = CLIPModel(config(tokenizer)).eval()
            probe.load_state_dict(average.shadow)
            named = accuracy(probe, tokenizer, held_out, list(art)) if step % 250 == 0 else ""
            print(
                f"clip step {step} {clock.spent_s:.0f} s contrast {contrast.item():.3f} "
                f"recognise {recognise.item():.3f} {named}",
                flush=True,
            )
        if time.monotonic() - last_save > 120 or ended:
            last_save = time.monotonic()
            save_checkpoint(
                out / "clip.safetensors",
                {"model": whole.state_dict(), "average": average.shadow, "optimizer": optimizer.state()},
                {
                    "step": step,
                    "spent_s": clock.spent_s,
                    "samples": step * (CONTRAST + RECOGNISE),
                    "seed": seed,
                },
            )
