"""One training: what is trained, one step of it, its checkpoints.

Every random draw is a function of (seed, step, sample), so a run stopped at any step and taken up again ends in
the same bytes as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load, save
from torch import nn

from ..data import Dataset, draw_augmentation
from ..errors import CidmError, ExitCode
from ..formats.concept import ConceptWeights
from ..method.objective import denoising_loss, noised, target
from ..method.tokens import initial_tokens
from ..models import text
from ..models.attention import cross_attention_layers, layer_contexts, lora_sites
from ..models.base import Base, trainable_attention
from ..models.lora import adapter
from ..models.sampling import encode
from ..options import LearnOptions


@dataclass(frozen=True)
class Prepared:
    """Pictures and captions as the training reads them: encoded once."""

    mean: torch.Tensor
    """Latents [pictures, variants, channels, h, w]."""
    std: torch.Tensor
    """Their posterior's standard deviation, like ``mean``."""
    masks: torch.Tensor | None
    """[pictures, variants, 1, h, w], or None when no picture has one."""
    prompts: tuple[text.Tokens, ...]
    """Caption of each picture."""


@dataclass
class Trainee:
    """A concept in training on a base that carries its adapter."""

    base: Base
    name: str
    factors: Mapping[str, tuple[nn.Parameter, nn.Parameter]]
    """(up, down) of each LoRA site"""
    tokens: nn.Parameter
    """[layers, n_tokens, width]"""
    optimizer: torch.optim.AdamW
    signal: torch.Tensor
    """ᾱ of each timestep of the base's schedule"""
    losses: list[float]
    """of every step so far"""

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def weights(self) -> ConceptWeights:
        """The concept as it now is."""
        up = {site: factors[0].detach().clone() for site, factors in self.factors.items()}
        down = {site: factors[1].detach().clone() for site, factors in self.factors.items()}
        return ConceptWeights(up, down, self.tokens.detach().clone())


def prepare(base: Base, dataset: Dataset, prompts: Sequence[text.Tokens], options: LearnOptions) -> Prepared:
    """Encodes every variant of every picture; which variants there are follows from the seed."""
    size = (base.pixels, base.pixels)
    variants = options.variants if options.crop or options.mirror else 1
    cells = base.pixels // base.factor
    means, stds, masks = [], [], []
    for number, example in enumerate(dataset.examples):
        placements = [
            draw_augmentation(
                np.random.default_rng((options.seed, number, variant)),
                crop=options.crop,
                mirror=options.mirror,
            )
            for variant in range(variants)
        ]
        mean, std = encode(base, [p.apply(example.image, size) for p in placements])
        means.append(mean)
        stds.append(std)
        if any(e.mask for e in dataset.examples):
            for p in placements:
                cell_mask = p.apply(example.mask, size).resize((cells, cells)) if example.mask else None
                array = np.ones((cells, cells)) if cell_mask is None else np.asarray(cell_mask) / 255
                masks.append(torch.from_numpy(array).float())
    stacked = (
        torch.stack(masks).view(len(means), variants, 1, cells, cells).to(base.device) if masks else None
    )
    return Prepared(torch.stack(means), torch.stack(stds), stacked, tuple(prompts))


@contextmanager
def training(base: Base, name: str, noun: str, options: LearnOptions) -> Iterator[Trainee]:
    """While open, the base carries the adapter of a new concept, at its start; then the base is as it was."""
    layers = len(cross_attention_layers(base.unet))
    table = base.text_encoder.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(options.seed)
    tokens = nn.Parameter(initial_tokens(table[text.noun_ids(base, noun)], table, layers, generator))
    sites = lora_sites(base.unet, options.targets)
    with (
        trainable_attention(base),
        adapter(base.unet, sites, rank=options.rank, scale=options.scale, seed=options.seed) as factors,
    ):
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for pair in factors.values() for p in pair], "lr": options.lr},
                {"params": [tokens], "lr": options.token_lr},
            ],
            weight_decay=options.weight_decay,
        )
        signal = DDPMScheduler.from_config(base.scheduler_config).alphas_cumprod.to(base.device)
        yield Trainee(base, name, factors, tokens, optimizer, signal, [])


def train_step(trainee: Trainee, data: Prepared, options: LearnOptions) -> float:
    """One optimizer step on one batch; returns its loss.

    Raises:
        CidmError: FAILED when the loss is not finite. The weights are those of the step before, then.
    """
    base, step = trainee.base, trainee.step
    clean, noise, t, prompts, mask = _draw(trainee, data, options)
    signal = trainee.signal[t]
    layers = len(cross_attention_layers(base.unet))
    contexts = text.encode(base, prompts, {trainee.name: trainee.tokens}, layers=layers)
    with layer_contexts(base.unet, contexts), base.autocast():
        prediction = base.unet(noised(clean, noise, signal), t, contexts[0]).sample
    # Eq. 2 adds γ1 R1 + γ2 R2 over the older concepts' factors to this loss.
    loss = denoising_loss(prediction.float(), target(base.prediction, clean, noise, signal), mask)
    value = loss.item()
    if not math.isfinite(value):
        raise CidmError(
            f"concept {trainee.name}: the loss is {value} at step {step + 1}; nothing was committed",
            hint=f"try a lower --lr (now {options.lr:g}) or --token-lr (now {options.token_lr:g})",
            code=ExitCode.FAILED,
        )
    loss.backward()
    remaining = 1 - step / options.steps  # type: ignore[operator]
    for group, rate in zip(trainee.optimizer.param_groups, (options.lr, options.token_lr), strict=True):
        group["lr"] = rate * remaining  # type: ignore[operator]
    trainee.optimizer.step()
    trainee.optimizer.zero_grad(set_to_none=True)
    trainee.losses.append(value)
    return value


def _draw(
    trainee: Trainee, data: Prepared, options: LearnOptions
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[text.Tokens], torch.Tensor | None]:
    """Clean latents, noise, timesteps, captions and masks of the next step's batch."""
    batch, step = options.batch, trainee.step
    assert batch is not None
    pictures, variants = data.mean.shape[:2]
    clean, noise, times, prompts, masks = [], [], [], [], []
    for sample in range(batch):
        epoch, place = divmod(step * batch + sample, pictures)
        picture = int(np.random.default_rng((options.seed, epoch, 0xE)).permutation(pictures)[place])
        rng = np.random.default_rng((options.seed, step, sample))
        variant = int(rng.integers(variants))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        shape = data.mean.shape[2:]
        spread = torch.randn(shape, generator=generator).to(data.mean)
        clean.append(data.mean[picture, variant] + data.std[picture, variant] * spread)
        noise.append(torch.randn(shape, generator=generator).to(data.mean))
        # One timestep from each of `batch` equal stretches: uniform over all, and less noisy than free draws.
        times.append(int((sample + rng.random()) / batch * len(trainee.signal)))
        prompts.append(data.prompts[picture])
        if data.masks is not None:
            masks.append(data.masks[picture, variant])
    return (
        torch.stack(clean), torch.stack(noise), torch.tensor(times, device=data.mean.device), prompts,
        torch.stack(masks) if masks else None,
    )  # fmt: skip


def checkpoint(trainee: Trainee) -> bytes:
    """Everything needed to go on: factors, tokens, the optimizer's moments, the losses so far."""
    tensors = {"losses": torch.tensor(trainee.losses, dtype=torch.float64)}
    for number, parameter in enumerate(_parameters(trainee)):
        tensors[f"{number:04d}.value"] = parameter.detach()
        for key, value in trainee.optimizer.state[parameter].items():
            tensors[f"{number:04d}.{key}"] = value
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def restore(trainee: Trainee, blob: bytes) -> None:
    """Takes up a training where ``checkpoint`` left it."""
    tensors = load(blob)
    trainee.losses[:] = tensors.pop("losses").tolist()
    for number, parameter in enumerate(_parameters(trainee)):
        mine = {key[5:]: value for key, value in tensors.items() if key.startswith(f"{number:04d}.")}
        parameter.data.copy_(mine.pop("value"))
        trainee.optimizer.state[parameter] = {
            key: value if key == "step" else value.to(parameter.device) for key, value in mine.items()
        }


def _parameters(trainee: Trainee) -> list[nn.Parameter]:
    return [parameter for group in trainee.optimizer.param_groups for parameter in group["params"]]
