"""What style transfer and editing share: given pictures, encoded, noised, and denoised under a concept's prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cidm_registry import Registry

from ..files.given import Given
from ..files.writing import write_whole
from ..method import editing
from ..models import memory, sampling
from ..models.base import Base
from ..models.offload import present
from ..options.draw import DrawOptions, resolve_draw
from ..options.over import EditOptions, StylizeOptions
from . import png
from .encoded import Said, Text, Texts, estimate
from .facts import told_base, told_mixture
from .jobs import check_size
from .mixtures import Applied, Loader, Mixture, applied, mixture

VARIATION = 0.3
"""Share of a seed's own noise beside the noise found in a picture: enough that seeds differ."""


@dataclass(frozen=True)
class Picture:
    """A picture that was drawn over a given one, and how."""

    image: Image.Image
    given: Given
    """What it was drawn over."""
    facts: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Writes it as a PNG that says how it was drawn."""
        write_whole(Path(path), png.encode(self.image, self.facts))


@dataclass(frozen=True)
class Stroke:
    """One picture to draw over another."""

    image: Image.Image
    """RGB, at the size that is drawn."""
    seed: int
    finish: Callable[[Image.Image], Picture]
    """What it becomes, RGB at the size that is drawn."""
    cells: torch.Tensor | None = None
    """Latent cells drawn anew, 1 or 0 [1, height, width]; else all of them."""


@dataclass(frozen=True)
class Brush:
    """A prompt, ready to draw with."""

    prompt: str
    chosen: Mixture
    weights: Applied
    told: tuple[Text, Text]
    """The negative prompt and the prompt, encoded."""
    options: DrawOptions


@dataclass(frozen=True)
class Work:
    """Strokes of one brush, ready to be painted."""

    brush: Brush
    strokes: tuple[Stroke, ...]
    strength: float
    invert: bool = False
    """Whether the noise is, for the most part, found in the pictures; at strength 1 nothing of them is kept anyway."""

    @property
    def first(self) -> int:
        """Denoising steps that are left out."""
        return editing.first_step(self.strength, self.brush.options.steps)

    @property
    def steps(self) -> int:
        """Denoising steps of all batches together, forwards and backwards."""
        each = (self.brush.options.steps - self.first) * (2 if self.invert and self.first else 1)
        return each * len(batches(self.strokes, self.brush.options.batch))


def make_brush(
    registry: Registry,
    base: Base,
    prompt: str,
    asked: StylizeOptions | EditOptions,
    on_note: Callable[[str], None] = lambda note: None,
) -> Brush:
    """Mixes the concepts and encodes the prompts.

    Raises:
        CidmError: USAGE for a size this base cannot draw, and when a concept in the prompt is cut off; FAILED when it
            names concepts no one method draws.
    """
    options = resolve_draw({**asked.draw, "size": asked.size}, registry.base.kind, base.pixels)
    check_size(asked.size, base.multiple)
    load = Loader(registry, base)
    chosen = mixture(base, load, registry.records(), prompt, options)
    (told,) = Texts(base, load, on_note).of([Said(prompt, options.negative, chosen)])
    return Brush(prompt, chosen, applied(base, chosen, load), told, options)


def batches(strokes: Sequence[Stroke], limit: int) -> list[list[Stroke]]:
    """The strokes in order, those of one size together, at most ``limit`` at once."""
    out: list[list[Stroke]] = []
    for stroke in strokes:
        if out and len(out[-1]) < limit and out[-1][0].image.size == stroke.image.size:
            out[-1].append(stroke)
        else:
            out.append([stroke])
    return out


def paint(base: Base, work: Work, on_step: Callable[[], None] = lambda: None) -> Iterator[Picture]:
    """Draws every stroke, in order; ``on_step`` is called work.steps times.

    At strength 0 nothing is denoised: what comes is the autoencoder's round trip.
    """
    for batch in batches(work.strokes, work.brush.options.batch):
        with memory.advised_drawing(base, work.brush.options):
            clean, _ = sampling.encode(base, [stroke.image for stroke in batch])
            noise = sampling.initial_noise(base, [stroke.seed for stroke in batch], batch[0].image.size)
            noise = noise.to(clean)
            if work.invert and work.first:
                # With the base's own weights: what is found should be the picture's, not the concept's.
                found = noise_found(base, work.brush, clean, work.first, on_step)
                noise = editing.varied(found, noise, VARIATION)
            with work.brush.weights.merged(base):
                images = _paint_batch(base, work, batch, clean, noise, on_step)
        for stroke, image in zip(batch, images, strict=True):
            yield stroke.finish(image)


@torch.no_grad()
def noise_found(
    base: Base, brush: Brush, clean: torch.Tensor, first: int, on_step: Callable[[], None] = lambda: None
) -> torch.Tensor:
    """DDIM inversion: the noise, like ``clean``, from which the base denoises to these latents under no prompt.

    Without guidance, under the negative prompt, one evaluation a step, up to the level where ``first`` steps remain.
    """
    scheduler = sampling.make_scheduler(base, "ddim")
    scheduler.set_timesteps(brush.options.steps, device=base.device)
    levels = sampling.levels(scheduler, "ddim")
    contexts, whole = brush.told[0]
    contexts = tuple(context.expand(len(clean), -1, -1) for context in contexts)
    whole = None if whole is None else whole.expand(len(clean), -1)
    latents, at = clean, levels[-1]
    with present(base.device, base.denoiser):
        for number in reversed(range(first, brush.options.steps)):
            to = levels[number]
            prediction = base.predict(latents, scheduler.timesteps[number], contexts, whole)
            latents = editing.less_clean(
                latents, prediction, base.prediction, (at.signal, at.noise), (to.signal, to.noise)
            )
            at = to
            on_step()
    return editing.noise_in(latents, clean, at.signal, at.noise) if at.noise else torch.zeros_like(clean)


def facts(
    registry: Registry,
    base: Base,
    brush: Brush,
    command: str,
    concept: str,
    given: Given,
    seed: int,
    options: StylizeOptions | EditOptions,
    drawn_size: tuple[int, int],
) -> dict[str, Any]:
    """What a picture says of itself; ``options`` are those of the command, ``drawn_size`` that of the stroke."""
    own = {name: value for name, value in vars(options).items() if name != "draw"}
    return {
        "format": 1,
        "command": command,
        "concept": concept,
        "prompt": brush.prompt,
        "seed": seed,
        "options": {**own, **asdict(brush.options), "size": list(drawn_size)},
        "picture": {"name": given.path.name, "sha256": given.sha256, "size": list(given.image.size)},
        **told_mixture(brush.chosen),
        **told_base(registry, base, drawn_size),
    }


def _paint_batch(
    base: Base,
    work: Work,
    batch: Sequence[Stroke],
    clean: torch.Tensor,
    noise: torch.Tensor,
    on_step: Callable[[], None],
) -> list[Image.Image]:
    options = work.brush.options
    told = [work.brush.told] * len(batch)
    follow = estimate(base, options, told, work.brush.weights)

    def at(level: sampling.Level) -> torch.Tensor:
        return editing.noised(clean, noise, level.signal, level.noise)

    def keep(latents: torch.Tensor, level: sampling.Level) -> torch.Tensor:
        return latents if cells is None else editing.blended(latents, at(level), cells)

    masks = [stroke.cells for stroke in batch if stroke.cells is not None]
    cells = torch.stack(masks).to(clean) if masks else None
    latents = sampling.denoise(
        base, follow, noise, sampler=options.sampler, steps=options.steps, first=work.first,
        begin=at if work.first else None, keep=keep, on_step=lambda _: on_step(),
    )  # fmt: skip
    return sampling.decode(base, latents)
