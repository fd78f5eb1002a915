"""A very small base to learn and draw on, and the command line to do it with."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from cidm_cli.shell.main import allow_the_same_kernels
from cidm_registry import Registry
from command import Cidm, Ran

if TYPE_CHECKING:
    from cidm_cli.models.base import Base

allow_the_same_kernels(os.environ)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core: threads of torch beside it would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# torch and diffusers take seconds to import: only the tests that ask for a model wait for them.


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Stable Diffusion 1.5 made very small, with random weights. Do not change."""
    import torch

    import tiny

    # Its products are so small that a second thread only adds waiting.
    torch.set_num_threads(1)
    return tiny.save(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an SDXL made very small, with random weights. Do not change."""
    import torch

    import tiny

    torch.set_num_threads(1)
    return tiny.save_sdxl(tmp_path_factory.mktemp("base") / "tiny-sdxl")


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl: Path) -> Base:
    """The small SDXL, loaded. Whoever changes it has to leave it as it was."""
    import torch

    from cidm_cli.models.base import load

    return load(tiny_sdxl, device=torch.device("cpu"), compute=torch.float32)


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    """The tiny base, loaded. Whoever changes it, for a training or a drawing, has to leave it as it was."""
    import torch

    from cidm_cli.models.base import load

    return load(tiny_base, device=torch.device("cpu"), compute=torch.float32)


@pytest.fixture
def tiny_registry(tiny_base: Path, tmp_path: Path) -> Registry:
    """An empty registry on the tiny base."""
    from cidm_cli.models.identity import identify

    return Registry.create(tmp_path / "registry", identify(str(tiny_base)))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures, each with the caption "a photo of a dog"."""
    import tiny

    return tiny.save_pictures(tmp_path / "pictures")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no settings of whoever runs the tests."""
    for name in [
        name for name in os.environ if name.startswith("CIDM_") or name in ("NO_COLOR", "FORCE_COLOR")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("CIDM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def plain_signals() -> Iterator[None]:
    """Signals do what they do by themselves, here and in programs that are started here.

    Whoever starts the tests may have them ignored, as ``nohup`` and a shell's ``&`` do, and that is inherited.
    """
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cidm(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> Cidm:
    """Runs the command line as the installed program does, in this process and an empty working folder."""
    from cidm_cli.shell.main import main

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails whoever loads a base: what is refused must be refused before."""

    from cidm_cli.models import base

    def load(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(base, "load", load)


@pytest.fixture
def denoised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of pictures each time some are drawn."""
    from cidm_cli.models import sampling

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
    import judging
    from cidm_cli.models.identity import identify
    from learning import learn_direct, task

    folder = tmp_path_factory.mktemp("place")
    judging.save_data(folder / "data", dog="dog", cat="cat")
    judging.save_clip(folder / "clip", with_tokenizer=True)
    judging.save_resnet(folder / "dino")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    for name in ("dog", "cat"):
        learn_direct(registry, base, task(folder / "data" / "pictures" / name, name=name, noun=name))
    return folder


@pytest.fixture(scope="module", params=["flux2-klein", "z-image"])
def joint_kind(request: pytest.FixtureRequest) -> str:
    """A family whose text and picture are one sequence."""
    return str(request.param)


@pytest.fixture(scope="module")
def joint_small(joint_kind: str) -> ModuleType:
    """Its base made very small."""
    import torch

    torch.set_num_threads(1)
    return import_module({"flux2-klein": "tiny_flux2", "z-image": "tiny_zimage"}[joint_kind])


@pytest.fixture(scope="module")
def joint_registry(joint_small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry on it that knows <dog> and <cat>. Do not change."""
    import learning

    folder = tmp_path_factory.mktemp("taught")
    return learning.taught(joint_small.save(folder / "base"), folder, **learning.STRONG)
