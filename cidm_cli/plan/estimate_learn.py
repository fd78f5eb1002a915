"""What a training would take, counted on a base without weights: nothing is loaded and nothing is computed.

The training's own code runs on tensors that have shapes and no numbers (``models.skeleton``); ``models.counting`` sees
how many bytes live at once and how much is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from PIL import Image
from torch import nn

from cidm_registry import Record, Registry

from ..data import Dataset, Example
from ..learn import methods, prior
from ..learn.assignment import Task
from ..learn.batches import picture_sizes, prepare
from ..learn.cache import Cache
from ..learn.run import Events, caption_tokens, placed_captions, prior_captions
from ..learn.step import Trainee, parameters, train_step, training
from ..models import memory
from ..models.base import Base
from ..models.counting import Watch
from ..models.identity import stems
from ..models.offload import ONE_MEMORY
from ..options.learn import LearnOptions

WEIGHTS, GRADIENTS, MOMENTS = "the concept's weights", "their gradients", "the optimizer's moments"
INNER, ITSELF = "inner values", "program and libraries (assumed)"
PROGRAM = 600_000_000
"""Bytes that the program, its libraries and a GPU's context take besides tensors: an assumption."""
SLACK = 1.1
"""How much more memory there has to be than is counted, as it cannot be used to the last byte: an assumption."""
CARDS = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 80, 96, 141)
"""Memory of graphics cards, in GiB."""
PICTURES, STEPS, FISHER = "encoding images", "a training step", "Fisher information"
"""Phases of learning."""
PROMPTS, DENOISING, LATER, DECODING = "reading prompts", "an evaluation", "a later evaluation", "decoding"
"""Phases of drawing."""


_CALLED = {"unet": "UNet", "vae": "VAE", "text_encoder_2": "second text encoder"}


def called() -> dict[str, str]:
    """The parts of bases that take memory, and what they are called in tables."""
    parts = sorted(stems(), key=lambda part: part == "vae")
    return {part: _CALLED.get(part, part.replace("_", " ")) for part in parts}


def told_apart() -> tuple[str, ...]:
    """All that is told apart, in the order it is shown."""
    return (*called().values(), WEIGHTS, GRADIENTS, MOMENTS, INNER, ITSELF)


@dataclass(frozen=True)
class Phase:
    """A part of the work, and the most memory it takes at once."""

    name: str
    memory: Mapping[str, int]
    """Bytes of each thing that is there at the peak."""
    flops: int
    """Floating point operations of doing it once."""
    times: int = 1
    """How often it is done."""

    @property
    def total(self) -> int:
        """Bytes of all."""
        return sum(self.memory.values())


def resident(phase: str, base: Base) -> Sequence[str]:
    """Which of a base's parts are on the device in a phase: all, or, of one that offloads, what is ``present`` then."""
    parts = list(base.parts)
    denoiser, *encoders, vae = parts
    learning = [denoiser] if base.family.texts_once else [denoiser, *encoders]
    needed = {
        PICTURES: [vae], STEPS: learning, FISHER: learning,
        PROMPTS: encoders, DENOISING: [denoiser], LATER: [denoiser], DECODING: [vae],
    }  # fmt: skip
    return needed[phase] if base.offload else parts


def part_sizes(base: Base) -> dict[str, int]:
    """Bytes of each part, the denoiser's first and the VAE's last."""
    return {name: sum(t.untyped_storage().nbytes() for t in held) for name, held in _held(base).items()}


def _held(base: Base) -> dict[str, list[torch.Tensor]]:
    return {name: [*module.parameters(), *module.buffers()] for name, module in base.parts.items()}


def watched(base: Base) -> Watch:
    """A watch that knows of the base's weights."""
    watch = Watch()
    watch.add(*(tensor for held in _held(base).values() for tensor in held))
    return watch


def phase(
    name: str,
    base: Base,
    watch: Watch,
    sizes: Mapping[str, int],
    known: Mapping[str, int] = MappingProxyType({}),
    *,
    times: int = 1,
    spared: int = 0,
) -> Phase:
    """The phase that the watch has seen since it was started anew.

    Args:
        sizes: what ``part_sizes`` gives for the base as it is by itself.
        known: bytes of what else is told apart; the rest are inner values.
        spared: bytes that were counted and would not be there.
    """
    here = {called()[part]: sizes[part] for part in resident(name, base)}
    inner = watch.peak - sum(sizes.values()) - sum(known.values()) - spared
    memory = {**here, **known, INNER: inner, ITSELF: PROGRAM}
    return Phase(name, memory, watch.flops, times)


def example_dataset(pixels: int, noun: str, caption: str) -> Dataset:
    """A single square picture, where no pictures are given."""
    image = Image.new("RGB", (pixels, pixels))
    return Dataset((Example(image, caption.replace("{noun}", noun), None, Path("picture"), ""),), "", ())


def learning(
    registry: Registry | None, records: Sequence[Record], base: Base, task: Task
) -> tuple[Phase, ...]:
    """The phases of a training; ``base`` is a skeleton.

    Raises:
        CidmError: as ``learn`` does for what cannot be learned.
    """
    # Bytes of AdamW's moments in 8 bits are known; the package that keeps them so needs a GPU.
    options = replace(task.options, optimizer="adamw", ewc_draws=1)
    sizes = part_sizes(base)
    with watched(base) as watch:
        prompts = caption_tokens(base, task, Events())
        captions = placed_captions(task)
        method = methods.build(registry, base, records, task.name, captions, options)
        if prior.wanted(options):
            ours = prior.stand_in(base, prior_captions(task), Cache(None, ""))
            method = prior.beside(method, ours, options)
        watch.restart()
        data = prepare(base, task.dataset, prompts, options)
        phases = [phase(PICTURES, base, watch, sizes)]
        with training(base, task.name, task.noun, options, method) as trainee:
            _started(trainee)
            watch.restart()
            train_step(trainee, data, options)
            kept, spared = _concept(trainee, task.options)
            counted = partial(phase, base=base, watch=watch, sizes=sizes, known=kept, spared=spared)
            phases.append(counted(STEPS, times=task.options.steps))
            watch.restart()
            method.regulariser.keep(trainee, data, options)
            if watch.flops:
                phases.append(counted(FISHER, times=task.options.ewc_draws))
    return tuple(phases)


def sizes_of(base: Base, task: Task) -> list[tuple[int, int]]:
    """Widths and heights that pictures are learned at, each once."""
    return sorted({*picture_sizes(base, task.dataset, task.options)})


def _started(trainee: Trainee) -> None:
    """Makes the optimizer's moments, which are there from the second step on."""
    for parameter in parameters(trainee):
        parameter.grad = torch.zeros_like(parameter)
    trainee.optimizer.step()
    trainee.optimizer.zero_grad(set_to_none=True)


def _concept(trainee: Trainee, options: LearnOptions) -> tuple[dict[str, int], int]:
    """Bytes of what is trained and of what training keeps for it; and those that 8-bit moments spare."""
    numbers = parameters(trainee)
    size = sum(p.numel() * p.element_size() for p in numbers)
    full = _bytes(value for state in trainee.optimizer.state.values() for value in state.values())
    moments = eight_bit(numbers) if options.optimizer == "adamw8bit" else full
    rows = {WEIGHTS: size, GRADIENTS: size, MOMENTS: moments}
    return rows, full - moments


def _bytes(values: Iterable[object]) -> int:
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, torch.Tensor))


def eight_bit(numbers: Sequence[nn.Parameter]) -> int:
    """Bytes of both moments by bitsandbytes: a scale for each 256 numbers; below 4096 numbers, in float32 as ever."""
    return sum(2 * (n + 4 * -(-n // 256)) if n >= 4096 else 8 * n for n in (p.numel() for p in numbers))


def advice(base: Base, options: LearnOptions, phases: Sequence[Phase]) -> str:
    """What would take less memory, by what takes most."""
    if max(phases, key=lambda one: one.total).name != PICTURES:
        return memory.advice(base, options)
    flags = []
    if base.hardware not in ONE_MEMORY and not base.offload:
        flags.append("--offload")
    if options.variants > 1 and not base.vae.use_slicing:
        flags.append(f"--variants 1 (croppings of an image are encoded together, now {options.variants})")
    return f"try {' or '.join(flags)}" if flags else "close other programs"


def holds(room: int, size: int) -> bool:
    """Whether so much memory is enough for so many bytes."""
    return size * SLACK <= room


def smallest_card(size: int) -> int | None:
    """Of CARDS the first that holds so many bytes, or None."""
    return next((card for card in CARDS if holds(card << 30, size)), None)
