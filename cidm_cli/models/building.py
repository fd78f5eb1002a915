"""What holds while diffusers and transformers build a model from settings and files that others wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.utils import logging as diffusers_logging
from torch.nn.modules.module import register_module_module_registration_hook
from transformers.utils import logging as transformers_logging

from ..errors import CidmError

MOST_MODULES = 10_000
"""Of one model; SDXL's UNet has 2,600."""


@contextmanager
def building(refused: Callable[[str], CidmError]) -> Iterator[None]:
    """While open, libraries build models: without bars and warnings of theirs, and no more than MOST_MODULES.

    Args:
        refused: makes the error of whatever goes wrong, of its first line. What is wrong with foreign files is told
            by nearly any type of exception.
    """
    with _quiet(), _bounded():
        try:
            yield
        except (CidmError, MemoryError):
            raise
        except Exception as error:
            lines = (line.strip() for line in str(error).splitlines())
            raise refused(next(filter(None, lines), type(error).__name__)) from error


@contextmanager
def _bounded() -> Iterator[None]:
    """However few lines of settings ask for them, layers beyond any honest number are not built."""
    built = 0

    def count(*_: Any) -> None:
        nonlocal built
        built += 1
        if built > MOST_MODULES:
            raise ValueError(f"its settings ask for more than {MOST_MODULES} layers")

    hook = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    loggers = (diffusers_logging, transformers_logging)
    before = [logger.get_verbosity() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.set_verbosity(level)
