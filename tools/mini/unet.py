"""Trains the denoiser: v-prediction on the autoencoder's latents, the CLIP text tower frozen beside it."""

from __future__ import annotations

import json
import os
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from .autoencoder import CPU, pixels
from .clip import tokens
from .scenes import OUTLINES, VARIETY, Art, Manner, Scene, render
from .training import Average, Clock, MuonAdamW, clip_norm, load_checkpoint, save_checkpoint, shared_mean
from .world import CORE

CONFIG = dict(
    sample_size=16,
    in_channels=8,
    out_channels=8,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(64, 160, 256),
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
CHUNK = 4096
NO_CAPTION = 0.1
#: Share of scenes about the core nouns, about the other nouns, and about further drawings under their own names: the
#: last two keep an outline that was never seen from being foreign.
CORE_SHARE, NOUN_SHARE = 0.84, 0.08
#: Share of the steps whose scenes are laid out plainly, so that outlines stand before their variety is learned.
OUTLINES_UNTIL = 0.75


def scene(art: Art, others: Art, seed: int, index: int, manner: Manner) -> Scene:
    """Scene ``index`` of a stream that is mostly about the core nouns."""
    pick = np.random.default_rng((seed, index, 9)).random()
    if pick < CORE_SHARE:
        known: Art = {noun: art[noun] for noun in CORE}
    elif pick < CORE_SHARE + NOUN_SHARE:
        known = {noun: drawing for noun, drawing in art.items() if noun not in CORE}
    else:
        known = others
    return render(known, seed, index, manner=manner)


def normalise(art: Art, autoencoder: AutoencoderKL, seed: int) -> None:
    """Sets the factors that give the latents of 512 scenes mean 0 and standard deviation 1."""
    with torch.no_grad():
        images = pixels([render(art, seed + 2, i).image for i in range(512)])
        latents = torch.cat([autoencoder.encode(b).latent_dist.mode() for b in images.split(32)])
    autoencoder.register_to_config(
        scaling_factor=float(1 / latents.std()), shift_factor=float(latents.mean())
    )


def chunk(
    art: Art,
    others: Art,
    autoencoder: AutoencoderKL,
    out: Path,
    seed: int,
    index: int,
    manner: Manner,
    crew: Executor | None,
) -> tuple[torch.Tensor, list[str]]:
    """Scaled latents [CHUNK, 8, 16, 16] and captions of one stretch of a scene stream, made once and kept."""
    path = out / "latents" / f"{seed}-{index:03d}.safetensors"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        device, parts, captions = autoencoder.device, [], []
        found = (crew.map if crew else map)(
            partial(scene, art, others, seed, manner=manner), range(index * CHUNK, (index + 1) * CHUNK),
            **({"chunksize": 256} if crew else {}),
        )  # fmt: skip
        rendered = iter(found)
        while scenes := list(islice(rendered, 64)):
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                images = pixels([s.image for s in scenes]).to(device)
                parts.append(autoencoder.encode(images).latent_dist.mode().float().cpu())
            captions += [s.caption for s in scenes]
        path.with_suffix(".json").write_text(json.dumps(captions))
        temporary = path.with_suffix(f".{os.getpid()}")
        save_file({"latents": torch.cat(parts).half().contiguous()}, temporary)
        os.replace(temporary, path)
    latents = load_file(path)["latents"].float()
    scaled = (latents - autoencoder.config.shift_factor) * autoencoder.config.scaling_factor
    return scaled, json.loads(path.with_suffix(".json").read_text())


def train(
    art: Art, others: Art, autoencoder: AutoencoderKL, text: CLIPTextModel, tokenizer: CLIPTokenizer, out: Path,
    *, steps: int, batch: int, chunks: int, seed: int, device: torch.device = CPU, crew: Executor | None = None,
) -> None:  # fmt: skip
    """Trains for ``steps`` in all; resumes. Outlines first, then their variety.

    Where torch.distributed is initialised, each process computes its share of a batch: two processes of one thread do
    half as much again as one of two threads.

    Args:
        chunks: stretches of 4,096 scenes in each of the two halves, which come round again and again.
        crew: processes that render scenes.
    """
    torch.manual_seed(seed)
    model = UNet2DConditionModel(**CONFIG).to(device)
    text.to(device)
    autoencoder.to(device)
    # On CPU the plain attention's backward pass is a third faster than the fused one.
    if device.type == "cpu":
        model.set_attn_processor(AttnProcessor())
    start = load_checkpoint(out / "unet.safetensors")
    step, spent, samples = 0, 0.0, 0
    if start:
        model.load_state_dict(start[0]["model"])
        step, spent, samples = (start[1][fact] for fact in ("step", "spent_s", "samples"))
    optimizer = MuonAdamW(model, lr=2e-3, adamw_lr=1e-3, skip=lambda n: "conv_in" in n or "conv_out" in n)
    average = Average(model, 400)
    if start:
        optimizer.load(start[0]["optimizer"])
        average.load(start[0]["average"], step)
    schedule = DDPMScheduler(**SCHEDULE)
    signal = schedule.alphas_cumprod
    # Plain v-prediction, less weight where hardly any noise is left: min(SNR + 1, 5) in terms of the clean latent.
    # (min-SNR itself goes to zero at full noise, where class and place are decided.)
    weight = torch.clamp(5 * (1 - signal), max=1.0).to(device)
    clock = Clock(steps, step, spent)
    world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    per_chunk = CHUNK // batch
    losses: list[float] = []
    held = None
    while clock.progress < 1:
        stage = int(clock.progress >= OUTLINES_UNTIL)
        epoch, within = divmod(step // per_chunk, chunks)
        if held != (stage, within):
            manner = (OUTLINES, VARIETY)[stage]
            if world > 1 and (held is None or held[0] != stage):  # shared out, so that none is made twice
                for index in range(rank, chunks, world):
                    chunk(art, others, autoencoder, out, seed + 10 * stage, index, manner, crew)
                dist.barrier()
            latents, captions = chunk(art, others, autoencoder, out, seed + 10 * stage, within, manner, crew)
            held = (stage, within)
        order = np.random.default_rng((seed, epoch, within, 3)).permutation(CHUNK)
        picked = order[step % per_chunk * batch :][:batch]
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        clean = latents[picked]
        noise = torch.randn(clean.shape, generator=rng)
        spread = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch
        t = (spread * 1000).long().clamp(0, 999)[torch.randperm(batch, generator=rng)]
        dropped = torch.rand(batch, generator=rng) < NO_CAPTION
        words = ["" if d else captions[i] for i, d in zip(picked, dropped, strict=True)]
        mine = slice(rank, None, world)
        clean, noise, t = (whole[mine].to(device) for whole in (clean, noise, t))
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                context = text(input_ids=tokens(tokenizer, words[mine]).to(device)).last_hidden_state
            guess = model(schedule.add_noise(clean, noise, t), t, context).sample.float()
        target = schedule.get_velocity(clean, noise, t)
        loss = (((guess - target) ** 2).mean((1, 2, 3)) * weight[t]).mean()
        loss.backward()
        if world > 1:
            shared_mean([p.grad for p in model.parameters() if p.grad is not None])
        clip_norm(model.parameters(), 1.0)
        optimizer.step(clock.rate())
        average.update(model)
        losses.append(loss.item())
        step += 1
        samples += batch
        clock.tick()
        mean = sum(losses[-200:]) / len(losses[-200:])
        ended = clock.progress >= 1
        if (step % 50 == 0 or ended) and not rank:
            print(f"unet step {step} {clock.spent_s:.0f} s samples {samples} loss {mean:.5f}", flush=True)
        if step % 200 == 0 or ended:
            state = optimizer.state()
            if not rank:
                save_checkpoint(
                    out / "unet.safetensors",
                    {"model": model.state_dict(), "average": average.shadow, "optimizer": state},
                    {"step": step, "spent_s": clock.spent_s, "samples": samples, "seed": seed, "loss": mean},
                )
