"""What several tests of workflows need."""

from __future__ import annotations

from typing import Any

import pytest

from cidm_cli.workflow import bases


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails whoever loads a base: what is refused must be refused before."""

    def load(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(bases.bases, "load", load)
