"""Whose low-rank weights a prompt is drawn with, and how strongly at each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, TypeVar

import torch

from cidm_registry import Record, Registry, canonical_key

from ..formats.concept import ConceptWeights
from ..method import aggregation
from ..method.lowrank import delta, weighted_sum
from ..models import text
from ..models.base import Base
from ..models.control_files import ControlFiles
from ..models.lora import merged
from ..models.offload import present
from ..models.opening import concept_weights
from ..models.structure import Control
from ..models.structure import load as load_control
from ..options.draw import APART, ONE_AT_A_TIME, POWERS, DrawOptions
from ..options.prompts import Mention, parse_prompt
from .jobs import choose_method, named_in

SWITCH_EVERY = 5
"""Denoising steps before lora-switch takes the next concept's LoRA (Zhong et al. 2024, section 4.1)."""
KEPT = 512 << 20
"""Bytes of concepts' weights that stay loaded, and of their encoded tokens: of SDXL some 40 concepts, of SD-1.5 300."""


@dataclass(frozen=True)
class Mixture:
    """What a prompt is drawn with."""

    method: str
    """A method of drawing, never "auto"."""
    named: tuple[Record, ...]
    """Concepts whose tokens stand in the prompt."""
    used: tuple[Record, ...]
    """Concepts whose low-rank weights are used."""
    weights: tuple[tuple[float, ...], ...]
    """Of each used concept, at each layer, with its strength in the prompt."""
    against: tuple[Record, ...] = ()
    """Concepts whose tokens stand in the negative prompt; their low-rank weights are not used for it."""


def content(record: Record) -> str:
    """What is drawn for a concept, whatever it is called: two may have one blob and mean different things by it.

    The tokens of an imported concept are those of its class noun, and so is what SDXL reads of a text as a whole.
    """
    return f"{record.blob} {record.scale} {record.class_noun}"


def _bytes(weights: ConceptWeights) -> int:
    return sum(t.nbytes for t in (*weights.up.values(), *weights.down.values(), weights.tokens))


@dataclass
class Loader:
    """Loads concepts; ``load(record)`` gives their weights. Those last asked for stay loaded, up to ``KEPT`` bytes.

    The model that follows a structure is kept, too, until another one is asked for.
    """

    registry: Registry
    base: Base
    _weights: Recent[ConceptWeights] = field(default_factory=lambda: Recent(KEPT, _bytes))
    _rows: Recent[torch.Tensor] = field(default_factory=lambda: Recent(KEPT, lambda rows: rows.nbytes))
    _control: Control | None = None

    def __call__(self, record: Record) -> ConceptWeights:
        """A concept's weights, without what its method of learning kept for later concepts."""
        return self._weights.get(
            content(record), lambda: replace(concept_weights(self.registry, self.base, record), state={})
        )

    def control(self, files: ControlFiles) -> Control:
        """A ControlNet or T2I-Adapter. Raises CidmError INVALID for one that does not fit the base."""
        if self._control is None or self._control.files != files:
            self._control = None
            self._control = load_control(self.base, files)
        return self._control

    def rows(self, record: Record) -> torch.Tensor:
        """ê of Eq. 3: the concept's tokens [layers, n_tokens, width], encoded by itself, special tokens left out."""
        return self._rows.get(content(record), lambda: self._encoded(record))

    def _encoded(self, record: Record) -> torch.Tensor:
        vectors = self(record).tokens
        alone = text.tokenize(self.base, [text.Slot(record.key, vectors.shape[1])])
        with torch.no_grad():
            contexts = text.encode(self.base, [alone], {record.key: vectors})
        return torch.stack([context[0, alone.body] for context in contexts])


@dataclass(frozen=True, eq=False)
class Deltas(Mapping[str, torch.Tensor]):
    """ΔW [out, in] of each site, made whenever it is looked at: those of SDXL at once would take gigabytes."""

    makers: Mapping[str, Callable[[], torch.Tensor]]

    def __getitem__(self, site: str) -> torch.Tensor:
        return self.makers[site]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


def mixture(
    base: Base, load: Loader, records: Sequence[Record], prompt: str, options: DrawOptions
) -> Mixture:
    """The mixture of a prompt and the negative prompt of ``options``, given the concepts there are.

    Raises:
        CidmError: NOT_FOUND for a concept that is not there, FAILED for a method that these were not learned for.
    """
    # Asked before the base was loaded, too: a concept may have been removed or renamed meanwhile.
    named = tuple(named_in(records, prompt))
    against = tuple(named_in(records, options.negative, "negative prompt"))
    method = of_several(choose_method(options.method, named), named)
    layers = len(base.layers)
    used: Sequence[Record] = records
    if method == "named" or method in APART:
        used = named
    elif method == "latest":
        used = [max(records, key=lambda record: record.sequence)] if records else []
    if method in ("sharp", "official", "paper"):
        power = options.power or POWERS.get(method, 1.0)
        by_concept = similarity_weights(base, load, records, named, prompt, method, power)
        shares = by_concept.T.tolist()
        # A concept whose weight is nothing at every layer is not merged at all.
        used = [record for record, share in zip(records, shares, strict=True) if any(share)]
        shares = [share for share in shares if any(share)]
    else:
        shares = [[1 / max(len(used), 1) if method == "mean" else 1.0] * layers] * len(used)
    strengths = parse_prompt(prompt).strengths
    weights = tuple(
        tuple(weight * strengths.get(record.key, 1.0) for weight in share)
        for record, share in zip(used, shares, strict=True)
    )
    return Mixture(method, named, tuple(used), weights, against)


def of_several(method: str, named: Sequence[Record]) -> str:
    """The method, or "named" where it keeps concepts apart and there are no two."""
    return "named" if method in APART and len(named) < 2 else method


def similarity_weights(
    base: Base,
    load: Loader,
    records: Sequence[Record],
    named: Sequence[Record],
    prompt: str,
    method: str,
    power: float,
) -> torch.Tensor:
    """Weights [layers, concepts] by Eq. 3, in one of its forms, on the CPU in float32."""
    layers = len(base.layers)
    if not records:
        return torch.zeros(layers, 0)
    chunks, vectors = spoken(base, load, prompt, named)
    with present(base.device, *base.encoders), torch.no_grad():
        contexts = text.encode(base, chunks, vectors)
        own = [load.rows(record) for record in records]
    rows = torch.stack(
        [torch.cat([row[one.body] for row, one in zip(context, chunks, strict=True)]) for context in contexts]
    )
    form = "paper" if method == "paper" else "official"
    M = aggregation.similarities(rows, [True] * rows.shape[1], own, form=form).cpu()
    if method == "paper":
        return aggregation.paper_weights(M)
    if method == "official":
        return aggregation.official_weights(M, power)
    return aggregation.sharp_weights(M, torch.tensor([record in named for record in records]), power)


def nouns(records: Sequence[Record]) -> dict[str, str]:
    """The class nouns of concepts by key."""
    return {record.key: record.class_noun for record in records}


def spoken(
    base: Base, load: Loader, prompt: str, named: Sequence[Record]
) -> tuple[tuple[text.Tokens, ...], dict[str, torch.Tensor]]:
    """What the text encoders are given for a prompt that names these concepts, and the concepts' tokens by key."""
    vectors = {record.key: load(record).tokens for record in named}
    return prompt_tokens(base, prompt, vectors, nouns(named)), vectors


def prompt_tokens(
    base: Base, prompt: str, vectors: Mapping[str, torch.Tensor], nouns: Mapping[str, str]
) -> tuple[text.Tokens, ...]:
    """A prompt's chunks, with a slot for each concept in it. Every text that pictures are drawn by passes here.

    Args:
        vectors: their tokens by key.
        nouns: their class nouns by key; ``text.pooled`` needs them.
    """

    def part(said: str | Mention) -> str | text.Slot:
        if isinstance(said, str):
            return said
        key = canonical_key(said.name)
        return text.Slot(key, vectors[key].shape[1], nouns[key])

    read = parse_prompt(prompt)
    return text.chunks(
        base,
        [
            text.Piece(part(said), weight, number in read.breaks)
            for number, (said, weight) in enumerate(zip(read.parts, read.weights, strict=True))
        ],
    )


def deltas(base: Base, mixture: Mixture, load: Loader) -> Deltas:
    """ΔŴ^l = Σ_i w_i^l ΔW_i^l of every site that a used concept has."""

    def total(site: str, having: Sequence[tuple[ConceptWeights, float, float]]) -> torch.Tensor:
        return weighted_sum(
            [delta(weights.up[site], weights.down[site], scale) for weights, scale, _ in having],
            [w for _, _, w in having],
        )

    return Deltas({site: partial(total, site, some) for site, some in _by_site(base, mixture, load).items()})


def factors(
    base: Base, mixture: Mixture, load: Loader, strength: float = 1.0
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Each site's up [out, R] and down [R, in], whose product is ``strength`` times what `deltas` gives.

    They are the concepts' own, side by side, with scale and weight in ``up``. Where that has more columns than the
    layer has inputs, the product itself and the identity take less work.
    """
    out = {}
    for site, having in _by_site(base, mixture, load).items():
        up = torch.cat(
            [strength * scale * w * weights.up[site].float() for weights, scale, w in having], dim=1
        )
        down = torch.cat([weights.down[site].float() for weights, _, _ in having])
        if len(down) > down.shape[1]:
            up, down = up @ down, torch.eye(down.shape[1], device=down.device)
        out[site] = (up, down)
    return out


def _by_site(
    base: Base, mixture: Mixture, load: Loader
) -> dict[str, list[tuple[ConceptWeights, float, float]]]:
    """The used concepts that each site has: their weights, their scale, and their weight in the mixture there."""
    layer_of = base.site_layers
    loaded = [
        (load(record), record.scale, w) for record, w in zip(mixture.used, mixture.weights, strict=True)
    ]
    return {
        site: [(weights, scale, w[layer_of[site]]) for weights, scale, w in loaded if site in weights.up]
        for site in sorted({site for weights, _, _ in loaded for site in weights.up})
    }


def kept_apart(base: Base, mixture: Mixture, site: str) -> bool:
    """Whether each concept's change of a site acts in places of its own, and is not merged."""
    return mixture.method != "rows" or base.architecture.sees_text(site)


def alone(mixture: Mixture) -> list[Mixture]:
    """One mixture for each used concept, with no other's weights in it."""
    return [
        Mixture(mixture.method, mixture.named, (record,), (weights,))
        for record, weights in zip(mixture.used, mixture.weights, strict=True)
    ]


@dataclass(frozen=True)
class Applied:
    """How a mixture is in the weights while denoising."""

    throughout: Callable[[], Mapping[str, torch.Tensor]]
    """Makes ΔŴ of each site, merged before denoising."""
    turns: tuple[Callable[[], Mapping[str, torch.Tensor]], ...] = ()
    """Makes each concept's own ΔW, for the methods that use one at a time: all at once may not fit in memory."""
    switch: bool = False
    """One turn a step, instead of the mean of all."""

    def merged(self, base: Base) -> AbstractContextManager[None]:
        """The base with ``throughout`` in its weights, for as long as it is open."""
        return merged(base.denoiser, self.throughout())

    def evaluate(self, base: Base, step: int, predict: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The prediction in a sampling step: LoRA Composite's mean, or LoRA Switch's turn (Zhong et al. 2024)."""
        turns = self.turns
        if not turns:
            return predict()
        if self.switch:
            turns = (turns[step // SWITCH_EVERY % len(turns)],)
        total: torch.Tensor | None = None
        for turn in turns:
            with merged(base.denoiser, turn()):
                one = predict()
            total = one if total is None else total + one
        assert total is not None
        return total / len(turns)


def applied(base: Base, chosen: Mixture, load: Loader) -> Applied:
    """The weight changes of a mixture."""
    if chosen.method in ONE_AT_A_TIME:
        turns = tuple(partial(deltas, base, one, load) for one in alone(chosen))
        return Applied(dict, turns, chosen.method == "lora-switch")
    if chosen.method in APART:
        makers = partial(deltas, base, chosen, load)
        return Applied(
            lambda: Deltas({s: m for s, m in makers().makers.items() if not kept_apart(base, chosen, s)})
        )
    return Applied(partial(deltas, base, chosen, load))


Value = TypeVar("Value")


@dataclass
class Recent(Generic[Value]):
    """The values last asked for; the newest one always, however large it is."""

    limit: int
    """Bytes that all of them together may take."""
    size: Callable[[Value], int]
    """Bytes of one."""
    _kept: dict[str, tuple[Value, int]] = field(default_factory=dict)
    _held: int = 0

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept."""
        if key in self._kept:
            value, size = self._kept.pop(key)
        else:
            value = make()
            size = self.size(value)
            self._held += size
        # Behind all others: a dict remembers the order.
        self._kept[key] = (value, size)
        while len(self._kept) > 1 and self._held > self.limit:
            oldest = next(iter(self._kept))
            self._held -= self._kept.pop(oldest)[1]
        return value
