"""A device that is none: which parts of a base are on it, in which order they came and went, and who was asked when."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from cidm_cli.models import offload
from cidm_cli.models.base import Base


class Shelf:
    """Parts by name; computing with one that is not on the device fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, base: Base, **more: nn.Module) -> None:
        parts = {
            "unet": base.denoiser,
            "vae": base.vae,
            **{f"text{n}": e for n, e in enumerate(base.encoders, 1)},
        }
        self.parts: dict[str, nn.Module] = {**parts, **more}
        self.there: list[str] = []
        self.moves: list[str] = []
        self.together: list[frozenset[str]] = []
        """What was on the device at the same time, after each move."""
        self.asked: set[str] = set()
        self._handles = [
            module.register_forward_pre_hook(lambda *_, name=name: self._ask(name))
            for name, part in self.parts.items()
            for module in part.modules()
            if not [*module.children()]
        ]
        monkeypatch.setattr(offload, "waiting", lambda part, device: self._name(part) not in self.there)
        monkeypatch.setattr(offload, "_moved", self._moved)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _name(self, part: nn.Module) -> str:
        return next(name for name, own in self.parts.items() if own is part)

    def _ask(self, name: str) -> None:
        assert name in self.there, f"{name} computes while it waits in main memory"
        self.asked.add(name)

    @contextmanager
    def _moved(self, part: nn.Module, device: torch.device) -> Iterator[None]:
        """As the real one: copies of the weights, given up afterwards."""
        name = self._name(part)
        tensors = [*part.parameters(), *part.buffers()]
        kept = [tensor.data for tensor in tensors]
        for tensor in tensors:
            tensor.data = tensor.data.clone()
        self.there.append(name)
        self._note(f"+{name}")
        yield
        self.there.remove(name)
        self._note(f"-{name}")
        for tensor, own in zip(tensors, kept, strict=True):
            tensor.data = own

    def _note(self, move: str) -> None:
        self.moves.append(move)
        self.together.append(frozenset(self.there))
