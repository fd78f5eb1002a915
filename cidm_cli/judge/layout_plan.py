"""What an evaluation of layouts draws, and where in the pictures it looks for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cidm_registry import Registry, canonical_key

from ..draw import structure
from ..draw.jobs import COMPLETE, Ablation, check_size, choose_method
from ..draw.mixtures import Loader
from ..layout import Layout
from ..layout.masks import mask_folder, read_masks
from ..models.base import Base
from ..options.declared import spelled
from ..options.draw import DrawOptions, resolve_draw
from ..options.judge import EvalOptions
from ..options.prompts import parse_prompt
from . import crops, samples
from .rivals import ALONE, BASE, SINGLE, in_one_prompt, only, unlearned
from .subjects import Subject

Place = tuple[str, str, int | None]
"""A layout's name, how it is drawn, and the number of the region it is drawn for, where it is for one alone."""
LONGEST = 4
"""Sides of a single picture, in the base's own: a seam of a box is not drawn as a picture of its own length."""


@dataclass(frozen=True)
class Spot:
    """A concept where a layout wants it."""

    region: int
    subject: Subject
    part: crops.Part
    excused: frozenset[str]
    """Keys of concepts that belong into the same box: named beside it there, or for the whole picture."""


@dataclass(frozen=True)
class Scene:
    """A layout, ready to be judged."""

    name: str
    layout: Layout
    options: DrawOptions
    """How its pictures are drawn."""
    spots: tuple[Spot, ...]
    background: crops.Part | None
    """The part outside all boxes; None where there is too little of it."""
    skipped: tuple[tuple[int, str], ...]
    """(region, why) of what cannot be looked for."""

    @property
    def size(self) -> tuple[int, int]:
        """Of its pictures, in pixels."""
        return self.options.size


def scene(
    registry: Registry,
    base: Base,
    name: str,
    layout: Layout,
    options: EvalOptions,
    subjects: Mapping[str, Subject],
) -> Scene:
    """What to look for in a layout, and where; ``subjects`` by concept key.

    Raises:
        CidmError: USAGE for a size the base cannot draw; what reading its masks raises.
    """
    own = {name: getattr(layout.image, name) for name in ("steps", "guidance", "size")}
    asked = spelled(DrawOptions, {**own, **options.drawn})
    asked["seed"] += layout.image.seed or 0
    asked["negative"] = asked["negative"] or layout.base.negative
    whole = resolve_draw(asked, registry.base.kind, base.pixels)
    check_size(whole.size, base.multiple)
    masks = read_masks(layout, mask_folder(layout))
    everywhere = (0.0, 0.0, 1.0, 1.0)
    parts = [
        crops.part_of(crops.within(layout.relative_box(region) or everywhere, masks.get(number)), whole.size)
        for number, region in enumerate(layout.regions)
    ]
    spots, skipped = _spots(layout, subjects, parts)
    return Scene(name, layout, whole, spots, crops.background(parts, whole.size), skipped)


def plan(
    registry: Registry,
    base: Base,
    scenes: Sequence[Scene],
    subjects: Mapping[str, Subject],
    rivals: Sequence[str],
    note: Callable[[str], None],
) -> dict[Place, list[samples.Batch]]:
    """Everything that has to be there, drawn or not."""
    load = Loader(registry, base)
    records = tuple(registry.records())
    nouns = {r.key: subjects[r.key].noun if r.key in subjects else r.class_noun for r in records}
    out: dict[Place, list[samples.Batch]] = {}
    for each in scenes:
        name, layout, options = each.name, each.layout, each.options
        there = samples.Scene(records, options)
        followed = structure.of_layout(layout, on_note=note)

        def by_layout(
            changed: Layout, ablation: Ablation = COMPLETE, there: samples.Scene = there
        ) -> list[samples.Batch]:
            return samples.plan_layout(registry, base, load, there, changed, ablation, note)

        nothing = samples.scene((), replace(options, method="named", power=0.0), nouns)
        out[name, BASE, None] = by_layout(unlearned(layout, nouns), COMPLETE, nothing)
        for number, part in {spot.region: spot.part for spot in each.spots}.items():
            region = layout.regions[number]
            out[name, ALONE, number] = by_layout(only(layout, number))
            size = single_size(base, part)
            negative = options.negative if region.negative is None else region.negative
            by_itself = samples.Scene(records, replace(options, size=size, negative=negative))
            out[name, SINGLE, number] = samples.plan(registry, base, load, by_itself, [region.prompt])
        for rival in rivals:
            if rival == "plain":
                prompt = in_one_prompt(layout, nouns)
                out[name, rival, None] = samples.plan(registry, base, load, there, [prompt], followed)
            elif rival == "neither":
                merged = _all_merged(layout, there, nouns)
                out[name, rival, None] = samples.plan(
                    registry, base, load, merged, [layout.base.prompt], followed
                )
            else:
                out[name, rival, None] = by_layout(*_variant(layout, rival))
    return out


def single_size(base: Base, part: crops.Part) -> tuple[int, int]:
    """Of a picture of a box's shape that the base can draw: no side is below the base's own."""
    multiple = base.multiple
    sides = (part[2] - part[0], part[3] - part[1])
    times = max(1.0, base.pixels / min(sides))
    longest = max(LONGEST * base.pixels, max(sides) // multiple * multiple)
    width, height = (min(max(round(side * times / multiple), 1) * multiple, longest) for side in sides)
    return width, height


def _spots(
    layout: Layout, subjects: Mapping[str, Subject], parts: Sequence[crops.Part]
) -> tuple[tuple[Spot, ...], tuple[tuple[int, str], ...]]:
    """The concepts in their regions' ``parts``, and (region, why) of what cannot be looked for."""
    whole = _keys_in(layout.base.prompt)
    spots, skipped = [], []
    for number, region in enumerate(layout.regions):
        here = _keys_in(region.prompt)
        if not here:
            skipped.append((number, "its prompt names no concept"))
        for key in here:
            if key in subjects:
                excused = frozenset((*whole, *here)) - {key}
                spots.append(Spot(number, subjects[key], parts[number], excused))
            else:
                skipped.append((number, f"the data holds no images of <{key}>"))
    return tuple(spots), tuple(skipped)


def _keys_in(prompt: str) -> tuple[str, ...]:
    return tuple(canonical_key(name) for name in parse_prompt(prompt).names)


def _variant(layout: Layout, rival: str) -> tuple[Layout, Ablation]:
    """A layout, and what is left out in drawing it."""
    if rival == "own":
        return layout, COMPLETE
    image = {"mode": "fast" if rival == "fast" else "full", "crops": rival == "crops"}
    changed = layout.model_copy(update={"image": layout.image.model_copy(update=image)})
    return changed, Ablation(
        attention=rival != "no-attention", form="paper" if rival == "paper" else "corrected"
    )


def _all_merged(layout: Layout, there: samples.Scene, nouns: Mapping[str, str]) -> samples.Scene:
    """The scene with the weights of all the layout's concepts, and no others', in every prompt."""
    prompts = (layout.base.prompt, *(region.prompt for region in layout.regions))
    wanted = {key for prompt in prompts for key in _keys_in(prompt)}
    mine = tuple(record for record in there.records if record.key in wanted)
    if choose_method(there.options.method, mine) != "named":
        return there
    return samples.scene(mine, replace(there.options, method="sum", power=0.0), nouns)
