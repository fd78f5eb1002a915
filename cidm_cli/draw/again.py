"""Drawing a picture again from what it says of itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..files.places import candidates
from ..layout import Layout, load_layout
from ..models.base import Base
from ..models.digests import digest
from ..options.declared import settled
from ..options.draw import APART, DRAW_METHODS, ONE_AT_A_TIME, DrawOptions, resolve_draw
from ..options.prompts import parse_prompt
from . import structure
from .encoded import Texts
from .images import Picture, Static, read_static, ready
from .jobs import COMPLETE, FORMS, Ablation, Job, Mask, check_size, masks_of
from .mixtures import Loader, Mixture
from .scenes import Chosen, Part, waiting


def redraw(registry: Registry, base: Base, facts: dict[str, Any], folder: Path = Path()) -> Picture:
    """Draws again the picture that carries ``facts``: with the batch it was drawn in, so that the bytes agree.

    Other files it was drawn with are looked for by their content, where they were then and in the picture's ``folder``.

    Raises:
        CidmError: NOT_FOUND when a concept it shows or a file it was drawn with is gone, INVALID when the facts are
            not such, REGISTRY when it was drawn on another base.
    """
    try:
        fingerprint, found = _told(facts, registry.base.kind, base, folder)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, CidmError) as error:
        raise CidmError(
            f"the image's cidm text is incomplete or was edited ({error!r})",
            hint="give an image that cidm generate wrote, unedited",
            code=ExitCode.INVALID,
        ) from error
    if fingerprint != registry.base.fingerprint:
        raise CidmError(
            "the image was drawn on another base than this registry's",
            hint="give the registry it was drawn from with --registry PATH",
            code=ExitCode.REGISTRY,
        )
    batch, job, chosen, static, place = found(registry.records(all_versions=True))
    with ready(base, job, chosen, Texts(base, Loader(registry, base)), static) as drawing:
        return Picture(drawing(batch, lambda: None)[place], facts)


Records = Sequence[Record]
Found = tuple[list[Part], Job, Chosen, Static | None, int]
"""A batch, the job in it that is drawn again with what it is drawn with, and the picture's place in the batch."""


def _told(
    facts: dict[str, Any], kind: str, base: Base, beside: Path
) -> tuple[str, Callable[[Records], Found]]:
    """The fingerprint of a picture's base, and what, given all concepts there are, finds what it was drawn with.

    Raises CidmError, KeyError, TypeError, ValueError or IndexError for what cannot be drawn; called, CidmError
    NOT_FOUND for what is gone.
    """
    job = _job_of(facts, kind, base)
    seeds, index = _seeds(facts["batch"]), int(facts["index"])
    before, after = ([_part_told(part) for part in facts[side]] for side in ("before", "after"))
    if not 0 <= index < len(seeds) or seeds[index] != facts["seed"]:
        raise ValueError("its seed is not that of its place in the batch")
    ahead = sum(len(seeds) for seeds, _ in before)
    if ahead + len(seeds) + sum(len(seeds) for seeds, _ in after) > job.options.batch:
        raise ValueError("its batch is larger than it says")
    if job.regions and (before or after):
        raise ValueError("its layout shares its batch")
    file = facts["merged"]
    merged = None if file is None else (Path(file["path"]), str(file["sha256"]))
    regions = facts["regions"] if job.regions else []
    hashes: list[str | None] = [part["mask"] for part in regions]
    mixtures = [
        _mixture_told(part, prompt, options.negative, merged is not None, base)
        for (prompt, options), part in zip(job.parts, [facts, *regions], strict=True)
    ]
    if job.regions and any(part["method"] in (*ONE_AT_A_TIME, *APART) for part in (facts, *regions)):
        raise ValueError("its method draws no regions")
    followed = structure.again(facts["structure"], beside) if "structure" in facts else None
    if job.layout and job.layout.structure and followed is None:
        raise ValueError("its layout follows a structure, and it tells none")
    folders = candidates(facts.get("folder") or "", beside)

    def found(there: Records) -> Found:
        whole, *others = (mixture(there) for mixture in mixtures)
        masks = _same_masks(job.regions, folders, hashes) if job.regions else ()
        static = _same_file(merged, base, beside) if merged else None
        drawn = replace(job, structure=followed()) if followed else job
        chosen = waiting(drawn, Chosen(whole, tuple(others), masks))
        first, last = ([part(drawn, chosen, there) for _, part in parts] for parts in (before, after))
        return [*first, Part(drawn, chosen, seeds), *last], drawn, chosen, static, ahead + index

    return facts["base"], found


def _seeds(told: list[int]) -> tuple[int, ...]:
    """Of pictures in a batch. Raises TypeError or ValueError for what cannot be."""
    seeds = tuple(int(seed) for seed in told)
    if not all(0 <= seed < 2**63 for seed in seeds):
        raise ValueError("its seeds are impossible")
    return seeds


def _part_told(told: dict[str, Any]) -> tuple[tuple[int, ...], Callable[[Job, Chosen, Records], Part]]:
    """The seeds of another prompt's pictures in a job's batch, and what finds what they were drawn with.

    Raises CidmError, KeyError, TypeError or ValueError; called, CidmError NOT_FOUND for a concept that is gone.
    """
    prompt, negative, concepts = told["prompt"], told["negative"], told["concepts"]
    if not (isinstance(prompt, str) and isinstance(negative, str) and isinstance(concepts, dict)):
        raise TypeError("its batch is no such")
    given, against = _keys_in(prompt), _keys_in(negative)
    if given | against != concepts.keys():
        raise ValueError("a prompt of its batch names other concepts than it says")
    then = [_then_told({**concept, "key": key}) for key, concept in concepts.items()]
    seeds = _seeds(told["seeds"])

    def found(job: Job, chosen: Chosen, there: Records) -> Part:
        # Drawn with the same weights and settings.
        named = [_found(there, *one, "was drawn in one batch with") for one in then]
        of = [tuple(record for record in named if record.key in keys) for keys in (given, against)]
        whole = replace(chosen.whole, named=of[0], against=of[1])
        options = replace(job.options, negative=negative)
        mine = replace(job, prompt=prompt, options=options)
        return Part(mine, waiting(mine, Chosen(whole)), seeds)

    return seeds, found


def _then_told(told: dict[str, Any]) -> tuple[str, str, str]:
    """Of a concept as it was when a picture was drawn: its key, its blob, its class noun."""
    return told["key"], str(told["blob"]), str(told["class_noun"])


def _keys_in(prompt: str) -> set[str]:
    return {canonical_key(name) for name in parse_prompt(prompt).names}


def _mixture_told(
    part: dict[str, Any], prompt: str, negative: str, merged: bool, base: Base
) -> Callable[[Records], Mixture]:
    """What finds the mixture of one prompt, with the concepts as they were then.

    Raises CidmError, KeyError, TypeError or ValueError; called, CidmError NOT_FOUND for a concept that is gone.
    """
    told = [
        (_then_told(c), c["named"], _layer_weights(c, base), c.get("against", False) is True)
        for c in part["concepts"]
    ]
    named = {then[0] for then, named, _, _ in told if named}
    against = {then[0] for then, _, _, against in told if against}
    if (_keys_in(prompt), _keys_in(negative)) != (named, against):
        raise ValueError("its prompts name other concepts than it shows")
    method = part["method"]
    if method not in (*DRAW_METHODS[1:], "merged") or (method == "merged") != merged:
        raise ValueError(f"its method is {method!r}")

    def found(there: Records) -> Mixture:
        then = [(_found(there, *then, "shows"), *rest) for then, *rest in told]
        used = [(record, weights) for record, _, weights, _ in then if weights]
        return Mixture(
            method, tuple(record for record, named, _, _ in then if named),
            tuple(record for record, _ in used), tuple(weights for _, weights in used),
            tuple(record for record, _, _, against in then if against),
        )  # fmt: skip

    return found


def _found(there: Records, key: str, blob: str, noun: str, how: str) -> Record:
    """A concept as it was then, and under the name it had then: the prompt calls it by that, whatever it is now.

    Raises:
        CidmError: NOT_FOUND when it is gone.
    """
    same = [record for record in there if (record.blob, record.class_noun) == (blob, noun)]
    if not same:
        raise CidmError(
            f"the image {how} <{key}> as it was learned then, and the registry no longer has that version",
            hint="`cidm list` shows what there is",
            code=ExitCode.NOT_FOUND,
        )
    return replace(same[-1], key=key)


def _layer_weights(told: dict[str, Any], base: Base) -> tuple[float, ...]:
    """The weights of a concept at each layer, as a picture tells them; none where only its tokens were used."""
    weights = tuple(float(weight) for weight in told["weights"])
    if weights and len(weights) != len(base.layers):
        raise ValueError(f"it tells {len(weights)} weights of a concept")
    if not all(math.isfinite(weight) for weight in weights) or not isinstance(told["named"], bool):
        raise ValueError("its weights are impossible")
    return weights


def _same_file(told: tuple[Path, str], base: Base, beside: Path) -> Static:
    """The merged file a picture was drawn with.

    Raises:
        CidmError: NOT_FOUND when it is gone or another one by now.
    """
    name, sha256 = told
    for path in candidates(name, beside):
        if os.path.isfile(path) and digest(path) == sha256:
            return read_static(path, base)
    raise CidmError(
        f"the image was drawn with the merged file {name}, which is gone or has changed",
        hint="put it back, or beside the image; or merge the same concepts again",
        code=ExitCode.NOT_FOUND,
    )


def _same_masks(
    layout: Layout, folders: Sequence[Path], hashes: Sequence[str | None]
) -> tuple[Mask | None, ...]:
    """The masks of the layout a picture was drawn with, in the first of these folders that holds them.

    Raises:
        CidmError: NOT_FOUND when one is gone or another one by now; what else reading it raises.
    """
    errors: list[CidmError] = []
    for folder in folders:
        try:
            return _masks_in(folder, layout, hashes)
        except CidmError as error:
            errors.append(error)
    raise errors[0]


def _masks_in(folder: Path, layout: Layout, hashes: Sequence[str | None]) -> tuple[Mask | None, ...]:
    masks = masks_of(layout, folder)
    for index, (mask, then) in enumerate(zip(masks, hashes, strict=True)):
        if mask is not None and mask.sha256 != then:
            raise CidmError(
                f"the image was drawn with a mask that has changed: {mask.path} (region.{index}.mask)",
                hint="put the old one back, or beside the image",
                code=ExitCode.NOT_FOUND,
            )
    return masks


def _job_of(facts: dict[str, Any], kind: str, base: Base) -> Job:
    """The job a picture says it comes from. Raises CidmError, KeyError or TypeError for one that cannot be drawn."""
    said = {**facts["options"], "size": tuple(facts["options"]["size"])}
    if not isinstance(facts["prompt"], str):
        raise TypeError("its prompt is no text")
    # Without the family's defaults: what a picture does not tell cannot be known.
    settled(DrawOptions, said)
    options = resolve_draw(said, kind, base.pixels)
    check_size(options.size, base.multiple)
    layout = None if facts["layout"] is None else _layout_of(facts)
    ablation = _ablation_of(facts) if layout and layout.regions else COMPLETE
    return Job(facts["prompt"], options, layout, ablation)


def _layout_of(facts: dict[str, Any]) -> Layout:
    """The layout a picture says it comes from."""
    if not isinstance(facts["layout"], str):
        raise TypeError("its layout is no text")
    return load_layout("picture", text=facts["layout"])


def _ablation_of(facts: dict[str, Any]) -> Ablation:
    told = Ablation(**facts["ablation"])
    if not all(isinstance(on, bool) for on in (told.attention, told.noise)) or told.form not in FORMS:
        raise ValueError("it leaves out what cannot be left out")
    return told
