"""Pictures of a concept while it is learned: drawn with what is trained so far, and without a trace in the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image

from cidm_registry import Record, Registry, canonical_key

from ..draw.facts import told_base
from ..draw.jobs import check_size, named_in
from ..draw.mixtures import Loader, Mixture, deltas, nouns, prompt_tokens
from ..judge.rivals import with_nouns
from ..models import sampling, text
from ..models.base import Base
from ..models.lora import merged
from ..options.declared import Asked
from ..options.draw import resolve_draw
from ..options.learn import CARRIED, SUMMED
from ..options.prompts import find_unknown, parse_prompt
from . import methods
from .assignment import Task
from .step import Trainee


@dataclass(frozen=True)
class Preview:
    """A picture drawn during a training."""

    number: int
    """Of its prompt, from 1."""
    prompt: str
    step: int
    """Steps done when it was drawn."""
    image: Image.Image
    facts: Mapping[str, Any]
    """What its file tells."""


def painter(
    registry: Registry,
    base: Base,
    task: Task,
    prompts: Sequence[str],
    asked: Asked,
) -> Callable[[Trainee], list[Preview]]:
    """Draws a picture of each prompt with a concept in training, on the base that carries its adapter.

    The concept's weights are those of the adapter; those of older concepts that a prompt names are added as
    ``generate`` would add them.

    Args:
        asked: how they are drawn: steps, guidance, size, sampler, negative and seed; the others are not looked at.

    Raises:
        CidmError: USAGE for a size the base cannot draw.
    """
    drawing = resolve_draw(asked, registry.base.kind, base.pixels)
    check_size(drawing.size, base.multiple)
    key, load = canonical_key(task.name), Loader(registry, base)
    words = len(base.architecture.pieces(base, task.noun)) if methods.keeps_noun(task.options.method) else 0
    known = [task.name, *(record.name for record in registry.records())]
    for said in prompts:
        # Asked before the base was loaded, too: a concept may be gone since.
        if unknown := find_unknown(parse_prompt(said), known):
            raise unknown
    older = {record.key: record for record in methods.older_than(registry.records(), task.name)}
    layers = len(base.layers)
    named_in([*older.values()], with_nouns(drawing.negative, {key: task.noun}), "negative prompt")

    def heard(said: str) -> tuple[tuple[Record, ...], tuple[text.Tokens, ...], dict[str, torch.Tensor]]:
        """The older concepts in a text, its chunks, and those concepts' own tokens."""
        keys = [canonical_key(name) for name in parse_prompt(said).names]
        named = tuple(older[one] for one in keys if one != key)
        vectors = {record.key: load(record).tokens for record in named}
        told = {**nouns(named), key: task.noun}
        places = {**vectors, key: torch.empty(1, 1 + words, 0)}
        return named, prompt_tokens(base, said, places, told), vectors

    _, negative, without = heard(drawing.negative)
    scenes = []
    for prompt in prompts:
        named, tokens, vectors = heard(prompt)
        # Where one LoRA is carried on or all are summed up, the adapter's base already has what the older ones need.
        own = () if task.options.method in (*CARRIED, *SUMMED) else named
        strengths = parse_prompt(prompt).strengths
        weights = tuple((strengths.get(record.key, 1.0),) * layers for record in own)
        scenes.append((prompt, tokens, vectors, Mixture("named", named, own, weights)))

    @torch.no_grad()
    def paint(trainee: Trainee) -> list[Preview]:
        out = []
        for number, (prompt, tokens, vectors, mixture) in enumerate(scenes, 1):
            given = {**vectors, key: trainee.tokens.detach()}
            both = [text.read(base, [one], {**without, **given})[0] for one in (tokens, negative)]
            with_prompt, without_prompt = text.alike(both)
            pooled = text.pooled(base, tokens[:1]), text.pooled(base, negative[:1])
            estimate = sampling.guided(base, with_prompt, without_prompt, drawing.guidance, pooled=pooled)
            noise = sampling.initial_noise(base, [drawing.seed], drawing.size)
            with merged(base.denoiser, deltas(base, mixture, load)):
                latents = sampling.denoise(
                    base, estimate, noise, sampler=drawing.sampler, steps=drawing.steps
                )
            (image,) = sampling.decode(base, latents)
            facts = {
                "format": 1,
                "command": "learn",
                "concept": task.name,
                "step": trainee.step,
                "prompt": prompt,
                "seed": drawing.seed,
                "options": asdict(drawing),
                **told_base(registry, base, drawing.size),
            }
            out.append(Preview(number, prompt, trainee.step, image, facts))
        return out

    return paint
