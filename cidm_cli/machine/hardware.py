"""What a machine computes on, what of its memory is free, and how fast it multiplies."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import CidmError, ExitCode
from ..models.base import choose_compute, choose_device

PATIENCE = 0.3
"""Seconds that one kind of product is timed for."""


@dataclass(frozen=True)
class Hardware:
    """A type of device, and the device itself where there is one."""

    kind: str
    """ "cpu", "cuda", "mps"."""
    device: torch.device | None
    """None where it is not in this machine."""
    compute: torch.dtype
    """What matrix products are computed in."""


def hardware(device: str, precision: str) -> Hardware:
    """What ``--device`` and ``--precision`` stand for; a GPU that is not here is taken for one with bfloat16.

    Raises:
        CidmError: USAGE for a device or a precision that there is not.
    """
    if device == "auto":
        here: torch.device | None = choose_device(device)
    else:
        try:
            named = torch.device(device)
        except RuntimeError as error:
            raise CidmError(
                f"--device {device}: no such device", "cpu, cuda or mps", ExitCode.USAGE
            ) from error
        try:
            here = choose_device(device)
        except CidmError:
            here = None
        kind = named.type
    if here is not None:
        return Hardware(here.type, here, choose_compute(precision, here))
    assumed = "bf16" if precision in ("auto", "half") and kind == "cuda" else precision
    return Hardware(kind, None, choose_compute(assumed, torch.device("meta")))


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(found) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def throughput(device: torch.device, compute: torch.dtype) -> float:
    """Floating point operations a second, of a matrix product and a convolution such as UNets are made of.

    Products of this size keep a device busy: what also reads and writes memory, or is small, is slower.
    """
    cells, width = (64 * 64, 640) if device.type != "cpu" else (32 * 32, 320)
    side = int(cells**0.5)
    left, right = (
        torch.randn(shape, device=device, dtype=compute) for shape in ((cells, width), (width, 4 * width))
    )
    picture, kernel = (
        torch.randn(shape, device=device, dtype=compute)
        for shape in ((1, width, side, side), (width, width, 3, 3))
    )
    seconds = flops = 0.0
    with torch.no_grad():
        for product, count in (
            (lambda: left @ right, 2.0 * cells * width * 4 * width),
            (lambda: torch.nn.functional.conv2d(picture, kernel, padding=1), 2.0 * cells * width * width * 9),
        ):
            product()
            _wait(device)
            times, began = 0, time.perf_counter()
            while times < 2 or time.perf_counter() - began < PATIENCE:
                product()
                _wait(device)
                times += 1
            seconds += (time.perf_counter() - began) / times
            flops += count
    return flops / seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
