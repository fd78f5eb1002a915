"""The baselines as methods of training: what EWC, LwF and C-LoRA add to Eq. 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from ..errors import CidmError, ExitCode
from ..formats.concept import ConceptWeights
from ..method import baselines
from ..models import text
from ..options.learn import LearnOptions
from .batches import Batch, Prepared, draw
from .step import Factors, Regulariser, Term, Trainee, denoising, gradients, predict


def ewc(sites: Sequence[str], previous: ConceptWeights | None, name: str, weight: float) -> Regulariser:
    """Holds the LoRA to what ``previous`` left, the more so where its pictures' loss is sensitive.

    Args:
        sites: LoRA sites in training.
        previous: the concept learned last, or None for the first one, which only leaves its Fisher information.
        name: its name, for errors.
        weight: λ.

    Raises:
        CidmError: INVALID when its file holds no Fisher information.
    """
    names = [f"fisher.{site}.{factor}" for site in sites for factor in ("up", "down")]
    anchor = _numbers(sites, previous) if previous else []
    known = [previous.state.get(name) for name in names] if previous else []
    fisher = [f for f, theta in zip(known, anchor, strict=True) if f is not None and f.shape == theta.shape]
    if len(fisher) < len(anchor):
        raise CidmError(
            f"concept {name}: its file holds no Fisher information that fits, so EWC cannot go on from it",
            hint="learn it again with --method ewc, or begin a registry: cidm init --registry PATH",
            code=ExitCode.INVALID,
        )

    def penalty(trainee: Trainee, _batch: Batch) -> Mapping[str, Term]:
        if not anchor or not weight:
            return {}
        return {"ewc": Term(weight, baselines.anchored(_theta(trainee), anchor, fisher))}

    def keep(trainee: Trainee, data: Prepared, options: LearnOptions) -> Mapping[str, torch.Tensor]:
        new = baselines.fisher_diagonal(_gradients(trainee, data, options))
        return dict(zip(names, baselines.accumulated(fisher, new), strict=True))

    return Regulariser(penalty=penalty, keep=keep)


def _gradients(trainee: Trainee, data: Prepared, options: LearnOptions) -> Iterator[Sequence[torch.Tensor]]:
    """Of single samples, drawn as the steps behind the last one would be."""
    single = replace(options, batch=1, accumulate=1)
    for number in range(options.ewc_draws):
        batch = draw(data, single, options.steps + number, len(trainee.schedule.times))
        yield gradients(trainee, denoising(trainee, batch), _theta(trainee))


def lwf(
    previous: Factors,
    vectors: Mapping[str, torch.Tensor],
    texts: Mapping[str, Sequence[text.Tokens]],
    options: LearnOptions,
) -> Regulariser:
    """Holds what the model predicts for older concepts to what it predicted before.

    Args:
        previous: the LoRA of the concept learned last.
        vectors: tokens of each older concept [layers, n_tokens, width].
        texts: for each older concept, the pictures' captions with it in the new concept's place.
        options: of the training.
    """
    names = list(texts)

    def penalty(trainee: Trainee, batch: Batch) -> Mapping[str, Term]:
        if not names or not options.lwf_weight:
            return {}
        chosen = names[int(np.random.default_rng((options.seed, trainee.step, 0, 0x1F)).integers(len(names)))]
        prompts = [texts[chosen][picture] for picture in batch.pictures]
        pooled = text.pooled(trainee.base, prompts)
        with torch.no_grad():
            contexts = text.encode(trainee.base, prompts, vectors)
            with _in_place(trainee, previous):
                before = predict(trainee, batch, contexts, pooled)
        now = predict(trainee, batch, contexts, pooled)
        return {"lwf": Term(options.lwf_weight, baselines.distillation(now, before))}

    return Regulariser(penalty=penalty)


def c_lora(frozen: Mapping[str, torch.Tensor], options: LearnOptions) -> Regulariser:
    """Keeps the new weights off the entries where ``frozen``, the older ones' sum, is large."""

    def penalty(trainee: Trainee, _batch: Batch) -> Mapping[str, Term]:
        shared = [site for site in trainee.factors if site in frozen]
        if not shared or not options.clora_weight:
            return {}
        value = baselines.self_regularisation(trainee.factors, frozen, options.scale)
        return {"c-lora": Term(options.clora_weight, value)}

    return Regulariser(penalty=penalty)


@contextmanager
def _in_place(trainee: Trainee, factors: Factors) -> Iterator[None]:
    """While open, the adapter holds other numbers; then its own again, in the same memory."""
    own = {site: tuple(parameter.data for parameter in pair) for site, pair in trainee.factors.items()}
    try:
        for site, pair in trainee.factors.items():
            for parameter, value in zip(pair, factors[site], strict=True):
                parameter.data = value
        yield
    finally:
        for site, pair in trainee.factors.items():
            for parameter, value in zip(pair, own[site], strict=True):
                parameter.data = value


def _theta(trainee: Trainee) -> list[torch.Tensor]:
    return [parameter for pair in trainee.factors.values() for parameter in pair]


def _numbers(sites: Sequence[str], weights: ConceptWeights) -> list[torch.Tensor]:
    """The same of a stored concept, in the order of ``sites``."""
    return [factor for site in sites for factor in (weights.up[site], weights.down[site])]
