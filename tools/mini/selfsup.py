"""Trains the second judge: a small image encoder that never saw a caption, so that no figure hangs on CLIP alone.

Contrastive as SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations"):
two pictures of the same Noto drawing, on other backgrounds, elsewhere, larger or smaller, mirrored, in another
picture style, are to be alike, and unlike those of every other drawing. What a thing is called is never told.

Colours are kept (the jitter is small) and asked for: some drawings are in a batch twice, once in other colours, and
those two are somebody else. Personal concepts often differ by little more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import nn
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetModel

from .autoencoder import pixels
from .concepts import load_drawing
from .painters import paint_background
from .scenes import Art, apply_style, paste_object, tint_to
from .training import Average, Clock, MuonAdamW, clip_norm, load_checkpoint, save_checkpoint
from .world import BACKGROUNDS, PLAIN

CONFIG = dict(
    num_channels=3,
    embedding_size=32,
    hidden_sizes=[32, 64, 128, 192],
    depths=[1, 1, 1, 1],
    layer_type="basic",
    hidden_act="relu",
)
SIDE = 64
DRAWINGS, TWINS = 96, 24
"""Pairs in a batch, and how many of them show a drawing of the batch in other colours."""
TEMPERATURE = 0.15

#: How often a view is in each picture style: seldom in those that take the colours away.
STYLE_ODDS = {
    "photo": 0.74, "pixel": 0.07, "watercolor": 0.08, "oil": 0.07, "pencil": 0.02, "monochrome": 0.02,
}  # fmt: skip

#: Fluent drawings to be told apart, by code point: pets, birds, bags and toys, as mini-CIFC's objects, and their like.
UNSEEN: tuple[str, ...] = tuple(
    (
        "1f415 1f436 1f9ae 1f415-200d-1f9ba 1f429 1f43a 1f98a 1f99d 1f408 1f431 1f408-200d-2b1b 1f638 1f63c 1f63f "
        "1f640 1f981 1f42f 1f405 1f406 1f426 1f54a-fe0f 1f985 1f426-200d-2b1b 1fabf 1f99c 1f9a4 1f424 1f425 1f423 "
        "1f986 1f9a2 1f414 1f413 1f983 1f989 1f99a 1f9a9 1f427 1f43b 1f43b-200d-2744-fe0f 1f428 1f43c 1f9f8 1f430 "
        "1f407 1f42d 1f401 1f400 1f439 1f43f-fe0f 1f437 1f416 1f417 1f42e 1f404 1f402 1f403 1f434 1f40e 1face 1facf "
        "1f993 1f984 1f411 1f40f 1f410 1f435 1f412 1f98d 1f9a7 1f418 1f9a3 1f98f 1f99b 1f438 1f422 1f40a 1f98e "
        "1f392 1f45c 1f45d 1f9f3 1f4bc 1f45b 1f6cd-fe0f 1fa86 1f916 1fa80 1fa81 1f388 1f381 1f3b2 1f9e9 1fa85 26bd "
        "26be 1f3c0 1f3d0 1f94e 1f3b1"
    ).split()
)
PICTURES = 4
"""Of each unseen drawing."""


def everyone(art: Art, others: Art) -> list[Image.Image]:
    """Every drawing, once: a few names share one."""
    sprites = [*art.values(), *others.values()]
    return list({(sprite.size, sprite.tobytes()): sprite for sprite in sprites}.values())


def in_other_colours(sprite: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The drawing with its hues turned by a sixth to five sixths of the circle; a grey one is tinted."""
    alpha = sprite.getchannel("A")
    hue, saturation, value = sprite.convert("RGB").convert("HSV").split()
    shown = np.asarray(alpha) > 128
    if np.asarray(saturation)[shown].mean() < 60:
        return tint_to(sprite, rng.random())
    turn = round(256 * rng.uniform(1 / 6, 5 / 6))
    turned = Image.merge("HSV", (hue.point(lambda h: (h + turn) % 256), saturation, value)).convert("RGB")
    turned.putalpha(alpha)
    return turned


def view(sprite: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The drawing somewhere on some background in some style, a little off in colour and sharpness."""
    names = list(BACKGROUNDS) if rng.random() < 0.72 else list(PLAIN)
    canvas = paint_background(names[rng.integers(len(names))], rng, SIDE)
    centre = (rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.6))
    if rng.random() < 0.5:
        sprite = ImageOps.mirror(sprite)
    if rng.random() < 0.5:
        sprite = sprite.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    paste_object(canvas, sprite, scale=rng.uniform(0.42, 0.94), centre=centre)
    picture = apply_style(canvas, rng.choice(list(STYLE_ODDS), p=list(STYLE_ODDS.values())), rng)
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    lit = np.asarray(picture, np.float32) * rng.uniform(0.88, 1.12) * rng.uniform(0.95, 1.05, 3)
    return Image.fromarray((lit + rng.uniform(-12, 12)).clip(0, 255).astype(np.uint8))


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Eq. 1 of Chen et al. 2020 — normalised temperature-scaled cross entropy, the mean over all 2N pictures.

    Args:
        first, second: [N, D]; row i of both shows the same drawing.
    """
    both = F.normalize(torch.cat([first, second]).float(), dim=-1)
    alike = both @ both.T / temperature
    alike.fill_diagonal_(float("-inf"))
    partner = torch.arange(len(both)).roll(len(first))
    return F.cross_entropy(alike, partner)


def pooled(model: ResNetModel, images: torch.Tensor) -> torch.Tensor:
    """Pooler output [N, 192] of pictures in -1…1."""
    return model(pixel_values=images).pooler_output.flatten(1)


@torch.no_grad()
def embed(model: ResNetModel, images: torch.Tensor) -> torch.Tensor:
    """Unit embeddings [N, 192] of pictures in -1…1."""
    return F.normalize(pooled(model, images).float(), dim=-1)


def train(art: Art, others: Art, out: Path, *, steps: int, seed: int) -> None:
    """Trains for ``steps`` in all; resumes.

    The loss is taken of a head's output, as in the paper, and of the embedding itself, which is what is compared
    by cosine in the end. The head stays in the checkpoint.
    """
    torch.manual_seed(seed)
    sprites = everyone(art, others)
    model = ResNetModel(ResNetConfig(**CONFIG))
    width = CONFIG["hidden_sizes"][-1]  # type: ignore[index]
    head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))
    whole = nn.ModuleDict({"encoder": model, "head": head})
    start = load_checkpoint(out / "selfsup.safetensors")
    step, spent = 0, 0.0
    if start:
        whole.load_state_dict(start[0]["model"])
        step, spent = start[1]["step"], start[1]["spent_s"]
    optimizer = MuonAdamW(
        whole, lr=1.5e-3, adamw_lr=1.5e-3, skip=lambda n: "embedder" in n or n.startswith("head.2")
    )
    average = Average(model, 400)
    if start:
        optimizer.load(start[0].get("optimizer", {}))
        average.load(start[0]["average"], step)
    clock = Clock(steps, step, spent)
    last_save = time.monotonic()
    while clock.progress < 1:
        rng = np.random.default_rng((seed, step, 4))
        drawn = [sprites[i] for i in rng.permutation(len(sprites))[: DRAWINGS - TWINS]]
        drawn += [in_other_colours(sprite, rng) for sprite in drawn[:TWINS]]
        images = pixels([view(sprite, rng) for _ in range(2) for sprite in drawn])
        with torch.autocast("cpu", torch.bfloat16):
            found = pooled(model, images)
            projected = head(found)
        loss = 0.5 * (nt_xent(*projected.chunk(2), TEMPERATURE) + nt_xent(*found.chunk(2), TEMPERATURE))
        loss.backward()
        clip_norm(whole.parameters(), 1.0)
        optimizer.step(clock.rate())
        average.update(model)
        step += 1
        clock.tick()
        ended = clock.progress >= 1
        if step % 50 == 0 or ended:
            labels = torch.arange(len(drawn)).repeat(2)
            share = nearest_is_same(F.normalize(found.detach().float(), dim=-1), labels)
            print(
                f"selfsup step {step} {clock.spent_s:.0f} s loss {loss.item():.3f} pairs found {share:.3f}",
                flush=True,
            )
        if time.monotonic() - last_save > 120 or ended:
            last_save = time.monotonic()
            save_checkpoint(
                out / "selfsup.safetensors",
                {"model": whole.state_dict(), "average": average.shadow, "optimizer": optimizer.state()},
                {
                    "step": step,
                    "spent_s": clock.spent_s,
                    "samples": step * 2 * DRAWINGS,
                    "seed": seed,
                    "loss": loss.item(),
                },
            )


def nearest_is_same(embeddings: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows whose nearest other row, by cosine of unit rows [N, D], has the same label [N]."""
    alike = embeddings @ embeddings.T
    alike.fill_diagonal_(float("-inf"))
    return (labels[alike.argmax(1)] == labels).float().mean().item()


def unseen(fluent: Path, codes: Sequence[str] = UNSEEN) -> list[Image.Image]:
    """``PICTURES`` pictures of each Fluent drawing, one after another, no two of a drawing on one background."""
    rng = np.random.default_rng(11)
    places, out = [*BACKGROUNDS, *PLAIN], []
    for code in codes:
        sprite = load_drawing(fluent, code)
        for place in rng.choice(places, PICTURES, replace=False):
            canvas = paint_background(place, rng, SIDE)
            centre = (rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.6))
            paste_object(canvas, sprite, scale=rng.uniform(0.5, 0.9), centre=centre)
            out.append(canvas)
    return out


def told_apart(model: ResNetModel, fluent: Path) -> float:
    """Share of pictures of unseen drawings whose nearest other picture shows the same drawing; chance is 1 %."""
    pictures = pixels(unseen(fluent))
    labels = torch.arange(len(pictures)) // PICTURES
    return nearest_is_same(embed(model, pictures), labels)
