"""Judging layouts: is each region's concept the one found in its box, drawn as the layout says and by its rivals?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from cidm_registry import Registry

from ..errors import CidmError, ExitCode
from ..layout import Layout
from ..machine.processes import SOLO, Crew
from ..machine.session import UNHEARD, Listener
from ..method import neglect as figures
from ..models.base import Base
from ..options.declared import spelled
from ..options.draw import DrawOptions
from ..options.judge import EvalOptions
from ..terminal.progress import once
from . import crops, samples
from .concepts import draw_missing, look_at_references
from .encoders import Judges
from .layout_plan import Place, Scene, Spot, plan, scene
from .layout_scores import BoxScores, LayoutScores, NeglectScores, Seen
from .rivals import ALONE, BASE, RIVALS, SINGLE, check_rivals
from .subjects import Subject


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
    listener: Listener = UNHEARD,
    crew: Crew = SOLO,
) -> NeglectScores:
    """Draws layouts in several ways, and looks into their boxes. Several processes share the drawing.

    Args:
        layouts: by name. Their own size, steps, guidance and negative prompt hold where ``options`` says nothing;
            the options' seed is added to theirs, and the options' number of samples is drawn.
        folder: where pictures are kept, by content, as for ``evaluate``.
        subjects: the concepts that have reference pictures: those that are judged, and that a box may be taken for.
        rivals: of RIVALS; alone, as single pictures and by the base they are drawn in any case.

    Raises:
        CidmError: USAGE for prompts that are too long, sizes the base cannot draw and unknown rivals; NOT_FOUND when
            no region names a concept that can be judged; INVALID for reference pictures that cannot be read.
    """
    rivals = check_rivals(rivals)
    by_key = {subject.record.key: subject for subject in subjects}
    every = [scene(registry, base, name, layout, options, by_key) for name, layout in layouts.items()]
    skipped = [(f"{one.name}, region {region}", why) for one in every for region, why in one.skipped]
    scenes = [one for one in every if one.spots]
    if not scenes:
        raise CidmError(
            "no region of the layouts names a concept that has reference images",
            "name concepts in the regions' prompts: <dog>; --data says where images are",
            ExitCode.NOT_FOUND,
        )
    for what, why in skipped:
        listener.note(f"{what} is not judged: {why}")

    drawn = plan(registry, base, scenes, by_key, rivals, once(listener.note))
    every_batch = [batch for batches in drawn.values() for batch in batches]
    draw_missing(registry, base, folder, every_batch, listener, crew)
    references = look_at_references(judges, by_key, listener)
    keys = {place: [key for batch in batches for key in batch.keys] for place, batches in drawn.items()}
    _look_into_boxes(judges, folder, keys, scenes, listener)
    return NeglectScores(
        base=registry.base.fingerprint,
        draw=spelled(DrawOptions, options.drawn),
        judges=judges.sources,
        concepts=tuple(subject.record.name for subject in subjects),
        rivals=rivals,
        layouts=tuple(_scores(judges, one, keys, references, rivals) for one in scenes),
        skipped=tuple(skipped),
    )


def _look_into_boxes(
    judges: Judges,
    folder: Path,
    keys: Mapping[Place, Sequence[str]],
    scenes: Sequence[Scene],
    listener: Listener,
) -> None:
    """Shows the judges every part of every picture that is judged."""
    by_name = {one.name: one for one in scenes}
    wanted: dict[str, tuple[str, crops.Part, str]] = {}
    for (name, way, region), some in keys.items():
        one = by_name[name]
        parts = [spot.part for spot in one.spots if region in (None, spot.region)]
        if region is None and one.background is not None:
            parts.append(one.background)
        wanted |= {_crop_key(way, key, part): (key, part, way) for key in some for part in parts}

    def crop(which: str) -> Image.Image:
        key, part, way = wanted[which]
        picture = samples.read(folder, key)
        if way != SINGLE:
            return crops.square(picture, part)
        width, height = part[2] - part[0], part[3] - part[1]
        return crops.square(picture.resize((width, height), Image.Resampling.LANCZOS), (0, 0, width, height))

    with listener.stage("judging", len(wanted)) as update:
        judges.look(list(wanted), crop, update)


def _scores(
    judges: Judges,
    one: Scene,
    keys: Mapping[Place, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    rivals: Sequence[str],
) -> LayoutScores:
    inside = tuple(dict.fromkeys(spot.subject.record.key for spot in one.spots))
    boxes = []
    for spot in one.spots:
        drawn = {way: keys[one.name, way, None] for way in (BASE, *rivals)}
        drawn |= {way: keys[one.name, way, spot.region] for way in (ALONE, SINGLE)}
        record = spot.subject.record
        ways = _judge_box(judges, spot, drawn, references, inside)
        boxes.append(BoxScores(spot.region, record.name, record.key, spot.part, ways))
    back: dict[str, dict[str, float]] = {way: {} for way in (*rivals, BASE) if one.background is not None}
    for way, judge in ((way, judge) for way in back for judge in judges.names):
        mine, bare = (
            _crops(judges, judge, some, keys[one.name, some, None], one.background) for some in (way, BASE)
        )
        known = [judges.pictures(judge, references[key]) for key in inside]
        back[way][judge] = float(figures.background_gain(mine, bare, known).mean())
    shown = {
        way if region is None else f"{way} {region}": samples.file(Path(), some[0]).name
        for (name, way, region), some in keys.items()
        if name == one.name
    }
    return LayoutScores(one.name, one.size, tuple(boxes), one.background, back, shown)


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
            way: figures.likeness(_crops(judges, judge, way, keys, spot.part), rows)
            for way, keys in drawn.items()
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


def _crops(
    judges: Judges, judge: str, way: str, keys: Sequence[str], part: crops.Part | None
) -> torch.Tensor:
    """Embeddings of a part of pictures drawn in one way."""
    assert part is not None
    return judges.pictures(judge, [_crop_key(way, key, part) for key in keys])


def _crop_key(way: str, key: str, part: crops.Part) -> str:
    """Of a part of a picture; a single picture is all of it, made as large as the part."""
    return f"{key} {'in ' if way == SINGLE else ''}{part}"
