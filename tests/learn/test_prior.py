"""Prior preservation: the base's own pictures of the class noun, learned beside a concept's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from cidm_cli.data import placement
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn import batches, prior
from cidm_cli.learn import run as learn
from cidm_cli.learn import step as training
from cidm_cli.learn.assignment import Task
from cidm_cli.learn.cache import Cache
from cidm_cli.learn.run import Events, caption_tokens
from cidm_cli.models import sampling
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry
from command import Cidm
from learning import FAST, learn_direct, task

NOWHERE = Cache(None, "")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures in two steps instead of fifty."""
    monkeypatch.setattr(prior, "resolve_draw", lambda *given: replace(resolve_draw(*given), steps=2))


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of two sizes."""
    monkeypatch.setattr(placement, "STEP", 32)
    folder = tiny.save_pictures(tmp_path / "mixed")
    Image.open(folder / "1.png").resize((120, 40)).save(folder / "1.png")
    return folder


def ours(base: Base, work: Task) -> prior.Prior:
    said = learn.prior_captions(work)
    return prior.prepare(base, "sd15", said, work.options, NOWHERE)


def stopping_at(step: int) -> Events:
    done = [0]
    return Events(on_step=lambda n, _: done.__setitem__(0, n), stop=lambda: done[0] >= step)


# What is drawn


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_pictures_are_those_the_base_draws_of_the_noun(
    family: str, cidm: Cidm, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue({"sd15": "tiny_base", "sdxl": "tiny_sdxl"}[family])
    base = request.getfixturevalue({"sd15": "base", "sdxl": "sdxl"}[family])
    registry = Registry.create(tmp_path / "registry", identify(str(folder)))
    work = task(tiny.save_pictures(tmp_path / "dog"), prior=5, seed=3)
    data = ours(base, work).data
    assert {tuple(mean.shape) for mean in data.mean} == {(1, 4, 8, 8)}
    assert not any(std.any() for std in data.std)
    found = [*sampling.decode(base, torch.cat(data.mean[:4])), *sampling.decode(base, data.mean[4])]
    ran = cidm(
        "generate", "-p", "a photo of a dog", "-n", 5, "--seed", 3, "--steps", 2, "-q", "--precision", "fp32",
        "--registry", registry.root,
    )  # fmt: skip
    for mine, drawn in zip(found, ran.out.splitlines(), strict=True):
        assert np.abs(np.asarray(mine, dtype=int) - np.asarray(Image.open(drawn))).max() <= 1


def test_a_styles_pictures_show_what_its_captions_say_without_naming_it(tmp_path: Path) -> None:
    folder = tiny.save_pictures(tmp_path / "ink", ("a toy of a dog", "a toy of a cat"))
    work = task(folder, name="ink", noun="toy", prior=3)
    assert learn.prior_captions(work) == ["a photo of a toy"] * 3
    said = learn.prior_captions(replace(work, style=True))
    assert sorted(said[:2]) == ["a toy of a cat", "a toy of a dog"]
    assert said[2] == said[0]


def test_the_bare_base_draws_them_whatever_was_learned_before_and_only_once(
    base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path, denoised: list[int]
) -> None:
    for name in ("dog", "cat"):
        work = task(pictures, name=name, prior=6, method="finetune")
        learn.learn(tiny_registry, base, work, Events(), tmp_path / "cache")
        assert denoised == [4, 2]


def test_stopped_while_drawing_goes_on_with_what_was_drawn(
    base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path, denoised: list[int]
) -> None:
    with pytest.raises(CidmError, match="4 of the 6 images") as caught:
        learn.learn(
            tiny_registry, base, task(pictures, prior=6), Events(stop=lambda: True), tmp_path / "cache"
        )
    assert caught.value.code == ExitCode.INTERRUPTED
    learn.learn(tiny_registry, base, task(pictures, prior=6), Events(), tmp_path / "cache")
    assert denoised == [4, 2]


# What is learned


@pytest.mark.parametrize("more", [{}, {"accumulate": 2}, {"min_snr": 1.0}])
def test_a_step_adds_the_weighted_loss_of_as_many_prior_pictures(
    more: dict[str, Any], base: Base, pictures: Path
) -> None:
    work = task(pictures, prior=3, prior_weight=0.5, **more)
    options = work.options
    data = batches.prepare(base, work.dataset, caption_tokens(base, work, Events()), options)
    mine = ours(base, work)
    method = prior.beside(training.PLAIN, mine, options)
    with training.training(base, "dog", "dog", options, method) as trainee:
        for up, _ in trainee.factors.values():
            up.data.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
        found = [training._descend(trainee, data, options, part) for part in range(options.accumulate)]
        gradients = [p.grad.clone() for p in training.parameters(trainee) if p.grad is not None]
        trainee.optimizer.zero_grad(set_to_none=True)
        shown, losses = set(), []
        for part in range(options.accumulate):
            own = batches.draw(data, options, 0, 1000, part)
            other = batches.draw(mine.data, replace(options, seed=prior.APART), 0, 1000, part)
            assert len(other.clean) == len(own.clean) == options.batch
            assert not own.noise.equal(other.noise)
            shown |= {*other.pictures}
            # Here the captions are encoded as those of any picture.
            losses.append(training.denoising(trainee, other, options.min_snr))
            loss = training.denoising(trainee, own, options.min_snr) + 0.5 * losses[-1]
            (loss / options.accumulate).backward()
        expected = [p.grad for p in training.parameters(trainee) if p.grad is not None]
    assert len(shown) == min(3, options.batch * options.accumulate), "each part has pictures of its own"
    assert [one["prior"] * options.accumulate for one in found] == pytest.approx(
        [loss.item() for loss in losses], rel=1e-4
    )
    for one, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(("family", "more"), [("sd15", {}), ("sdxl", {"accumulate": 2})])
def test_a_resumed_training_ends_in_the_same_bytes_whatever_is_in_the_cache(
    family: str, more: dict[str, Any], mixed: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue({"sd15": "tiny_base", "sdxl": "tiny_sdxl"}[family])
    base = request.getfixturevalue({"sd15": "base", "sdxl": "sdxl"}[family])
    whole = Registry.create(tmp_path / "whole", identify(str(folder)))
    parts = Registry.create(tmp_path / "parts", whole.base)
    record = learn_direct(whole, base, task(mixed, prior=3, **more))
    assert record.losses["prior"] > 0
    assert learn_direct(whole, base, task(mixed, name="cat", method="plain", **more)).blob != record.blob
    with pytest.raises(CidmError, match="stopped at step 2"):
        learn_direct(parts, base, task(mixed, prior=3, **more), stopping_at(2))
    fresh = Registry.create(tmp_path / "fresh", whole.base)
    for registry in (parts, fresh):
        again = task(mixed, prior=3, resume=True, **more)
        made = learn.learn(registry, base, again, Events(), tmp_path / "cache")
        assert made.blob == record.blob


def test_a_weight_of_nothing_draws_nothing_and_changes_nothing(
    base: Base, tiny_registry: Registry, pictures: Path, denoised: list[int]
) -> None:
    plain = learn_direct(tiny_registry, base, task(pictures))
    other = Registry.create(tiny_registry.root.with_name("other"), tiny_registry.base)
    without = learn_direct(other, base, task(pictures, prior=3, prior_weight=0.0))
    assert without.blob == plain.blob
    assert "prior" not in without.losses
    assert denoised == []


# The command line


def test_a_plan_says_how_many_will_be_drawn_and_draws_none(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, denoised: list[int]
) -> None:
    ran = cidm(
        "learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--prior", 7, "--dry-run", "--json"
    )
    assert ran.answer["plan"]["prior"] == 7
    assert denoised == []


@pytest.mark.parametrize(
    ("said", "named"), [(("--prior", -1), "--prior -1"), (("--prior-weight", 2), "belongs to --prior")]
)
def test_what_makes_no_sense_is_refused_before_the_model_loads(
    said: tuple[object, ...], named: str, cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None
) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *said)
    assert ran.code == ExitCode.USAGE
    assert named in ran.error
