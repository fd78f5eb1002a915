"""A training's numbers and previews as TensorBoard shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from .previews import Preview
from .step import Trainee

Writer = Callable[[Trainee, Sequence[Preview]], None]
"""Writes down a step that was done, and the previews drawn after it."""


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """While open, steps are written to a run in a folder; of a run that was there, what is done anew is struck out."""
    # Optional, and slow to import.
    from torch.utils.tensorboard import SummaryWriter

    opened: list[SummaryWriter] = []

    def write(trainee: Trainee, previews: Sequence[Preview]) -> None:
        if not opened:
            opened.append(SummaryWriter(str(folder), purge_step=trainee.step))
        (writer,) = opened
        numbers = {"loss": trainee.losses[-1]}
        numbers |= {f"terms/{name}": values[-1] for name, values in trainee.terms.items() if values}
        rates = [group["lr"] for group in trainee.optimizer.param_groups]
        numbers |= dict(zip(("rate/weights", "rate/tokens"), rates, strict=True))
        if trainee.base.compute == torch.float16:
            numbers["scale"] = trainee.scale
        for name, value in numbers.items():
            writer.add_scalar(name, value, trainee.step)
        for preview in previews:
            picture = np.asarray(preview.image)
            writer.add_image(f"{preview.number} {preview.prompt}", picture, preview.step, dataformats="HWC")

    try:
        yield write
    finally:
        for writer in opened:
            writer.close()
