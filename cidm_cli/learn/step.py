"""One training: what is trained, by which method, one step of it.

Every random draw is a function of (seed, step, sample), so a run stopped at any step and taken up again ends in
the same bytes as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import CidmError, ExitCode
from ..formats.concept import ConceptWeights
from ..machine.processes import SOLO, Crew
from ..method.objective import denoising_loss, min_snr_weight, noised, target
from ..method.tokens import initial_tokens
from ..models import schedules, text
from ..models.base import Base
from ..models.lora import adapter, merged
from ..models.offload import present
from ..options.learn import LearnOptions
from .batches import Batch, Prepared, draw
from .shares import pieces

HALF_SCALE = 2.0**12
"""What the loss is multiplied by at first while its gradients are computed in float16."""


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
    optimizer: torch.optim.Optimizer
    schedule: schedules.Schedule
    """what training noises by"""
    method: Method
    """what it started from, and what is added to Eq. 1"""
    losses: list[float]
    """Eq. 1 of every step so far"""
    terms: dict[str, list[float]]
    """each of the method's terms, unweighted, of the steps so far that had it"""
    scale: float = 1.0
    """what the loss is multiplied by for its gradients; in float16 halved after each step that overflows"""

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def overflows(self) -> int:
        """Steps that float16 was too narrow for: each halved the scale."""
        return round(math.log2(HALF_SCALE / self.scale)) if self.base.compute == torch.float16 else 0

    def weights(self) -> ConceptWeights:
        """The concept as it now is."""
        up = {site: factors[0].detach().clone() for site, factors in self.factors.items()}
        down = {site: factors[1].detach().clone() for site, factors in self.factors.items()}
        return ConceptWeights(up, down, self.tokens.detach().clone())


def token_copies(base: Base, options: LearnOptions) -> int:
    """How many copies of its tokens a concept gets: one a group of layers, one a layer, or one for all."""
    if options.portable:
        return 1
    return len(base.layers) if options.token_groups == "layer" and base.groups > 1 else base.groups


@contextmanager
def training(
    base: Base, name: str, noun: str, options: LearnOptions, method: Method = PLAIN
) -> Iterator[Trainee]:
    """While open, the base carries the adapter of a new concept, at its start; then the base is as it was."""
    copies = token_copies(base, options)
    sites = base.sites(options.targets)
    again = options.checkpointing or base.architecture.texts_are_large(base, copies)
    encoders = () if base.family.texts_once else base.encoders
    with (
        present(base.device, base.denoiser, *encoders),
        merged(base.denoiser, method.frozen),
        base.architecture.trainable(base, spare=options.checkpointing),
        base.architecture.checkpointed(base, denoiser=options.checkpointing) if again else nullcontext(),
        adapter(base.denoiser, sites, rank=options.rank, scale=options.scale, seed=options.seed) as factors,
    ):
        table = text.token_table(base)
        generator = torch.Generator().manual_seed(options.seed)
        kept = text.noun_vectors(base, noun) if method.noun else table[:0]
        tokens = nn.Parameter(initial_tokens(kept, table, copies, generator))
        for site, start in (method.factors or {}).items():
            for parameter, value in zip(factors[site], start, strict=True):
                parameter.data.copy_(value)
        optimizer = make_optimizer(
            options.optimizer,
            [
                {"params": [p for pair in factors.values() for p in pair], "lr": options.lr},
                {"params": [tokens], "lr": options.token_lr},
            ],
            weight_decay=options.weight_decay,
        )
        schedule = schedules.training(base.scheduler_config, base.device)
        scale = HALF_SCALE if base.compute == torch.float16 else 1.0
        yield Trainee(base, name, factors, tokens, optimizer, schedule, method, [], {}, scale)


def train_step(trainee: Trainee, data: Prepared, options: LearnOptions, crew: Crew = SOLO) -> float:
    """One optimizer step; returns the denoising loss (Eq. 1) of its batches, without the method's terms.

    Several processes share its samples, and all take the same step.

    Raises:
        CidmError: FAILED when the loss is not finite, in any process. The weights are those of the step before, then.
    """
    step = trainee.step
    found = [_descend(trainee, data, options, part, numbers) for part, numbers in pieces(options, crew)]
    means = _together(trainee, found, crew)
    _settle(trainee)
    remaining = 1 - step / options.steps
    for group, rate in zip(trainee.optimizer.param_groups, (options.lr, options.token_lr), strict=True):
        group["lr"] = rate * remaining
    trainee.optimizer.step()
    trainee.optimizer.zero_grad(set_to_none=True)
    value = means.pop("")
    trainee.losses.append(value)
    for name, part in means.items():
        trainee.terms.setdefault(name, []).append(part)
    trainee.method.regulariser.stepped(trainee)
    return value


def _descend(
    trainee: Trainee, data: Prepared, options: LearnOptions, part: int, numbers: range | None = None
) -> dict[str, float]:
    """Adds a batch's share, or that of some of its samples, to the step's gradients.

    Returns the same share of the step's loss, by the name "", and of the method's terms.
    """
    batch = draw(data, options, trainee.step, len(trainee.schedule.times), part, numbers)
    share = len(batch.pictures) / (options.batch * options.accumulate)
    loss = denoising(trainee, batch, options.min_snr)
    # Eq. 2: the method's terms, γ1 R1 + γ2 R2 for CIDM, join the loss here.
    terms = trainee.method.regulariser.penalty(trainee, batch)
    whole = loss
    for term in terms.values():
        whole = whole + term.weight * term.value
    value, total, *parts = torch.stack([loss, whole, *(t.value for t in terms.values())]).tolist()
    if not math.isfinite(total):
        raise CidmError(
            f"concept {trainee.name}: the loss is {total} at step {trainee.step + 1}; nothing was committed",
            hint=f"try a lower --lr (now {options.lr:g}) or --token-lr (now {options.token_lr:g})",
            code=ExitCode.FAILED,
        )
    # In float16, gradients of a mean over many cells are smaller than what it holds: they are made larger on the way.
    (whole * (trainee.scale * share)).backward()
    return {name: share * each for name, each in zip(("", *terms), (value, *parts), strict=True)}


def _together(trainee: Trainee, found: Sequence[Mapping[str, float]], crew: Crew) -> dict[str, float]:
    """The sums of the shares found here and in all other processes; the gradients become theirs, too."""
    sums = torch.tensor([sum(values[name] for values in found) for name in found[0]], dtype=torch.float64)
    crew.add_up([sums, *(p.grad for p in parameters(trainee) if p.grad is not None)])
    return dict(zip(found[0], sums.tolist(), strict=True))


def _settle(trainee: Trainee) -> None:
    """Makes gradients their own size again; none where float16 overflowed, so that the step changes nothing.

    The scale then falls and never rises again, so that a checkpoint need hold no more of the past than the scale.

    Raises:
        CidmError: FAILED when they overflow even at their own size.
    """
    if trainee.base.compute != torch.float16:
        return
    gradients = [p.grad for p in parameters(trainee) if p.grad is not None]
    if all(torch.isfinite(gradient).all() for gradient in gradients):
        for gradient in gradients:
            gradient /= trainee.scale
        return
    trainee.optimizer.zero_grad(set_to_none=True)
    trainee.scale /= 2
    if trainee.scale < 1:
        raise CidmError(
            f"concept {trainee.name}: gradients overflow in float16 at step {trainee.step + 1}; nothing was committed",
            hint="learn with --precision bf16 or fp32",
        )


def gradients(trainee: Trainee, loss: torch.Tensor, of: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Of a loss by itself, outside of the steps; in float16 at the largest scale at which none overflows."""
    scale = trainee.scale
    while True:
        found = torch.autograd.grad(loss * scale, of, retain_graph=scale > 1)
        if scale == 1 or all(torch.isfinite(gradient).all() for gradient in found):
            return tuple(gradient / scale for gradient in found)
        scale /= 2


def denoising(
    trainee: Trainee, batch: Batch, min_snr: float = 0.0, contexts: Sequence[torch.Tensor] | None = None
) -> torch.Tensor:
    """Eq. 1 of a batch under its own captions; a scalar. With ``min_snr``, its timesteps are weighted by that γ.

    ``contexts`` are the captions as each layer sees them, where they hold no concept and were encoded before.
    """
    if contexts is None:
        contexts = text.encode(trainee.base, batch.prompts, {trainee.name: trainee.tokens})
    signal = trainee.schedule.signal[batch.times]
    wanted = target(trainee.base.prediction, batch.clean, batch.noise, signal)
    weights = min_snr_weight(trainee.base.prediction, signal, min_snr) if min_snr else None
    return denoising_loss(predict(trainee, batch, contexts, batch.pooled), wanted, batch.mask, weights)


def predict(
    trainee: Trainee, batch: Batch, contexts: Sequence[torch.Tensor], pooled: torch.Tensor | None
) -> torch.Tensor:
    """ε_θ'(z_t | c, t) of the batch's noised latents under other texts, like ``batch.clean``; θ' as it now is."""
    base, schedule = trainee.base, trainee.schedule
    latents = noised(base.prediction, batch.clean, batch.noise, schedule.signal[batch.times])
    return base.predict(latents, schedule.times[batch.times], contexts, pooled, batch.sizes)


def parameters(trainee: Trainee) -> list[nn.Parameter]:
    """Whatever the optimizer steps, always in the same order."""
    return [parameter for group in trainee.optimizer.param_groups for parameter in group["params"]]


def make_optimizer(
    name: str, groups: Sequence[dict[str, Any]], *, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over groups of parameters, each with its learning rate; "adamw8bit" keeps its moments in 8 bits."""
    if name == "adamw8bit":
        # Optional, and slow to import.
        from bitsandbytes.optim import AdamW8bit

        optimizer: torch.optim.Optimizer = AdamW8bit(groups, weight_decay=weight_decay)
        return optimizer
    return torch.optim.AdamW(groups, weight_decay=weight_decay)
