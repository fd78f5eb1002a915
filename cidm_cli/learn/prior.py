"""Prior preservation (Ruiz et al., DreamBooth, arXiv 2208.12242): the base's own pictures of the class noun.

They are drawn by the bare base before the training, and each batch goes on learning as many of them beside its own, so
that the noun keeps its meaning where a prompt names the concept. No picture of an older concept is among them. They
are kept as the latents that they were drawn as: no autoencoder comes between the base and what it drew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from ..data import Example, caption_from_template, marked
from ..errors import CidmError, ExitCode
from ..models import sampling, text
from ..models.base import Base
from ..options.draw import DrawOptions, resolve_draw
from ..options.learn import LearnOptions
from ..options.prompts import parse_prompt
from .batches import Batch, Prepared, draw
from .cache import Cache
from .step import Method, Term, Trainee, denoising

APART = 2**32
"""Added to the seed for draws among the prior pictures, above all seeds, so that they are others than the concept's."""


Text = tuple[torch.Tensor, torch.Tensor | None]
"""A text without concepts [tokens, width], and as a whole [width] where the base wants it."""


@dataclass(frozen=True)
class Prior:
    """The base's own pictures, ready to be learned beside a concept's."""

    data: Prepared
    """The pictures, with nothing to vary about them."""
    contexts: tuple[torch.Tensor, ...]
    """Each picture's caption [tokens, width], encoded once: no trained token is in it."""


def captions(
    examples: Sequence[Example], name: str, noun: str, style: bool, options: LearnOptions
) -> list[str]:
    """The caption of each prior picture.

    For an object it is the template that pictures without a caption get. A style shows in pictures of anything: there
    it is the given pictures' own captions in turn, with the class noun where one names the concept.
    """
    if not style:
        return [_unnamed(caption_from_template(options.caption, noun), name, noun)] * options.prior
    return [_unnamed(examples[number % len(examples)].caption, name, noun) for number in range(options.prior)]


def _unnamed(caption: str, name: str, noun: str) -> str:
    """A caption as it stands; one with a mark of the concept, with the class noun in its place."""
    found = marked(caption, name, noun)
    return (
        caption
        if found.place in ("noun", "")
        else parse_prompt(found.prompt, literal=True).filled(lambda _: noun)
    )


def wanted(options: LearnOptions) -> bool:
    """Whether there is to be any."""
    return options.prior > 0 and options.prior_weight > 0


def prepare(
    base: Base,
    kind: str,
    said: Sequence[str],
    options: LearnOptions,
    cache: Cache,
    on_note: Callable[[str], None] = lambda note: None,
    stop: Callable[[], bool] = lambda: False,
) -> Prior:
    """Draws a picture for each caption, or takes it from the cache.

    Args:
        kind: the base's, which decides how it draws.
        on_note: hears how much there is to draw.
        stop: asked after each batch; True ends it. What was drawn is in the cache.

    Raises:
        CidmError: INTERRUPTED when stopped.
    """
    drawing = resolve_draw({}, kind, base.pixels)
    texts = _encoded(base, [*said, drawing.negative], cache)
    latents: list[torch.Tensor] = []
    batches = [
        range(start, min(start + drawing.batch, len(said))) for start in range(0, len(said), drawing.batch)
    ]
    noted: list[str] = []

    def make(batch: range) -> dict[str, torch.Tensor]:
        if not noted:
            noted.append(f"the base draws {len(said) - batch.start} images first, to learn beside")
            on_note(noted[0])
        given = [texts[said[number]] for number in batch]
        seeds = [options.seed + number for number in batch]
        return {"latents": _drawn(base, drawing, given, texts[drawing.negative], seeds)}

    for batch in batches:
        content = {
            "what": "prior",
            "captions": [said[number] for number in batch],
            "seeds": [options.seed + number for number in batch],
            "drawing": asdict(drawing),
        }
        latents += cache.tensors(base, content, partial(make, batch))["latents"].unsqueeze(1)
        if stop():
            raise CidmError(
                f"stopped after {len(latents)} of the {len(said)} images that the base draws first",
                hint="the same command goes on from there, unless --no-cache is given",
                code=ExitCode.INTERRUPTED,
            )
    return _prior(base, said, latents, texts)


def stand_in(base: Base, said: Sequence[str], cache: Cache) -> Prior:
    """As ``prepare``, of noise: to measure what a training takes, without drawing."""
    size = (base.pixels, base.pixels)
    latents = [sampling.initial_noise(base, [0], size).to(base.device) for _ in said]
    return _prior(base, said, latents, _encoded(base, said, cache))


def beside(method: Method, prior: Prior, options: LearnOptions) -> Method:
    """The method with the prior pictures' loss among its terms: prior_weight times Eq. 1 of as many as a batch has."""
    own = method.regulariser.penalty
    drawn = replace(options, seed=options.seed + APART)

    def penalty(trainee: Trainee, batch: Batch) -> Mapping[str, Term]:
        other = draw(prior.data, drawn, trainee.step, len(trainee.schedule.times), batch.part, batch.numbers)
        contexts = (torch.stack([prior.contexts[picture] for picture in other.pictures]),) * len(
            trainee.base.layers
        )
        loss = denoising(trainee, other, options.min_snr, contexts)
        return {**own(trainee, batch), "prior": Term(options.prior_weight, loss)}

    return replace(method, regulariser=replace(method.regulariser, penalty=penalty))


def _prior(
    base: Base, said: Sequence[str], latents: Sequence[torch.Tensor], texts: Mapping[str, Text]
) -> Prior:
    data = Prepared(
        mean=tuple(latents), std=tuple(torch.zeros_like(one) for one in latents), masks=None,
        prompts=tuple(text.tokenize(base, [caption]) for caption in said),
        pooled=_wholes([texts[caption] for caption in said]),
    )  # fmt: skip
    return Prior(data, tuple(texts[caption][0] for caption in said))


@torch.no_grad()
def _encoded(base: Base, said: Sequence[str], cache: Cache) -> dict[str, Text]:
    """Each text once and by itself, so that it does not matter to the last bit which others there are."""

    def make(caption: str) -> dict[str, torch.Tensor]:
        tokens = [text.tokenize(base, [caption])]
        (contexts,) = text.encode(base, tokens, {}, layers=1)
        whole = text.pooled(base, tokens)
        return {"context": contexts[0]} if whole is None else {"context": contexts[0], "whole": whole[0]}

    out: dict[str, Text] = {}
    for caption in dict.fromkeys(said):
        found = cache.tensors(base, {"what": "text", "text": caption}, partial(make, caption))
        out[caption] = (found["context"], found.get("whole"))
    return out


def _wholes(texts: Sequence[Text]) -> torch.Tensor | None:
    """[texts, width], or None where the base does not want them."""
    found = [whole for _, whole in texts if whole is not None]
    return torch.stack(found) if found else None


def _drawn(
    base: Base, drawing: DrawOptions, given: Sequence[Text], negative: Text, seeds: Sequence[int]
) -> torch.Tensor:
    """Scaled latents [seeds, channels, h, w] of what the base draws for texts."""
    layers = len(base.layers)
    without = [negative] * len(given)
    contexts, others = (torch.stack([context for context, _ in texts]) for texts in (given, without))
    estimate = sampling.guided(
        base, (contexts,) * layers, (others,) * layers, drawing.guidance,
        pooled=(_wholes(given), _wholes(without)),
    )  # fmt: skip
    noise = sampling.initial_noise(base, seeds, drawing.size)
    return sampling.denoise(base, estimate, noise, sampler=drawing.sampler, steps=drawing.steps)
