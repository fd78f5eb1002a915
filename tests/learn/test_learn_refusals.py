"""`cidm learn` where it says no, or goes wrong: early, in one line, and without a trace in the registry."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn import run as learn
from cidm_cli.learn import step as training
from cidm_cli.learn.run import Events
from cidm_cli.models.base import Base
from cidm_registry import Conflict, Registry
from command import Cidm
from learning import FAST, files_of, learn_direct, task
from registry_support import add


def test_an_existing_name_is_refused_before_the_model_loads(
    cidm: Cidm, base: Base, tiny_registry: Registry, pictures: Path, no_model: None
) -> None:
    learn_direct(tiny_registry, base, task(pictures, steps=1))
    before = files_of(tiny_registry.root)
    ran = cidm("learn", "DOG", pictures, "--registry", tiny_registry.root, *FAST)
    assert ran.code == ExitCode.FAILED
    assert "--update" in ran.error
    assert files_of(tiny_registry.root) == before


def test_a_registry_that_cannot_be_written_is_refused_before_the_model_loads(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Taking the permission away does not stop an administrator, and tests may be run by one.
    def refuse(*_args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("cidm_registry.store.write_temp", refuse)
    ran = cidm("learn", "rex", pictures, "--registry", tiny_registry.root, *FAST)
    assert ran.code == ExitCode.REGISTRY
    assert str(tiny_registry.root) in ran.error


def test_no_pictures_are_refused_before_the_model_loads(
    cidm: Cidm, tiny_registry: Registry, tmp_path: Path, no_model: None
) -> None:
    (tmp_path / "empty").mkdir()
    ran = cidm("learn", "rex", tmp_path / "empty", "--registry", tiny_registry.root)
    assert ran.code == ExitCode.INVALID
    assert "empty" in ran.error
    assert (
        cidm("learn", "rex", tmp_path / "none", "--registry", tiny_registry.root).code == ExitCode.NOT_FOUND
    )


@pytest.mark.parametrize("option", [("--steps", 0), ("--rank", 0), ("--lr", "nan"), ("--targets", "all")])
def test_an_impossible_option_is_refused_before_the_model_loads(
    option: tuple[str, object], cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None
) -> None:
    ran = cidm("learn", "rex", pictures, "--registry", tiny_registry.root, *option)
    assert ran.code == ExitCode.USAGE
    assert str(option[0]) in ran.error


def test_a_base_whose_weights_changed_is_refused(
    cidm: Cidm, tiny_base: Path, tmp_path: Path, pictures: Path, no_model: None
) -> None:
    mine = shutil.copytree(tiny_base, tmp_path / "mine")
    where = ("--registry", tmp_path / "own")
    assert cidm("init", "--base", mine, *where).code == 0
    weights = mine / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    ran = cidm("learn", "rex", pictures, *where, *FAST)
    assert ran.code == ExitCode.REGISTRY
    assert str(mine) in ran.error
    shutil.rmtree(mine)
    assert cidm("learn", "rex", pictures, *where, *FAST).code == ExitCode.NOT_FOUND


# A training that goes wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_commits_nothing(
    value: float,
    cidm: Cidm,
    base: Base,
    tiny_registry: Registry,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn_direct(tiny_registry, base, task(pictures, steps=1))
    before = {name: data for name, data in files_of(tiny_registry.root).items() if "runs/" not in name}
    sound = training.denoising_loss
    calls = iter(range(100))
    monkeypatch.setattr(
        training, "denoising_loss", lambda *a, **k: sound(*a, **k) * (value if next(calls) == 2 else 1)
    )
    ran = cidm("learn", "cat", pictures, "--registry", tiny_registry.root, *FAST)
    assert ran.code == ExitCode.FAILED
    assert "step 3" in ran.error
    assert "--lr" in ran.error
    after = {name: data for name, data in files_of(tiny_registry.root).items() if "runs/" not in name}
    assert after == before
    assert cidm("verify", "--registry", tiny_registry.root).code == 0


def test_weights_that_are_not_finite_at_the_end_are_not_committed(
    base: Base, tiny_registry: Registry, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = learn.fit

    def poisoned(trainee: training.Trainee, *rest: Any) -> None:
        step(trainee, *rest)
        trainee.tokens.data[0, 0, 0] = float("nan")

    monkeypatch.setattr(learn, "fit", poisoned)
    with pytest.raises(CidmError, match="NaN"):
        learn_direct(tiny_registry, base, task(pictures, steps=1))
    assert tiny_registry.records() == []


def test_a_concept_committed_meanwhile_is_not_ignored(
    base: Base, tiny_registry: Registry, pictures: Path
) -> None:
    """The lock may be a no-op: what was trained without knowing the other concept must not be committed."""

    def overtake(step: int, _loss: float) -> None:
        if step == 2:
            add(tiny_registry, "cat", 1)

    with pytest.raises(Conflict, match="cat"):
        learn_direct(tiny_registry, base, task(pictures), Events(on_step=overtake))
    assert [record.name for record in tiny_registry.records()] == ["cat"]
