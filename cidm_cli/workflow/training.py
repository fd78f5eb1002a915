"""One training: what is trained, by which method, one step of it, its checkpoints.

Every random draw is a function of (seed, step, sample), so a run stopped at any step and taken up again ends in
the same bytes as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load, save
from torch import nn

from ..data import Dataset, Placement, draw_augmentation
from ..errors import CidmError, ExitCode
from ..formats.concept import ConceptWeights
from ..method.objective import denoising_loss, noised, target
from ..method.tokens import initial_tokens
from ..models import prediction, text
from ..models.attention import cross_attention_layers, layer_groups, lora_sites, merged
from ..models.base import Base, trainable_attention
from ..models.lora import adapter
from ..models.sampling import encode
from ..options import LearnOptions

_TERM, _STATE = "term.", "method."
HALF_SCALE = 2.0**12
"""What the loss is multiplied by while its gradients are computed in float16."""


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
    pooled: torch.Tensor | None = None
    """The captions as wholes [pictures, width], where the base wants them."""
    sizes: torch.Tensor | None = None
    """What SDXL is told of each variant's size and cutting (``prediction.ask``) [pictures, variants, 6]."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    clean: torch.Tensor
    """Latents z_0 [batch, channels, h, w]"""
    noise: torch.Tensor
    """ε, like ``clean``"""
    times: torch.Tensor
    """Timesteps [batch]"""
    prompts: tuple[text.Tokens, ...]
    """Caption of each sample"""
    pictures: tuple[int, ...]
    """Number of the picture that each sample shows"""
    mask: torch.Tensor | None
    """[batch, 1, h, w], or None"""
    pooled: torch.Tensor | None = None
    """The captions as wholes [batch, width], where the base wants them"""
    sizes: torch.Tensor | None = None
    """[batch, 6], like those of ``Prepared``"""


@dataclass(frozen=True)
class Term:
    """What is added to Eq. 1: weight times value."""

    weight: float
    value: torch.Tensor
    """A scalar; its mean over the last steps is kept in the concept's record, without the weight."""


@dataclass(frozen=True)
class Regulariser:
    """What a method adds to Eq. 1 and carries along while training. Each part is nothing unless given."""

    penalty: Callable[[Trainee, Batch], Mapping[str, Term]] = lambda trainee, batch: {}
    """The terms of a step, by their names in the record."""
    stepped: Callable[[Trainee], None] = lambda trainee: None
    """Called after each optimizer step, ``trainee.step`` being the number of steps done."""
    state: Callable[[], Mapping[str, torch.Tensor]] = lambda: {}
    """What a checkpoint has to hold of it."""
    restore: Callable[[Mapping[str, torch.Tensor]], None] = lambda state: None
    """Takes up what ``state`` gave."""
    keep: Callable[[Trainee, Prepared, LearnOptions], Mapping[str, torch.Tensor]] = lambda *_: {}
    """After the last step: what is stored with the concept, for the ones to come."""


Factors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""(up [out, r], down [r, in]) of each LoRA site."""


@dataclass(frozen=True)
class Method:
    """A way to train a concept: what it starts from, and what is added to Eq. 1."""

    factors: Factors | None = None
    """What the low-rank weights start from; None: new ones."""
    frozen: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """ΔW [out, in] of sites, part of the base's weights while training."""
    noun: bool = True
    """Whether the class noun's embeddings follow the new token."""
    regulariser: Regulariser = field(default_factory=Regulariser)


PLAIN = Method()
"""Eq. 1 alone."""


@dataclass
class Trainee:
    """A concept in training on a base that carries its adapter."""

    base: Base
    name: str
    factors: Mapping[str, tuple[nn.Parameter, nn.Parameter]]
    """(up, down) of each LoRA site"""
    tokens: nn.Parameter
    """[copies, n_tokens, width]: a copy for each layer or group of layers, or one for all"""
    optimizer: torch.optim.AdamW
    signal: torch.Tensor
    """ᾱ of each timestep of the base's schedule"""
    method: Method
    """what it started from, and what is added to Eq. 1"""
    losses: list[float]
    """Eq. 1 of every step so far"""
    terms: dict[str, list[float]]
    """each of the method's terms, unweighted, of the steps so far that had it"""

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
    means, stds, masks, sizes = [], [], [], []
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
        sizes.append([_told_size(p, example.image.size, size) for p in placements])
        if any(e.mask for e in dataset.examples):
            for p in placements:
                cell_mask = p.apply(example.mask, size).resize((cells, cells)) if example.mask else None
                array = np.ones((cells, cells)) if cell_mask is None else np.asarray(cell_mask) / 255
                masks.append(torch.from_numpy(array).float())
    stacked = (
        torch.stack(masks).view(len(means), variants, 1, cells, cells).to(base.device) if masks else None
    )
    return Prepared(
        torch.stack(means), torch.stack(stds), stacked, tuple(prompts), text.pooled(base, prompts),
        torch.tensor(sizes, dtype=torch.float32, device=base.device) if base.family == "sdxl" else None,
    )  # fmt: skip


def _told_size(placement: Placement, image: tuple[int, int], canvas: tuple[int, int]) -> list[int]:
    """Height and width of a picture, top and left of the piece that is seen, and its height and width."""
    left, top = placement.corner(image, canvas)
    return [image[1], image[0], top, left, canvas[1], canvas[0]]


def token_copies(base: Base, options: LearnOptions) -> int:
    """How many copies of its tokens a concept gets: one a group of layers, one a layer, or one for all."""
    if options.portable:
        return 1
    groups = layer_groups(base.unet)
    return len(groups) if options.token_groups == "layer" else max(groups) + 1


@contextmanager
def training(
    base: Base, name: str, noun: str, options: LearnOptions, method: Method = PLAIN
) -> Iterator[Trainee]:
    """While open, the base carries the adapter of a new concept, at its start; then the base is as it was."""
    copies = token_copies(base, options)
    table = text.token_table(base)
    generator = torch.Generator().manual_seed(options.seed)
    kept = table[text.noun_ids(base, noun) if method.noun else []]
    tokens = nn.Parameter(initial_tokens(kept, table, copies, generator))
    sites = lora_sites(base.unet, options.targets)
    with (
        trainable_attention(base),
        merged(base.unet, method.frozen),
        adapter(base.unet, sites, rank=options.rank, scale=options.scale, seed=options.seed) as factors,
    ):
        for site, start in (method.factors or {}).items():
            for parameter, value in zip(factors[site], start, strict=True):
                parameter.data.copy_(value)
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for pair in factors.values() for p in pair], "lr": options.lr},
                {"params": [tokens], "lr": options.token_lr},
            ],
            weight_decay=options.weight_decay,
        )
        signal = DDPMScheduler.from_config(base.scheduler_config).alphas_cumprod.to(base.device)
        yield Trainee(base, name, factors, tokens, optimizer, signal, method, [], {})


def train_step(trainee: Trainee, data: Prepared, options: LearnOptions) -> float:
    """One optimizer step on one batch; returns its denoising loss (Eq. 1), without the method's terms.

    Raises:
        CidmError: FAILED when the loss is not finite. The weights are those of the step before, then.
    """
    step = trainee.step
    batch = draw(data, options, step, len(trainee.signal))
    loss = denoising(trainee, batch)
    # Eq. 2: the method's terms, γ1 R1 + γ2 R2 for CIDM, join the loss here.
    terms = trainee.method.regulariser.penalty(trainee, batch)
    whole = loss
    for term in terms.values():
        whole = whole + term.weight * term.value
    value, total, *parts = torch.stack([loss, whole, *(t.value for t in terms.values())]).tolist()
    if not math.isfinite(total):
        raise CidmError(
            f"concept {trainee.name}: the loss is {total} at step {step + 1}; nothing was committed",
            hint=f"try a lower --lr (now {options.lr:g}) or --token-lr (now {options.token_lr:g})",
            code=ExitCode.FAILED,
        )
    _descend(trainee, whole)
    remaining = 1 - step / options.steps  # type: ignore[operator]
    for group, rate in zip(trainee.optimizer.param_groups, (options.lr, options.token_lr), strict=True):
        group["lr"] = rate * remaining  # type: ignore[operator]
    trainee.optimizer.step()
    trainee.optimizer.zero_grad(set_to_none=True)
    trainee.losses.append(value)
    for name, part in zip(terms, parts, strict=True):
        trainee.terms.setdefault(name, []).append(part)
    trainee.method.regulariser.stepped(trainee)
    return value


def _descend(trainee: Trainee, loss: torch.Tensor) -> None:
    """Leaves each trained number its gradient; none where float16 overflowed, so that the step changes nothing."""
    if trainee.base.compute != torch.float16:
        loss.backward()
        return
    # Gradients of a mean over many cells are smaller than what float16 holds: they are made larger on the way.
    (loss * HALF_SCALE).backward()
    gradients = [p.grad for p in _parameters(trainee) if p.grad is not None]
    if not all(torch.isfinite(gradient).all() for gradient in gradients):
        trainee.optimizer.zero_grad(set_to_none=True)
        return
    for gradient in gradients:
        gradient /= HALF_SCALE


def denoising(trainee: Trainee, batch: Batch) -> torch.Tensor:
    """Eq. 1 of a batch under its own captions; a scalar."""
    layers = len(cross_attention_layers(trainee.base.unet))
    contexts = text.encode(trainee.base, batch.prompts, {trainee.name: trainee.tokens}, layers=layers)
    wanted = target(trainee.base.prediction, batch.clean, batch.noise, trainee.signal[batch.times])
    return denoising_loss(predict(trainee, batch, contexts, batch.pooled), wanted, batch.mask)


def predict(
    trainee: Trainee, batch: Batch, contexts: Sequence[torch.Tensor], pooled: torch.Tensor | None
) -> torch.Tensor:
    """ε_θ'(z_t | c, t) of the batch's noised latents under other texts, like ``batch.clean``; θ' as it now is."""
    latents = noised(batch.clean, batch.noise, trainee.signal[batch.times])
    return prediction.predict(trainee.base, latents, batch.times, contexts, pooled, batch.sizes)


def draw(data: Prepared, options: LearnOptions, step: int, timesteps: int) -> Batch:
    """The batch of a step, a function of the seed and the step alone."""
    count = options.batch
    assert count is not None
    pictures, variants = data.mean.shape[:2]
    clean, noise, times, shown, masks, sizes = [], [], [], [], [], []
    for sample in range(count):
        epoch, place = divmod(step * count + sample, pictures)
        picture = int(np.random.default_rng((options.seed, epoch, 0xE)).permutation(pictures)[place])
        rng = np.random.default_rng((options.seed, step, sample))
        variant = int(rng.integers(variants))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        shape = data.mean.shape[2:]
        spread = torch.randn(shape, generator=generator).to(data.mean)
        clean.append(data.mean[picture, variant] + data.std[picture, variant] * spread)
        noise.append(torch.randn(shape, generator=generator).to(data.mean))
        # One timestep from each of `count` equal stretches: uniform over all, and less noisy than free draws.
        times.append(int((sample + rng.random()) / count * timesteps))
        shown.append(picture)
        if data.masks is not None:
            masks.append(data.masks[picture, variant])
        if data.sizes is not None:
            sizes.append(data.sizes[picture, variant])
    return Batch(
        clean=torch.stack(clean), noise=torch.stack(noise), times=torch.tensor(times, device=data.mean.device),
        prompts=tuple(data.prompts[picture] for picture in shown), pictures=tuple(shown),
        mask=torch.stack(masks) if masks else None,
        pooled=None if data.pooled is None else data.pooled[shown], sizes=torch.stack(sizes) if sizes else None,
    )  # fmt: skip


def checkpoint(trainee: Trainee) -> bytes:
    """Everything needed to go on: factors, tokens, the optimizer's moments, the method's state, the losses so far."""
    tensors = {"losses": torch.tensor(trainee.losses, dtype=torch.float64)}
    for name, values in trainee.terms.items():
        tensors[_TERM + name] = torch.tensor(values, dtype=torch.float64)
    for name, tensor in trainee.method.regulariser.state().items():
        tensors[_STATE + name] = tensor.detach()
    for number, parameter in enumerate(_parameters(trainee)):
        tensors[f"{number:04d}.value"] = parameter.detach()
        for key, value in trainee.optimizer.state[parameter].items():
            tensors[f"{number:04d}.{key}"] = value
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def restore(trainee: Trainee, blob: bytes) -> None:
    """Takes up a training where ``checkpoint`` left it."""
    tensors = load(blob)
    trainee.losses[:] = tensors.pop("losses").tolist()
    trainee.terms.clear()
    trainee.terms.update({name: values.tolist() for name, values in _under(_TERM, tensors).items()})
    state = {name: tensor.to(trainee.base.device) for name, tensor in _under(_STATE, tensors).items()}
    trainee.method.regulariser.restore(state)
    for number, parameter in enumerate(_parameters(trainee)):
        mine = _under(f"{number:04d}.", tensors)
        parameter.data.copy_(mine.pop("value"))
        trainee.optimizer.state[parameter] = {
            key: value if key == "step" else value.to(parameter.device) for key, value in mine.items()
        }


def _parameters(trainee: Trainee) -> list[nn.Parameter]:
    return [parameter for group in trainee.optimizer.param_groups for parameter in group["params"]]


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What begins with ``prefix``, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
