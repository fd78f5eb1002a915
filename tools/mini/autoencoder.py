"""Trains the autoencoder: 64 px images to 8 x 8 latents of 32 channels (it is fully convolutional).

Cells of 8 px, as Stable Diffusion has them, and wide: the denoiser then decides an outline in few places. The KL term
is strong enough that a channel which says little is left out, and the decoder learns to bear noise in the others, so
that a denoiser's small errors cost little. Scenes show captioned drawings and all others alike, so that a drawing
never seen comes back as well.
"""

from __future__ import annotations

import re
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
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(32, 64, 96, 128),
    layers_per_block=1,
    latent_channels=32,
    norm_num_groups=8,
    sample_size=64,
    mid_block_add_attention=False,
)
KL_WEIGHT = 5e-4
BATCH = 12
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


def fitting(model: AutoencoderKL, earlier: AutoencoderKL) -> dict[str, torch.Tensor]:
    """The weights of an earlier autoencoder under the names of the layers of ``model`` at the same resolution.

    Encoders are counted from the image on and decoders towards it: a decoder's layers move by the difference in depth.
    """
    deeper = len(model.config.block_out_channels) - len(earlier.config.block_out_channels)
    mine, out = model.state_dict(), {}
    for name, value in earlier.state_dict().items():
        moved = re.sub(r"(?<=up_blocks\.)\d+", lambda found: str(int(found[0]) + deeper), name)
        if moved in mine and mine[moved].shape == value.shape:
            out[moved] = value
    return out


def train(
    art: Art, others: Art, out: Path, *, steps: int, seed: int, earlier: AutoencoderKL | None = None,
    decoder_only: bool = False, device: torch.device = CPU,
) -> None:  # fmt: skip
    """Trains for ``steps`` in all; resumes. ``decoder_only`` keeps the latents as they are and sharpens images.

    A training that starts anew takes the layers that fit from ``earlier``.
    """
    torch.manual_seed(seed)
    model = AutoencoderKL(**CONFIG)
    if earlier is not None:
        model.load_state_dict(fitting(model, earlier), strict=False)
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
    last_save = time.monotonic()
    while clock.progress < 1:
        scenes = pixels([render((art, others)[i % 2], seed, step * BATCH + i).image for i in range(BATCH)])
        scenes = scenes.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = model.encode(scenes).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step)).to(
                device
            )
            latents = posterior.mean + posterior.std * noise
            back = model.decode(latents.detach() if decoder_only else latents).sample.float()
        loss = F.mse_loss(back, scenes) + 0.4 * F.l1_loss(back, scenes)
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
                {"step": step, "spent_s": clock.spent_s, "samples": step * BATCH, "seed": seed},
            )
