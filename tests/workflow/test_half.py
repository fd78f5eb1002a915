"""Training in float16: gradients that it can hold, and steps that change nothing where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from cidm_cli.models.base import Base
from cidm_cli.workflow import training
from cidm_cli.workflow.batches import Prepared, prepare
from cidm_cli.workflow.learn import Events, caption_tokens
from cidm_cli.workflow.training import Trainee, train_step
from learning import task


@contextmanager
def trainee_of(base: Base, folder: Path) -> Iterator[tuple[Trainee, Prepared, object]]:
    work = task(folder)
    data = prepare(base, work.dataset, caption_tokens(base, work, Events()), work.options)
    with training.training(base, work.name, work.noun, work.options) as trainee:
        # Else nothing flows into the other factor yet.
        for up, _ in trainee.factors.values():
            up.data.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.01)
        yield trainee, data, work.options


def gradients(base: Base, folder: Path) -> torch.Tensor:
    with trainee_of(base, folder) as (trainee, data, options):
        training._descend(trainee, data, options, 0)  # type: ignore[arg-type]
        training._settle(trainee)
        found = [p.grad.flatten() for p in training.parameters(trainee) if p.grad is not None]
    return torch.cat(found)


def test_gradients_in_float16_are_those_of_float32(base: Base, tmp_path: Path) -> None:
    folder = tiny.save_pictures(tmp_path / "dog")
    exact = gradients(base, folder)
    half = gradients(replace(base, compute=torch.float16), folder)
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, half, dim=0) > 0.99
    assert abs(float(half.norm() / exact.norm()) - 1) < 0.05


def test_a_step_that_overflows_changes_nothing_and_the_next_one_goes_on(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = replace(base, compute=torch.float16)
    with trainee_of(half, tiny.save_pictures(tmp_path / "dog")) as (trainee, data, options):
        before = trainee.tokens.detach().clone()
        with monkeypatch.context() as patched:
            patched.setattr(training, "HALF_SCALE", float("inf"))
            train_step(trainee, data, options)  # type: ignore[arg-type]
        assert torch.equal(trainee.tokens, before)
        train_step(trainee, data, options)  # type: ignore[arg-type]
        assert not torch.equal(trainee.tokens, before)
        assert torch.isfinite(trainee.tokens).all()
