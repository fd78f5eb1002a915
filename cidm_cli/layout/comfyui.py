"""ComfyUI workflows: the areas that conditionings were set to, as regions.

What reaches the sampler is followed backwards through the nodes' links, as ComfyUI itself would run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cidm_cli.layout.comfyui_graph import Link, Node, read_graph
from cidm_cli.layout.comfyui_walk import MAX_CHAIN, Conditioning, Walk
from cidm_cli.layout.drafts import Draft, DraftRegion, Wishes, clipped
from cidm_cli.layout.model import Box
from cidm_cli.layout.weighted import plain_prompt


def read(data: Any, source: str, wishes: Wishes) -> Draft:
    """The draft of a workflow, saved from the menu or in the form that the interface sends ("API format").

    Raises CidmError INVALID for what is no workflow, has no sampler with a prompt, or goes round in a circle.
    """
    draft = Draft("comfyui")
    walk = Walk(read_graph(data, source, draft.notes), source, draft.notes)
    sampler, positive, negative = _sampler(walk)
    draft.image = _settings(walk, sampler, wishes)
    _models(walk, sampler)
    size = draft.image.get("size")
    _fill(draft, walk, positive, negative, size)
    return draft


def _sampler(walk: Walk) -> tuple[Node, list[Conditioning], list[Conditioning]]:
    """The sampler whose prompt has the most areas, the first of several, with what reaches it."""
    found = []
    for node in walk.graph.nodes.values():
        if isinstance(node.inputs.get("positive"), Link) and not node.kind.startswith(
            ("ControlNet", "Conditioning")
        ):
            kept = len(walk.notes)
            positive = walk.conditionings(node.inputs["positive"])
            negative = walk.conditionings(node.inputs.get("negative"))
            notes = walk.notes[kept:]
            del walk.notes[kept:]
            found.append((node, positive, negative, notes))
    if not any(positive for _, positive, _, _ in found):
        raise walk.refused(
            "no sampler with a prompt in it", "save the workflow from ComfyUI, with its prompts"
        )
    node, positive, negative, notes = max(found, key=_fitness)
    others = [other for other, theirs, _, _ in found if other is not node and theirs and theirs != positive]
    walk.notes += notes
    for other in others:
        walk.note(other, f"has other prompts than {node.name}, and is left out")
    return node, positive, negative


def _fitness(found: tuple[Node, list[Conditioning], Any, Any]) -> tuple[int, bool]:
    """Most areas; of those alike, what is called a sampler, for others have a prompt too."""
    node, positive, _, _ = found
    return sum(one.area is not None for one in positive), "ampler" in node.kind or "uider" in node.kind


def _fill(
    draft: Draft,
    walk: Walk,
    positive: Sequence[Conditioning],
    negative: Sequence[Conditioning],
    size: tuple[int, int] | None,
) -> None:
    whole = [one for one in positive if one.area is None and not one.masked]
    draft.prompt = _joined(draft, walk, whole)
    draft.negative = _joined(draft, walk, [one for one in negative if one.area is None and not one.masked])
    negatives = {_box(one, size, walk): one for one in negative if one.area is not None}
    strengths = []
    for one in positive:
        if one.area is None and one.masked:
            draft.note(f"the prompt {one.text[:60]!r} is left out: its mask is not in the file")
        if one.area is None:
            continue
        box = clipped(_box(one, size, walk))
        if box is None:
            draft.note(f"the prompt {one.text[:60]!r} is left out: its area lies outside the image")
            continue
        if box != _box(one, size, walk):
            draft.note(f"the area of {one.text[:60]!r} leaves the image: the part within is taken")
        if one.masked:
            draft.note(f"the mask of {one.text[:60]!r} is not in the file: its area is taken")
        text = _plain(draft, walk, one.text)
        if not text:
            draft.note("an area without a prompt is left out")
            continue
        own = negatives.pop(_box(one, size, walk), None)
        draft.regions.append(DraftRegion(text, box, _plain(draft, walk, own.text) if own else None))
        strengths.append(one.strength)
    if not draft.regions:
        draft.note("no region was found: no prompt that reaches the sampler has an area")
    for other in negatives.values():
        draft.note(f"the negative prompt {other.text[:60]!r} is left out: no region has its area")
    _weigh(draft, [one.strength for one in whole], strengths)


def _weigh(draft: Draft, whole: Sequence[float], regions: Sequence[float]) -> None:
    """ComfyUI takes the mean of all that reaches a place, weighted by strength: the whole picture's share of it."""
    if not regions:
        return
    if len(set(regions)) > 1:
        draft.note(f"the areas' strengths {', '.join(f'{one:g}' for one in regions)}: their mean is taken")
    mean, own = sum(regions) / len(regions), sum(whole)
    if draft.prompt and 0 < own + mean < float("inf") and min(own, mean) >= 0:
        draft.alpha = own / (own + mean)


def _joined(draft: Draft, walk: Walk, parts: Sequence[Conditioning]) -> str:
    texts = [text for one in parts if (text := _plain(draft, walk, one.text))]
    if len(texts) > 1:
        draft.note(f"{len(texts)} prompts of the whole image are joined to one")
    return ", ".join(dict.fromkeys(texts))


def _plain(draft: Draft, walk: Walk, text: str) -> str:
    prompt, notes = plain_prompt(text, walk.source, brackets=False)
    draft.notes += notes
    return prompt


def _box(one: Conditioning, size: tuple[int, int] | None, walk: Walk) -> Box:
    assert one.area is not None
    if not one.pixels:
        return one.area
    if size is None:
        hint = "say the image's size: --size 512x768"
        raise walk.refused("its areas are in pixels, and nothing says how large the image is", hint)
    (width, height), (x0, y0, x1, y1) = size, one.area
    return x0 / width, y0 / height, x1 / width, y1 / height


def _settings(walk: Walk, sampler: Node, wishes: Wishes) -> dict[str, Any]:
    """Keys of `[image]` that the sampler and what it starts from say."""
    image: dict[str, Any] = {}
    latent = _latent(walk, sampler)
    if latent is not None:
        width, height = (walk.number(latent.inputs.get(side)) for side in ("width", "height"))
        if width and height and min(width, height) > 0 and max(width, height) < 1 << 20:
            image["size"] = (int(width), int(height))
        count = walk.number(latent.inputs.get("batch_size"))
        if count and 1 < count <= 1000:
            image["count"] = int(count)
    if wishes.size is not None:
        image["size"] = wishes.size
    for key, names in (("seed", ("seed", "noise_seed")), ("steps", ("steps",)), ("guidance", ("cfg",))):
        value = next(
            (found for name in names if (found := walk.number(sampler.inputs.get(name))) is not None), None
        )
        if value is not None and (key != "guidance" or value >= 0):
            image[key] = float(value) if key == "guidance" else int(value)
    strength = walk.number(sampler.inputs.get("denoise"))
    if strength is not None and strength < 1:
        walk.note(sampler, f"starts from an image (denoise {strength:g}): a layout is drawn from nothing")
    said = [str(sampler.inputs[name]) for name in ("sampler_name", "scheduler") if name in sampler.inputs]
    if said:
        walk.note(sampler, f"samples with {' '.join(said)[:60]}: say --sampler to cidm generate")
    return image


def _latent(walk: Walk, sampler: Node) -> Node | None:
    """The empty picture that a sampler starts from; if none leads there, the only one there is."""
    empty = [
        one for one in walk.graph.nodes.values() if one.kind.startswith("Empty") and "width" in one.inputs
    ]
    value = sampler.inputs.get("latent_image")
    for _ in range(MAX_CHAIN):
        if not isinstance(value, Link) or (node := walk.graph.nodes.get(value.node)) is None:
            break
        if node in empty:
            return node
        value = next(
            (
                node.inputs[name]
                for name in ("samples", "latent_image", "latent", "LATENT")
                if name in node.inputs
            ),
            None,
        )
    if len(empty) > 1:
        walk.notes.append(f"several empty images: the size of node {empty[0].name} is taken")
    return empty[0] if empty else None


def _models(walk: Walk, sampler: Node) -> None:
    """What the picture was drawn with: the registry's own base and concepts take its place."""
    for node in walk.graph.nodes.values():
        if "lora_name" in node.inputs:
            walk.note(
                node, f"loads {str(node.inputs['lora_name'])[:80]}: name a concept in the prompts, as <name>"
            )
        elif "ckpt_name" in node.inputs:
            walk.note(node, f"loads {str(node.inputs['ckpt_name'])[:80]}: the registry's base is drawn with")
