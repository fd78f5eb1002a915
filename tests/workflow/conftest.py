"""What several tests of workflows need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import judging
from cidm_cli.models import sampling
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.workflow import bases
from cidm_registry import Registry
from learning import learn_direct, task


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails whoever loads a base: what is refused must be refused before."""

    def load(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(bases.bases, "load", load)


@pytest.fixture
def denoised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of pictures each time some are drawn."""
    drawn: list[int] = []
    real = sampling.denoise

    def count(*args: object, **options: object) -> object:
        drawn.append(args[2].shape[0])  # type: ignore[attr-defined]
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sampling, "denoise", count)
    return drawn


@pytest.fixture(scope="module")
def place(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows <dog> and <cat>, data for both, and judges. Do not change."""
    folder = tmp_path_factory.mktemp("place")
    judging.save_data(folder / "data", dog="dog", cat="cat")
    judging.save_clip(folder / "clip", with_tokenizer=True)
    judging.save_resnet(folder / "dino")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    for name in ("dog", "cat"):
        learn_direct(registry, base, task(folder / "data" / "pictures" / name, name=name, noun=name))
    return folder
