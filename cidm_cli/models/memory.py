"""Memory of a training or a drawing: what to do when there is too little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from ..errors import CidmError, ExitCode, is_out_of_memory
from ..options.draw import DrawOptions
from ..options.learn import LearnOptions
from .base import Base
from .offload import ONE_MEMORY


def advised(name: str, base: Base, options: LearnOptions) -> AbstractContextManager[None]:
    """Makes running out of memory an error that says which options of a training need less of it.

    Raises:
        CidmError: OUT_OF_MEMORY.
    """
    what = f"concept {name}: out of memory on {base.device.type}; nothing was committed"
    return _explained(what, lambda: advice(base, options))


def advised_drawing(base: Base, options: DrawOptions) -> AbstractContextManager[None]:
    """As ``advised``, for drawing."""
    what = f"out of memory on {base.device.type}; the images drawn so far are kept"
    return _explained(what, lambda: drawing_advice(base, options))


@contextmanager
def _explained(what: str, hint: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise CidmError(what, hint=hint(), code=ExitCode.OUT_OF_MEMORY) from error


def advice(base: Base, options: LearnOptions) -> str:
    """The options that would take less memory, those first that change the result least."""
    flags = []
    if not options.checkpointing:
        flags.append("--checkpointing")
    if _could_offload(base):
        flags.append("--offload")
    if options.batch > 1:
        flags.append(f"--batch 1 --accumulate {options.batch * options.accumulate}")
    if base.hardware != "cpu" and base.compute == torch.float32:
        flags.append("--precision half")
    if options.targets not in (None, least := base.family.targets[0]):
        flags.append(f"--targets {least}")
    if base.hardware != "cpu" and options.optimizer != "adamw8bit":
        flags.append("--optimizer adamw8bit")
    if options.prior:
        flags.append("--prior 0")
    return _listed(base, flags)


def drawing_advice(base: Base, options: DrawOptions) -> str:
    """As ``advice``, for drawing."""
    flags = []
    if _could_offload(base):
        flags.append("--offload")
    if options.batch > 1:
        flags.append("--batch 1")
    if base.hardware != "cpu" and base.compute == torch.float32:
        flags.append("--precision half")
    if options.size[0] * options.size[1] > base.pixels**2:
        flags.append(f"--size {base.pixels}x{base.pixels}")
    return _listed(base, flags)


def _could_offload(base: Base) -> bool:
    return base.hardware not in ONE_MEMORY and not base.offload


def _listed(base: Base, flags: list[str]) -> str:
    if base.hardware not in ONE_MEMORY and flags:
        flags.append("--vram 8 (or 12, 16, 24: sets what fits)")
    if base.hardware != "cpu":
        flags.append("--device cpu (slow)")
    others = "close other programs"
    return f"try {', '.join(flags)}, or {others}" if flags else others
