"""Following a ComfyUI workflow's links backwards, from what a sampler is given to the prompts it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout.comfyui_graph import Graph, Link, Node
from cidm_cli.layout.model import Box

MAX_STEPS = 5000
"""Nodes looked at on the way back from a sampler: two combined with themselves again and again have no end."""
MAX_CHAIN = 200
"""Nodes one behind another."""

_LARGEST = 2**70
_TEXTS = ("text", "text_g", "text_l", "string", "value", "prompt")
_IGNORED = "is not carried over"


@dataclass(frozen=True)
class Conditioning:
    """A prompt on its way to the sampler."""

    text: str
    area: Box | None = None
    """in shares of the picture's sides, or in pixels if `pixels`"""
    pixels: bool = False
    strength: float = 1.0
    masked: bool = False


@dataclass
class Walk:
    """Following links backwards, and what was met on the way."""

    graph: Graph
    source: str
    notes: list[str]
    steps: int = 0

    def conditionings(self, link: Any, behind: tuple[str, ...] = ()) -> list[Conditioning]:
        """What comes out of the node that an input is linked to."""
        if not isinstance(link, Link) or (node := self.graph.nodes.get(link.node)) is None:
            return []
        self.steps += 1
        if node.name in behind:
            raise self.refused(f"the links of node {node.name} lead back to it")
        if self.steps > MAX_STEPS or len(behind) > MAX_CHAIN:
            raise self.refused("its conditionings are combined too often")
        behind = (*behind, node.name)
        reader = _READERS.get(node.kind)
        if reader is not None:
            return reader(self, node, behind)
        if any(name in node.inputs for name in ("text", "text_g", "text_l")):
            return self.encoded(node)
        # A node that takes both prompts gives both back, in the same order.
        names = ("negative",) if link.output == 1 and "negative" in node.inputs else _PASSED
        passed = next((name for name in names if isinstance(node.inputs.get(name), Link)), None)
        if node.kind != "Reroute":
            what = _IGNORED if passed else "is not known, and what comes out of it is left out"
            self.note(node, what)
        return self.conditionings(node.inputs[passed], behind) if passed else []

    def encoded(self, node: Node) -> list[Conditioning]:
        """The prompt of a text encoder; SDXL's has two, which are mostly the same."""
        found = [
            self.text(node.inputs.get(name)) for name in ("text", "text_g", "text_l") if name in node.inputs
        ]
        texts = list(dict.fromkeys(text.strip() for text in found if text is not None))
        if None in found:
            self.note(node, "takes its text from a node that cannot be read: it is left out")
        if len(texts) > 1:
            self.note(node, "has a text for each of two encoders: they are joined")
        return [Conditioning(", ".join(text for text in texts if text))]

    def text(self, value: Any) -> str | None:
        found = self.value(value, _TEXTS)
        return found if isinstance(found, str) else None

    def number(self, value: Any) -> float | None:
        found = self.value(value, ("value", "seed", "noise_seed", "int", "float", "number"))
        usable = (
            isinstance(found, int | float) and not isinstance(found, bool) and -_LARGEST < found < _LARGEST
        )
        return found if usable else None

    def value(self, value: Any, names: Sequence[str]) -> Any:
        """What an input is set to, by itself or by a node for the purpose."""
        for _ in range(MAX_CHAIN):
            if not isinstance(value, Link):
                return value
            node = self.graph.nodes.get(value.node)
            if node is None:
                return None
            found = next((node.inputs[name] for name in names if node.inputs.get(name) is not None), None)
            value = found if found is not None else next(iter(node.inputs.values()), None)
        raise self.refused("a value goes through too many nodes")

    def note(self, node: Node, text: str) -> None:
        self.notes.append(f"node {node.name} ({node.kind}) {text}")

    def refused(self, message: str, hint: str | None = None) -> CidmError:
        return CidmError(f"{self.source}: {message}", hint, ExitCode.INVALID)


def _combine(walk: Walk, node: Node, behind: tuple[str, ...]) -> list[Conditioning]:
    links = [value for name, value in node.inputs.items() if name.startswith("conditioning")]
    return [one for link in links for one in walk.conditionings(link, behind)]


def _concat(walk: Walk, node: Node, behind: tuple[str, ...]) -> list[Conditioning]:
    to = walk.conditionings(node.inputs.get("conditioning_to"), behind)
    behind_it = walk.conditionings(node.inputs.get("conditioning_from"), behind)
    walk.note(node, "joins what was encoded: the texts are joined")
    return [
        replace(one, text=", ".join(text for text in (one.text, *(o.text for o in behind_it[:1])) if text))
        for one in to
    ]


def _average(walk: Walk, node: Node, behind: tuple[str, ...]) -> list[Conditioning]:
    walk.note(node, "takes the mean of two prompts: the first is kept")
    return walk.conditionings(node.inputs.get("conditioning_to"), behind)


def _zero(walk: Walk, node: Node, behind: tuple[str, ...]) -> list[Conditioning]:
    return [replace(one, text="") for one in walk.conditionings(node.inputs.get("conditioning"), behind)]


def _area(walk: Walk, node: Node, behind: tuple[str, ...]) -> list[Conditioning]:
    numbers = [walk.number(node.inputs.get(name)) for name in ("x", "y", "width", "height")]
    pixels = node.kind == "ConditioningSetArea"
    if any(one is None for one in numbers):
        walk.note(node, "says no area that can be read: it is the whole image's")
        return walk.conditionings(node.inputs.get("conditioning"), behind)
    x, y, width, height = (min(max(float(one or 0), -1e6), 1e6) for one in numbers)
    area = (x, y, x + width, y + height)
    strength = walk.number(node.inputs.get("strength"))
    inner = walk.conditionings(node.inputs.get("conditioning"), behind)
    return [
        replace(one, area=area, pixels=pixels, strength=1.0 if strength is None else strength)
        for one in inner
    ]


def _area_strength(walk: Walk, node: Node, behind: tuple[str, ...]) -> list[Conditioning]:
    strength = walk.number(node.inputs.get("strength"))
    inner = walk.conditionings(node.inputs.get("conditioning"), behind)
    return [replace(one, strength=1.0 if strength is None else strength) for one in inner]


def _mask(walk: Walk, node: Node, behind: tuple[str, ...]) -> list[Conditioning]:
    return [replace(one, masked=True) for one in walk.conditionings(node.inputs.get("conditioning"), behind)]


_Reader = Callable[[Walk, Node, tuple[str, ...]], list[Conditioning]]

_READERS: dict[str, _Reader] = {
    "ConditioningCombine": _combine,
    "ConditioningConcat": _concat,
    "ConditioningAverage": _average,
    "ConditioningZeroOut": _zero,
    "ConditioningSetArea": _area,
    "ConditioningSetAreaPercentage": _area,
    "ConditioningSetAreaStrength": _area_strength,
    "ConditioningSetMask": _mask,
}

_PASSED = ("conditioning", "positive", "cond", "CONDITIONING", "", "*", "any", "value")
"""Inputs through which a node that only adds something passes a conditioning on."""
