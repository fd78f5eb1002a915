"""The two forms in which ComfyUI saves a workflow, as one graph of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cidm_cli.errors import CidmError, ExitCode

MAX_NODES = 2000

_AREA = ("width", "height", "x", "y", "strength")
_WIDGETS: dict[str, tuple[str, ...]] = {
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        *("width", "height", "crop_w", "crop_h", "target_width", "target_height"),
        *("text_g", "text_l"),
    ),
    "ConditioningSetArea": _AREA,
    "ConditioningSetAreaPercentage": _AREA,
    "ConditioningSetAreaStrength": ("strength",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "KSampler": ("seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "control_after_generate", "cfg"),
    "CFGGuider": ("cfg",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
}
"""A saved workflow gives a node's settings by their place only."""

_NEVER, _BYPASSED = 2, 4
"""Modes of a node that is switched off: nothing comes out of it, or what went in."""


@dataclass(frozen=True)
class Link:
    """An input that comes from another node."""

    node: str
    output: int = 0
    """which of the other node's outputs, from 0"""


@dataclass(frozen=True)
class Node:
    """One node of a workflow."""

    name: str
    """its number"""
    kind: str
    inputs: Mapping[str, Any]
    """settings, and Links"""


@dataclass(frozen=True)
class Graph:
    """A workflow."""

    nodes: Mapping[str, Node]
    """in the order of the file"""


def read_graph(data: Any, source: str, notes: list[str]) -> Graph:
    """The graph of a workflow (parsed JSON), in either form.

    Raises CidmError INVALID for what is none, or has more than MAX_NODES nodes.
    """
    if isinstance(data, Mapping) and isinstance(data.get("prompt"), Mapping):
        data = data["prompt"]  # as it is sent to the server
    if isinstance(data, Mapping) and isinstance(data.get("nodes"), list):
        nodes = _saved(data, notes)
    elif isinstance(data, Mapping):
        nodes = [_sent(name, node) for name, node in data.items() if _is_sent(node)]
    else:
        nodes = []
    if not nodes:
        hint = "save one from ComfyUI (Save, or Export (API)), or give a prompt as a text file"
        raise CidmError(f"{source} is not a ComfyUI workflow", hint, ExitCode.INVALID)
    if len(nodes) > MAX_NODES:
        raise CidmError(f"{source} has more than {MAX_NODES} nodes", code=ExitCode.INVALID)
    return Graph({node.name: node for node in nodes})


def _is_sent(node: Any) -> bool:
    return (
        isinstance(node, Mapping)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), Mapping)
    )


def _sent(name: str, node: Mapping[str, Any]) -> Node:
    """A node of the form in which workflows are sent: a link is [node, output]."""
    inputs = {key: _link_or_value(value) for key, value in node["inputs"].items()}
    return Node(_short(name), _short(node["class_type"]), inputs)


def _link_or_value(value: Any) -> Any:
    if isinstance(value, list):
        ends = len(value) == 2 and isinstance(value[0], str | int) and type(value[1]) is int
        return Link(_short(str(value[0])), value[1]) if ends else None
    return None if isinstance(value, Mapping) else value


def _saved(data: Mapping[str, Any], notes: list[str]) -> list[Node]:
    """Nodes of the form in which workflows are saved: links stand apart, settings have no names."""
    sources = _links(data.get("links"))
    nodes = []
    for node in data["nodes"]:
        if not isinstance(node, Mapping) or not isinstance(node.get("type"), str):
            continue
        name, kind = _short(str(node.get("id"))), _short(node["type"])
        if node.get("mode") == _NEVER:
            notes.append(f"node {name} ({kind}) is switched off, and left out")
            continue
        inputs = _settings(kind, node.get("widgets_values"), node.get("inputs"))
        linked = _linked(node.get("inputs"), sources)
        if node.get("mode") == _BYPASSED:
            notes.append(f"node {name} ({kind}) is bypassed, and left out")
            kind, inputs = "Reroute", {}
        nodes.append(Node(name, kind, {**inputs, **linked}))
    return nodes


def _settings(kind: str, values: Any, inputs: Any) -> dict[str, Any]:
    """What a node is set to, by name."""
    if isinstance(values, Mapping):
        named = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, list):
        named = list(zip(_names(kind, values, inputs), values, strict=False))
    else:
        named = []
    return {name: value for name, value in named if not isinstance(value, list | Mapping)}


def _names(kind: str, values: Sequence[Any], inputs: Any) -> Sequence[str]:
    if kind in _WIDGETS:
        return _WIDGETS[kind]
    entries = inputs if isinstance(inputs, list) else []
    widgets = [
        one["widget"]
        for one in entries
        if isinstance(one, Mapping) and isinstance(one.get("widget"), Mapping)
    ]
    if len(widgets) == len(values):
        return [str(widget.get("name")) for widget in widgets]
    # A node that is there to hold a value has one setting, and perhaps how it changes from run to run.
    return ("value",) if "rimitive" in kind or len(values) == 1 else ()


def _linked(inputs: Any, sources: Mapping[int, Link]) -> dict[str, Link]:
    found = {}
    for one in inputs if isinstance(inputs, list) else ():
        if isinstance(one, Mapping) and type(one.get("link")) is int and one["link"] in sources:
            found[str(one.get("name", ""))] = sources[one["link"]]
    return found


def _links(links: Any) -> dict[int, Link]:
    """Where each link comes from. A link is [number, from, output, to, input, type], or a table."""
    found = {}
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping):
            number, node, output = (link.get(key) for key in ("id", "origin_id", "origin_slot"))
        elif isinstance(link, list) and len(link) >= 3:
            number, node, output = link[:3]
        else:
            continue
        if type(number) is int and isinstance(node, str | int):
            found[number] = Link(_short(str(node)), output if type(output) is int else 0)
    return found


def _short(text: str) -> str:
    """Names come from anyone: a message about them stays a line."""
    return text if len(text) <= 60 else text[:59] + "…"
