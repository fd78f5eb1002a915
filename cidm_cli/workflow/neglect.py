"""Judging layouts: is each region's concept the one found in its box, drawn as the layout says and by its rivals?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from cidm_registry import Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..eval_options import EvalOptions, drawing
from ..layout import Layout
from ..layout.masks import mask_folder, read_masks
from ..method import neglect as figures
from ..models.base import Base
from ..models.judges import Judges
from ..options import DrawOptions, as_config, resolve_draw
from ..prompts import parse_prompt
from . import crops, samples
from .evaluate import Events, draw_missing, look_at_references, once
from .generate import check_size
from .layouts import Ablation
from .mixtures import Loader, choose_method
from .neglect_scores import BoxScores, LayoutScores, NeglectScores, Seen
from .rivals import ALONE, BASE, RIVALS, check_rivals, in_one_prompt, only, unlearned
from .subjects import Subject

WHOLE = Ablation()
"""Nothing left out."""
_Place = tuple[str, str]
"""A layout's name, and how it is drawn: a rival, "base" or "alone" with the number of a region."""


@dataclass(frozen=True)
class Spot:
    """A concept where a layout wants it."""

    region: int
    subject: Subject
    part: crops.Part
    excused: frozenset[str]
    """Keys of concepts that belong into the same box: named beside it there, or for the whole picture."""


def evaluate_layouts(
    registry: Registry,
    base: Base,
    layouts: Mapping[str, Layout],
    options: EvalOptions,
    *,
    folder: Path,
    judges: Judges,
    subjects: Sequence[Subject],
    rivals: Sequence[str] = tuple(RIVALS),
    events: Events | None = None,
) -> NeglectScores:
    """Draws layouts in several ways, and looks into their boxes.

    Args:
        layouts: by name. Their own size, steps, guidance and negative prompt hold where ``options`` says nothing;
            the options' seed is added to theirs, and the options' number of samples is drawn.
        folder: where pictures are kept, by content, as for ``evaluate``.
        subjects: the concepts that have reference pictures: those that are judged, and that a box may be taken for.
        rivals: of RIVALS; alone and by the base they are drawn in any case.

    Raises:
        CidmError: USAGE for prompts that are too long, sizes the base cannot draw and unknown rivals; NOT_FOUND when
            no region names a concept that can be judged; INVALID for reference pictures that cannot be read.
    """
    events = events or Events()
    rivals = check_rivals(rivals)
    by_key = {subject.record.key: subject for subject in subjects}
    settings = {name: _settings(layout, options, registry, base) for name, layout in layouts.items()}
    spots, skipped = {}, []
    parts = {name: _parts(layout, settings[name]) for name, layout in layouts.items()}
    for name, layout in layouts.items():
        spots[name], without = spots_of(layout, by_key, parts[name])
        skipped += [(f"{name}, region {region}", why) for region, why in without]
    judged = [name for name in layouts if spots[name]]
    if not judged:
        raise CidmError(
            "no region of the layouts names a concept that has reference pictures",
            "name concepts in the regions' prompts: <dog>; --data says where pictures are",
            ExitCode.NOT_FOUND,
        )
    for what, why in skipped:
        events.on_note(f"{what} is not judged: {why}")

    plan = _plan(registry, base, {n: layouts[n] for n in judged}, spots, settings, by_key, rivals, events)
    draw_missing(registry, base, folder, [batch for batches in plan.values() for batch in batches], events)
    references = look_at_references(judges, by_key, events)
    keys = {place: [key for batch in batches for key in batch.keys] for place, batches in plan.items()}
    outside = {name: crops.background(parts[name], settings[name].size or (0, 0)) for name in judged}
    _look_into_boxes(judges, folder, keys, spots, outside, events)
    return NeglectScores(
        base=registry.base.fingerprint,
        draw=as_config(drawing(options)),
        judges=judges.sources,
        concepts=tuple(subject.record.name for subject in subjects),
        rivals=rivals,
        layouts=tuple(
            _scores(judges, name, settings[name], spots[name], outside[name], keys, references, rivals)
            for name in judged
        ),
        skipped=tuple(skipped),
    )


def spots_of(
    layout: Layout, subjects: Mapping[str, Subject], parts: Sequence[crops.Part]
) -> tuple[list[Spot], list[tuple[int, str]]]:
    """What to look for and where, and (region, why) of what cannot be looked for.

    Args:
        subjects: by concept key.
        parts: the pixels of each region.
    """
    whole = _keys_in(layout.base.prompt)
    spots, without = [], []
    for number, region in enumerate(layout.regions):
        here = _keys_in(region.prompt)
        if not here:
            without.append((number, "its prompt names no concept"))
        for key in here:
            if key in subjects:
                excused = frozenset((*whole, *here)) - {key}
                spots.append(Spot(number, subjects[key], parts[number], excused))
            else:
                without.append((number, f"the data holds no pictures of <{key}>"))
    return spots, without


def _parts(layout: Layout, settings: DrawOptions) -> list[crops.Part]:
    """The pixels of each region: its box, as far as its mask reaches. Raises what ``read_masks`` raises."""
    assert settings.size
    masks = read_masks(layout, mask_folder(layout))
    whole = (0.0, 0.0, 1.0, 1.0)
    return [
        crops.part_of(crops.within(layout.relative_box(region) or whole, masks.get(number)), settings.size)
        for number, region in enumerate(layout.regions)
    ]


def _keys_in(prompt: str) -> tuple[str, ...]:
    return tuple(canonical_key(name) for name in parse_prompt(prompt).names)


def _settings(layout: Layout, options: EvalOptions, registry: Registry, base: Base) -> DrawOptions:
    """How a layout's pictures are drawn, complete. Raises CidmError USAGE for a size the base cannot draw."""
    told, image = drawing(options), layout.image
    settings = replace(
        told,
        seed=told.seed + (image.seed or 0),
        steps=image.steps if told.steps is None else told.steps,
        guidance=image.guidance if told.guidance is None else told.guidance,
        size=image.size,
        negative=told.negative or layout.base.negative,
    )
    whole = resolve_draw(settings, registry.base.kind, base.pixels)
    check_size(whole, base)
    return whole


def _plan(
    registry: Registry,
    base: Base,
    layouts: Mapping[str, Layout],
    spots: Mapping[str, Sequence[Spot]],
    settings: Mapping[str, DrawOptions],
    subjects: Mapping[str, Subject],
    rivals: Sequence[str],
    events: Events,
) -> dict[_Place, list[samples.Batch]]:
    """Everything that has to be there, drawn or not."""
    load = Loader(registry, base)
    records = registry.records()
    nouns = {r.key: subjects[r.key].noun if r.key in subjects else r.class_noun for r in records}
    note = once(events.on_note)
    out: dict[_Place, list[samples.Batch]] = {}
    for name, layout in layouts.items():
        scene = samples.Scene(tuple(records), settings[name])
        nothing = samples.Scene((), replace(settings[name], method="named", power=0.0))
        bare = unlearned(layout, nouns)
        out[name, BASE] = samples.plan_layout(registry, base, load, nothing, bare, WHOLE, note)
        for number in sorted({spot.region for spot in spots[name]}):
            alone = only(layout, number)
            out[name, f"{ALONE} {number}"] = samples.plan_layout(
                registry, base, load, scene, alone, WHOLE, note
            )
        for rival in rivals:
            if rival == "plain":
                prompt = in_one_prompt(layout, nouns)
                out[name, rival] = samples.plan(registry, base, load, scene, [prompt], note)
            elif rival == "neither":
                merged = _all_merged(layout, scene)
                out[name, rival] = samples.plan(registry, base, load, merged, [layout.base.prompt], note)
            else:
                changed, ablation = _variant(layout, rival)
                out[name, rival] = samples.plan_layout(registry, base, load, scene, changed, ablation, note)
    return out


def _variant(layout: Layout, rival: str) -> tuple[Layout, Ablation]:
    """A layout, and what is left out in drawing it."""
    if rival == "own":
        return layout, WHOLE
    image = {"mode": "fast" if rival == "fast" else "full", "crops": rival == "crops"}
    changed = layout.model_copy(update={"image": layout.image.model_copy(update=image)})
    return changed, Ablation(
        attention=rival != "no-attention", form="paper" if rival == "paper" else "corrected"
    )


def _all_merged(layout: Layout, scene: samples.Scene) -> samples.Scene:
    """The scene with the weights of all the layout's concepts, and no others', in every prompt."""
    wanted = {
        key
        for prompt in (layout.base.prompt, *(r.prompt for r in layout.regions))
        for key in _keys_in(prompt)
    }
    mine = tuple(record for record in scene.records if record.key in wanted)
    if choose_method(scene.options.method, mine) != "named":
        return scene
    return samples.Scene(mine, replace(scene.options, method="sum", power=0.0))


def _look_into_boxes(
    judges: Judges,
    folder: Path,
    keys: Mapping[_Place, Sequence[str]],
    spots: Mapping[str, Sequence[Spot]],
    outside: Mapping[str, crops.Part | None],
    events: Events,
) -> None:
    """Shows the judges every part of every picture that is judged."""
    wanted: dict[str, tuple[str, crops.Part]] = {}
    for (name, way), some in keys.items():
        parts = [
            spot.part for spot in spots[name] if not way.startswith(ALONE) or way == f"{ALONE} {spot.region}"
        ]
        back = outside[name]
        if back is not None and not way.startswith(ALONE):
            parts.append(back)
        wanted |= {_crop_key(key, part): (key, part) for key in some for part in parts}

    def crop(which: str) -> Image.Image:
        key, part = wanted[which]
        return crops.square(samples.read(folder, key), part)

    with events.progress("judging", len(wanted)) as update:
        judges.look(list(wanted), crop, update)


def _scores(
    judges: Judges,
    name: str,
    settings: DrawOptions,
    spots: Sequence[Spot],
    outside: crops.Part | None,
    keys: Mapping[_Place, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    rivals: Sequence[str],
) -> LayoutScores:
    assert settings.size
    inside = tuple(dict.fromkeys(spot.subject.record.key for spot in spots))
    boxes = []
    for spot in spots:
        drawn = {way: keys[name, way] for way in (BASE, *rivals)}
        drawn[ALONE] = keys[name, f"{ALONE} {spot.region}"]
        ways = _judge_box(judges, spot, drawn, references, inside)
        record = spot.subject.record
        boxes.append(BoxScores(spot.region, record.name, record.key, spot.part, ways))
    back: dict[str, dict[str, float]] = {}
    if outside is not None:
        back = {
            way: {
                judge: float(
                    figures.background_gain(
                        _crops(judges, judge, keys[name, way], outside),
                        _crops(judges, judge, keys[name, BASE], outside),
                        [judges.pictures(judge, references[key]) for key in inside],
                    ).mean()
                )
                for judge in judges.names
            }
            for way in (*rivals, BASE)
        }
    shown = {
        way: samples.file(Path(), some[0]).name for (layout, way), some in keys.items() if layout == name
    }
    return LayoutScores(name, settings.size, tuple(boxes), outside, back, shown)


def _judge_box(
    judges: Judges,
    spot: Spot,
    drawn: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    inside: Sequence[str],
) -> dict[str, Seen]:
    """A box in each way it was drawn; ``inside`` are the keys of all concepts in the layout's boxes."""
    known = list(references)
    own = known.index(spot.subject.record.key)
    excused = [known.index(key) for key in spot.excused if key in references]
    others = [known.index(key) for key in inside if known.index(key) not in (own, *excused)]
    found: dict[str, dict[str, tuple[float, float, float]]] = {way: {} for way in drawn}
    for judge in judges.names:
        rows = [judges.pictures(judge, some) for some in references.values()]
        similar = {
            way: figures.likeness(_crops(judges, judge, keys, spot.part), rows) for way, keys in drawn.items()
        }
        level = float(similar[BASE][:, own].mean())
        for way, values in similar.items():
            found[way][judge] = (
                float(values[:, own].mean()),
                float(figures.present(values, own, level, excused).float().mean()),
                float(figures.taken(values, own, others).float().mean()),
            )
    return {
        way: Seen(*({judge: cell[number] for judge, cell in by_judge.items()} for number in range(3)))
        for way, by_judge in found.items()
    }


def _crops(judges: Judges, judge: str, keys: Sequence[str], part: crops.Part) -> torch.Tensor:
    return judges.pictures(judge, [_crop_key(key, part) for key in keys])


def _crop_key(key: str, part: crops.Part) -> str:
    return f"{key} {part}"
