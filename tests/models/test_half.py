"""Training in float16: gradients that it can hold, and steps that change nothing where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

import tiny
from cidm_cli.errors import CidmError
from cidm_cli.learn import step as training
from cidm_cli.learn.batches import Prepared, prepare
from cidm_cli.learn.run import Events, caption_tokens
from cidm_cli.learn.step import Trainee, train_step
from cidm_cli.models.base import Base
from cidm_registry import Registry
from command import Cidm
from learning import FAST, learn_direct, task


@contextmanager
def trainee_of(base: Base, folder: Path) -> Iterator[tuple[Trainee, Prepared, object]]:
    work = task(folder, steps=60)
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


def test_a_step_that_overflows_changes_nothing_and_the_next_ones_scale_less(
    base: Base, tmp_path: Path
) -> None:
    half = replace(base, compute=torch.float16)
    with trainee_of(half, tiny.save_pictures(tmp_path / "dog")) as (trainee, data, options):
        before = [p.detach().clone() for p in training.parameters(trainee)]
        trainee.scale = 2.0**40
        changed = []
        while not any(changed):
            train_step(trainee, data, options)  # type: ignore[arg-type]
            assert trainee.step < 40, "some scale is small enough"
            changed = [not a.equal(b) for a, b in zip(before, training.parameters(trainee), strict=True)]
        assert trainee.scale == 2.0 ** (41 - trainee.step)
        assert trainee.step > 1
        assert all(torch.isfinite(parameter).all() for parameter in training.parameters(trainee))


def test_gradients_that_overflow_at_their_own_size_end_the_training(base: Base, tmp_path: Path) -> None:
    half = replace(base, compute=torch.float16)
    with trainee_of(half, tiny.save_pictures(tmp_path / "dog")) as (trainee, _, _):
        trainee.scale = 1.0
        trainee.tokens.grad = torch.full_like(trainee.tokens, float("inf"))
        with pytest.raises(CidmError, match="overflow in float16 at step 1") as caught:
            training._settle(trainee)
    assert "bf16" in str(caught.value.hint)


def test_a_resumed_training_in_float16_that_overflowed_ends_in_the_same_bytes(
    base: Base, tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "HALF_SCALE", 2.0**24)
    half, folder = replace(base, compute=torch.float16), tiny.save_pictures(tmp_path / "dog")
    other = Registry.create(tmp_path / "other", tiny_registry.base)
    notes: list[str] = []
    whole = learn_direct(other, half, task(folder, steps=14), Events(on_note=notes.append))
    assert any("overflowed in float16" in note for note in notes), "else this tests nothing"
    for stop in (3, 9):
        done = [0]
        events = Events(
            on_step=lambda n, _, done=done: done.__setitem__(0, n),  # type: ignore[misc]
            stop=lambda done=done, stop=stop: done[0] >= stop,  # type: ignore[misc]
        )
        with pytest.raises(CidmError, match="stopped"):
            learn_direct(tiny_registry, half, task(folder, steps=14, resume=stop > 3), events)
    assert learn_direct(tiny_registry, half, task(folder, steps=14, resume=True)).blob == whole.blob


@pytest.mark.parametrize("method", ["plain", "ewc"])
def test_what_is_learned_in_float16_is_close_to_float32(
    method: str, cidm: Cidm, tiny_registry: Registry, tmp_path: Path
) -> None:
    folder = tiny.save_pictures(tmp_path / "dog")
    blobs = {}
    for precision in ("fp32", "fp16"):
        registry = Registry.create(tmp_path / precision, tiny_registry.base)
        ran = cidm(
            "learn", "dog", folder, "--registry", registry.root, *FAST, "--method", method,
            "--precision", precision,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        record = registry.get("dog")
        assert record.config["precision"] == {"fp32": "float32", "fp16": "float16"}[precision]
        blobs[precision] = load(registry.read_blob(record.blob))
    for part in ("lora_B", "tokens", *(["state."] if method == "ewc" else [])):
        exact, half = (
            torch.cat([t.flatten() for name, t in sorted(blobs[p].items()) if part in name])
            for p in ("fp32", "fp16")
        )
        assert torch.nn.functional.cosine_similarity(exact, half, dim=0) > 0.99, part
        assert 0.95 < float(half.norm() / exact.norm()) < 1.05, part
