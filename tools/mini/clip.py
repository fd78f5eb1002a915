"""Trains the small CLIP model: its text tower becomes the pipeline's text encoder, the whole scores IA and TA.

Three losses: the usual contrastive one on captioned scenes; the class among all classes by the bare prompt "a photo
of a CLASS", also of parts of scenes, enlarged, as the judge of two-object pictures sees them; and recognition of
the individual drawing (of all of Noto's, captioned or not) by a linear head that is thrown away. The last keeps
apart individuals whose captions are alike, which is what image alignment of a personal concept has to see.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from .autoencoder import pixels
from .scenes import Art, Scene, background_phrase, render, render_individual
from .training import Average, Clock, MuonAdamW, clip_norm, load_checkpoint, save_checkpoint
from .vocabulary import MAX_LENGTH
from .world import BACKGROUNDS, PLAIN, article

CONTRAST, RECOGNISE, PARTS = 80, 24, 24


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
    return embed_images(model, images) @ embed_texts(model, tokens(tokenizer, bare_prompts(nouns))).T


def bare_prompts(nouns: list[str]) -> list[str]:
    """ "a photo of a CLASS" of each noun."""
    return [f"a photo of {article(n)} {n}".replace("  ", " ") for n in nouns]


def part(image: Image.Image, centre: float, rng: np.random.Generator | None = None) -> Image.Image:
    """The square around ``centre`` (share of the width) that holds one object of a pair, enlarged to the whole.

    Its side is 0.58 of the picture's; ``rng`` moves and scales it a little.
    """
    side = image.width
    half, middle = 0.29, 0.54
    if rng is not None:
        half *= rng.uniform(0.9, 1.1)
        centre, middle = centre + rng.uniform(-0.04, 0.04), middle + rng.uniform(-0.04, 0.04)
    edges = (centre - half, middle - half, centre + half, middle + half)
    box = tuple(round(min(max(edge, 0.0), 1.0) * side) for edge in edges)
    return image.crop(box).resize(image.size, Image.Resampling.LANCZOS)  # type: ignore[arg-type]


PART_CENTRES = (0.27, 0.73)
"""Where the objects of "X and Y" are: X left, Y right."""


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
    """Whether a weight is of the tower that the pipeline has; its projection to the common space goes on training."""
    return name.startswith("text_model.")


def train(
    art: Art,
    others: Art,
    tokenizer: CLIPTokenizer,
    out: Path,
    *,
    steps: int,
    seed: int,
    stop: int | None = None,
) -> None:
    """Trains for ``steps`` in all, or up to step ``stop`` of them; resumes.

    Once ``freeze_text`` was called, the text tower stays as it is.
    """
    torch.manual_seed(seed)
    model = CLIPModel(config(tokenizer))
    model.set_attn_implementation(
        "eager"
    )  # on CPU its backward pass is several times faster than the fused one
    drawings = art | others
    everyone = list(drawings)
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
        average.load(start[0]["average"], step)
    frozen = load_checkpoint(out / "text.safetensors")
    if frozen:
        tower = {name: value for name, value in frozen[0]["text"].items() if _is_text(name)}
        model.load_state_dict(tower, strict=False)
        average.shadow.update(tower)
    text_parameters = [p for n, p in model.named_parameters() if frozen and _is_text(n)]
    clock = Clock(steps, step, spent)
    if clock.progress >= 1:
        return
    held_out = [render(art, seed + 1, i) for i in range(400)]
    nouns = list(art)
    bare = tokens(tokenizer, bare_prompts(nouns))
    last_save = time.monotonic()
    ended = False
    while not ended:
        rng = np.random.default_rng((seed, step, 2))
        scenes = [render(art, seed, step * CONTRAST + i) for i in range(CONTRAST)]
        picked = rng.integers(len(everyone), size=RECOGNISE)
        extra = [render_individual(drawings, everyone[i], rng) for i in picked]
        pairs = [render(art, seed + 3, step * PARTS + i, kind="pair") for i in range(PARTS)]
        sides = rng.integers(2, size=PARTS)
        parts = [part(s.image, PART_CENTRES[k], rng) for s, k in zip(pairs, sides, strict=True)]
        images = pixels([s.image for s in scenes] + extra + parts)
        ids = tokens(tokenizer, [s.caption for s in scenes])
        labels = torch.zeros(CONTRAST + RECOGNISE, len(everyone))
        for row, scene in enumerate(scenes):
            for noun in scene.untinted:
                labels[row, everyone.index(noun)] = 1 / len(scene.untinted)
        labels[torch.arange(CONTRAST, CONTRAST + RECOGNISE), torch.from_numpy(picked)] = 1
        single = [row for row, scene in enumerate(scenes) if len(scene.nouns) == 1]
        shown = [scenes[row].nouns[0] for row in single]
        shown += [s.nouns[k] for s, k in zip(pairs, sides, strict=True)]
        wanted = torch.tensor([nouns.index(noun) for noun in shown])
        rows = [*single, *range(CONTRAST + RECOGNISE, CONTRAST + RECOGNISE + PARTS)]
        with torch.autocast("cpu", torch.bfloat16):
            pictures = embed_images(model, images)
            texts = embed_texts(model, ids)
            classes = embed_texts(model, bare)
        scale = model.logit_scale.exp().clamp(max=60)
        logits = scale * pictures[:CONTRAST] @ texts.T
        target = torch.arange(CONTRAST)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        named = F.cross_entropy(scale * pictures[rows] @ classes.T, wanted)
        known = 20 * pictures[: CONTRAST + RECOGNISE] @ F.normalize(head.weight, dim=-1).T
        recognise = -(labels * known.log_softmax(-1)).sum(1).mean()
        (contrast + 0.5 * named + 0.35 * recognise).backward()
        for parameter in text_parameters:
            parameter.grad = None
        clip_norm(whole.parameters(), 1.0)
        optimizer.step(clock.rate())
        average.update(model)
        step += 1
        clock.tick()
        ended = clock.progress >= 1 or step == stop
        if step % 100 == 0 or ended:
            probe = CLIPModel(config(tokenizer)).eval()
            probe.load_state_dict(average.shadow)
            probed = accuracy(probe, tokenizer, held_out, nouns) if step % 250 == 0 else ""
            print(
                f"clip step {step} {clock.spent_s:.0f} s contrast {contrast.item():.3f} "
                f"named {named.item():.3f} recognise {recognise.item():.3f} {probed}",
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
                    "samples": step * (CONTRAST + RECOGNISE + PARTS),
                    "seed": seed,
                },
            )
