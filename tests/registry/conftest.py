"""Registries to start from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cidm_registry import Registry
from registry_support import BASE, PNG, add, make_weights


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry."""
    return Registry.create(tmp_path / "registry", BASE)


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with history: dog (two versions, once called Hund), cat with a picture, one removed. Do not change."""
    registry = Registry.create(tmp_path_factory.mktemp("furnished") / "registry", BASE)
    add(registry, "Hund", 1)
    add(registry, "cat", 2, preview=PNG)
    add(registry, "gone", 3)
    registry.rename("Hund", "dog")
    add(registry, "dog", 4, update=True)
    registry.remove("gone")
    registry.start_run({"key": "bird"}).save(100, make_weights(50))
    return registry.root


@pytest.fixture
def copies(furnished: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes one fresh copy of the furnished registry after the other."""
    made = iter(range(10_000))

    def copy() -> Path:
        return Path(shutil.copytree(furnished, tmp_path / f"copy{next(made)}", symlinks=True))

    return copy
