"""Parts of a base that wait in main memory, and are on the device only while they are needed.

A base that offloads is loaded into main memory. Whoever computes with a part says so with ``present``; what is not
named by anybody at that moment takes no room on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

ONE_MEMORY = ("cpu", "mps")
"""Devices that compute in main memory: there is nowhere to move a part to."""


@contextmanager
def present(device: torch.device, *parts: nn.Module) -> Iterator[None]:
    """While open, these parts are on the device; those that waited in main memory wait there again afterwards.

    A part that is there already stays there: whoever has brought it takes it away. So work in several pieces is
    opened once around them all. Weights may be exchanged while a part waits or while it is present, if what was
    there is put back before that changes.
    """
    with ExitStack() as stack:
        for part in parts:
            if waiting(part, device):
                stack.enter_context(_moved(part, device))
        yield


def waiting(part: nn.Module, device: torch.device) -> bool:
    """Whether a part is somewhere else than on the device."""
    return next(part.parameters()).device.type != device.type


@contextmanager
def _moved(part: nn.Module, device: torch.device) -> Iterator[None]:
    """While open, the part's weights are copies on the device.

    They are frozen, so nothing has to be copied back: what is in main memory stays there and is taken up again.
    """
    tensors = [*part.parameters(), *part.buffers()]
    kept = [tensor.data for tensor in tensors]
    try:
        for tensor, own in zip(tensors, kept, strict=True):
            tensor.data = own.to(device)
        yield
    finally:
        for tensor, own in zip(tensors, kept, strict=True):
            tensor.data = own
        # What is free would else be kept for tensors of the same sizes, which the next part does not have.
        torch.get_device_module(device).empty_cache()
