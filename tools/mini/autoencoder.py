"""Trains the autoencoder: 64 px pictures to 16 x 16 latents of 8 channels, on crops (it is fully convolutional)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from .scenes import Art, render
from .training import Average, Clock, MuonAdamW, clip_norm, load_checkpoint, save_checkpoint

CONFIG = dict(
    in_channels=3,
    out_channels=3,
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(32, 64, 96),
    layers_per_block=1,
    latent_channels=8,
    norm_num_groups=8,
    sample_size=64,
    mid_block_add_attention=False,
)
KL_WEIGHT = 3e-5
CPU = torch.device("cpu")


def pixels(images: list) -> torch.Tensor:
    """PIL RGB pictures of one size to [N, 3, H, W] in -1…1."""
    array = np.stack([np.asarray(i, dtype=np.uint8) for i in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(model: AutoencoderKL, images: torch.Tensor) -> float:
    """Reconstruction of the latents' mean, dB of the mean squared error over all pixels, as in 8-bit files."""
    with torch.no_grad():
        back = torch.cat([model.decode(model.encode(b).latent_dist.mode()).sample for b in images.split(32)])
    back = ((back.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return float(10 * torch.log10(4 / F.mse_loss(back, images)))


def train(
    art: Art, out: Path, *, steps: int, seed: int, decoder_only: bool = False, device: torch.device = CPU
) -> None:
    """Trains for ``steps`` in all; resumes. ``decoder_only`` keeps the latents as they are and sharpens images."""
    torch.manual_seed(seed)
    model = AutoencoderKL(**CONFIG)
    path = out / ("decoder.safetensors" if decoder_only else "autoencoder.safetensors")
    start = load_checkpoint(path)
    step, spent = 0, 0.0
    if decoder_only and start is None:
        first = load_checkpoint(out / "autoencoder.safetensors")
        assert first is not None, "train the autoencoder first"
        model.load_state_dict(first[0]["average"])
    elif start:
        model.load_state_dict(start[0]["model"])
        step, spent = start[1]["step"], start[1]["spent_s"]
    model.to(device)
    if decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    optimizer = MuonAdamW(model, lr=1.5e-3, adamw_lr=1.5e-3, skip=lambda n: "conv_in" in n or "conv_out" in n)
    average = Average(model, 400)
    if start:
        optimizer.load(start[0].get("optimizer", {}))
        average.load(start[0]["average"], step)
    clock = Clock(steps, step, spent)
    held_out = pixels([render(art, seed + 1, i).image for i in range(64)])
    batch, crop = (24, 64) if decoder_only else (12, 32)
    last_save = time.monotonic()
    while clock.progress < 1:
        scenes = pixels([render(art, seed, step * batch + i).image for i in range(batch)])
        if crop < 64:
            rng = np.random.default_rng((seed, step, 1))
            corners = rng.integers(0, 64 - crop + 1, (3 * batch, 2)) // 4 * 4
            source = scenes.repeat(3, 1, 1, 1)
            scenes = torch.stack(
                [s[:, y : y + crop, x : x + crop] for s, (y, x) in zip(source, corners, strict=True)]
            )
        scenes = scenes.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = model.encode(scenes).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step))
            latents = posterior.mean + posterior.std * noise.to(device)
            back = model.decode(latents.detach() if decoder_only else latents).sample.float()
        loss = F.mse_loss(back, scenes) + 0.15 * F.l1_loss(back, scenes)
        kl = posterior.kl().mean() / latents[0].numel()
        if not decoder_only:
            loss = loss + KL_WEIGHT * latents[0].numel() / scenes[0].numel() * kl
        loss.backward()
        clip_norm(model.parameters(), 1.0)
        optimizer.step(clock.rate())
        average.update(model)
        step += 1
        clock.tick()
        if step % 200 == 0 or clock.progress >= 1:
            probe = AutoencoderKL(**CONFIG)
            probe.load_state_dict(average.shadow)
            print(
                f"autoencoder step {step} {clock.spent_s:.0f} s loss {loss.item():.5f} kl {kl.item():.3f} "
                f"average {psnr(probe, held_out):.2f} dB latent std {latents.std().item():.3f}",
                flush=True,
            )
        if time.monotonic() - last_save > 120 or clock.progress >= 1:
            last_save = time.monotonic()
            save_checkpoint(
                path,
                {"model": model.state_dict(), "average": average.shadow, "optimizer": optimizer.state()},
                {"step": step, "spent_s": clock.spent_s, "samples": step * batch, "seed": seed},
            )
