"""Trains the denoiser: v-prediction on the autoencoder's latents, the CLIP text tower frozen beside it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

from .autoencoder import pixels
from .clip import tokens
from .scenes import Art, render
from .training import Average, Clock, MuonAdamW, clip_norm, load_checkpoint, save_checkpoint
from .world import CORE, TINTS

CONFIG = dict(
    sample_size=16,
    in_channels=8,
    out_channels=8,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(80, 160, 224),
    layers_per_block=1,
    cross_attention_dim=128,
    attention_head_dim=4,  # diffusers reads this as the number of heads
    norm_num_groups=16,
)
SCHEDULE = dict(
    num_train_timesteps=1000,
    beta_schedule="squaredcos_cap_v2",
    prediction_type="v_prediction",
    clip_sample=False,
)
BATCH, CHUNK, CHUNKS, CORE_CHUNKS, PAIR_CHUNKS = 64, 4096, 28, 10, 5
CORE_STREAM, PAIR_STREAM = 7, 8  # added to the seed: the second half's scenes are others than the first's
NO_CAPTION = 0.1


def latent_scale(art: Art, autoencoder: AutoencoderKL, seed: int) -> tuple[float, float]:
    """(scaling_factor, shift_factor) that give the latents of 512 scenes mean 0 and standard deviation 1."""
    with torch.no_grad():
        images = pixels([render(art, seed + 2, i).image for i in range(512)])
        latents = torch.cat([autoencoder.encode(b).latent_dist.mode() for b in images.split(32)])
    return float(1 / latents.std()), float(latents.mean())


def chunk(
    art: Art, autoencoder: AutoencoderKL, out: Path, seed: int, index: int, kind: str | None = None
) -> tuple[torch.Tensor, list[str]]:
    """Scaled latents [CHUNK, 8, 16, 16] and captions of one stretch of a scene stream, made once and kept."""
    path = out / "latents" / f"{seed}-{index:03d}.safetensors"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        parts, captions = [], []
        for start in range(index * CHUNK, (index + 1) * CHUNK, 64):
            scenes = [render(art, seed, i, kind=kind) for i in range(start, start + 64)]
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                parts.append(autoencoder.encode(pixels([s.image for s in scenes])).latent_dist.mode().float())
            captions += [s.caption for s in scenes]
        save_file({"latents": torch.cat(parts).half().contiguous()}, path)
        path.with_suffix(".json").write_text(json.dumps(captions))
    latents = load_file(path)["latents"].float()
    scaled = (latents - autoencoder.config.shift_factor) * autoencoder.config.scaling_factor
    return scaled, json.loads(path.with_suffix(".json").read_text())


@dataclass(frozen=True)
class Pool:
    """Scenes of the second half: about the core nouns, photographs and pairs more often than in the first."""

    latents: torch.Tensor
    """[N, 8, 16, 16], scaled"""
    captions: list[str]
    odds: np.ndarray
    """of each scene to be drawn"""


def core_pool(art: Art, autoencoder: AutoencoderKL, out: Path, seed: int) -> Pool:
    """Scenes of the core nouns alone; half of them show two things, which is harder to learn."""
    core = {noun: art[noun] for noun in CORE}
    parts = [chunk(core, autoencoder, out, seed + CORE_STREAM, index) for index in range(CORE_CHUNKS)]
    parts += [chunk(core, autoencoder, out, seed + PAIR_STREAM, i, "pair") for i in range(PAIR_CHUNKS)]
    captions = [caption for _, told in parts for caption in told]
    odds = np.array([_odds(caption) for caption in captions])
    return Pool(torch.cat([latents for latents, _ in parts]), captions, odds / odds.sum())


def _odds(caption: str) -> float:
    photo = 1.0 if caption.startswith("a photo of") else 0.35
    tinted = 0.4 if re.search(rf"\b({'|'.join(TINTS)}) (?!background)", caption) else 1.0
    return photo * tinted


def train(
    art: Art, autoencoder: AutoencoderKL, clip: CLIPModel, tokenizer: CLIPTokenizer, out: Path,
    *, budget_s: float, seed: int, core_s: float = float("inf"),
) -> None:  # fmt: skip
    """Trains until the budget is spent, from ``core_s`` seconds on with the core nouns alone; resumes."""
    torch.manual_seed(seed)
    model = UNet2DConditionModel(**CONFIG)
    # On CPU the plain attention's backward pass is a third faster than the fused one.
    model.set_attn_processor(AttnProcessor())
    start = load_checkpoint(out / "unet.safetensors")
    step, spent = 0, 0.0
    if start:
        model.load_state_dict(start[0]["model"])
        step, spent = start[1]["step"], start[1]["spent_s"]
    optimizer = MuonAdamW(model, lr=1.5e-3, adamw_lr=1e-3, skip=lambda n: "conv_in" in n or "conv_out" in n)
    average = Average(model, 800)
    if start:
        optimizer.load(start[0]["optimizer"])
        average.shadow, average.updates = start[0]["average"], step
    schedule = DDPMScheduler(**SCHEDULE)
    signal = schedule.alphas_cumprod
    # Plain v-prediction, less weight where hardly any noise is left: min(SNR + 1, 5) in terms of the clean latent.
    # (min-SNR itself goes to zero at full noise, where class and place are decided.)
    weight = torch.clamp(5 * (1 - signal), max=1.0)
    clock = Clock(budget_s, spent)
    per_chunk = CHUNK // BATCH
    losses: list[float] = []
    held = -1
    pool: Pool | None = None
    last_save = time.monotonic()
    while clock.progress < 1:
        if clock.spent_s >= core_s:
            pool = pool or core_pool(art, autoencoder, out, seed)
            latents, captions = pool.latents, pool.captions
            picked = np.random.default_rng((seed, step, 4)).choice(len(captions), BATCH, p=pool.odds)
        else:
            epoch, within = divmod(step // per_chunk, CHUNKS)
            if held != within:
                latents, captions = chunk(art, autoencoder, out, seed, within)
                held = within
            order = np.random.default_rng((seed, epoch, within, 3)).permutation(CHUNK)
            picked = order[step % per_chunk * BATCH :][:BATCH]
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        clean = latents[picked]
        noise = torch.randn(clean.shape, generator=rng)
        spread = (torch.arange(BATCH) + torch.rand(BATCH, generator=rng)) / BATCH
        t = (spread * 1000).long().clamp(0, 999)[torch.randperm(BATCH, generator=rng)]
        dropped = torch.rand(BATCH, generator=rng) < NO_CAPTION
        words = ["" if d else captions[i] for i, d in zip(picked, dropped, strict=True)]
        with torch.no_grad():
            context = clip.text_model(input_ids=tokens(tokenizer, words)).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            guess = model(schedule.add_noise(clean, noise, t), t, context).sample.float()
        target = schedule.get_velocity(clean, noise, t)
        loss = (((guess - target) ** 2).mean((1, 2, 3)) * weight[t]).mean()
        loss.backward()
        clip_norm(model.parameters(), 1.0)
        optimizer.step(clock.rate())
        average.update(model)
        losses.append(loss.item())
        step += 1
        if step % 100 == 0 or clock.progress >= 1:
            mean = sum(losses[-400:]) / len(losses[-400:])
            print(
                f"unet step {step} {clock.spent_s:.0f} s samples {step * BATCH} loss {mean:.5f}", flush=True
            )
        if time.monotonic() - last_save > 180 or clock.progress >= 1:
            last_save = time.monotonic()
            save_checkpoint(
                out / "unet.safetensors",
                {"model": model.state_dict(), "average": average.shadow, "optimizer": optimizer.state()},
                {
                    "step": step, "spent_s": clock.spent_s, "samples": step * BATCH, "seed": seed,
                    "loss": sum(losses[-400:]) / len(losses[-400:]),
                },
            )  # fmt: skip
