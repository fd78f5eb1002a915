"""Which images are asked for, from prompts, layouts, options and settings; refused before any model. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cidm_registry import Registry

from ..errors import CidmError, ExitCode
from ..layout import Layout, unfit_size
from ..machine.computing import Machine
from ..machine.session import Session
from ..options.declared import Asked, declared, flag, settled
from ..options.draw import DrawOptions, PromptOptions, read_seeds, resolve_draw
from ..options.prompts import parse_prompt, unmarked
from .canvas import picture_of
from .choices import chosen
from .jobs import Job, check, check_size, check_static
from .over_jobs import command_for
from .png import read_facts
from .structure import Sketch, followed

_DECIDED = ("seed", "count", "negative")
"""Options that no base has defaults of its own for."""


@dataclass(frozen=True)
class Drawing:
    """Images to draw, checked."""

    jobs: tuple[Job, ...]
    """Layouts first, then prompts."""
    asked: tuple[Asked, ...]
    """The options of each: what they leave open is the base's, once it is there."""
    merged: Path | None
    """A file of ``merge``, drawn with in place of the concepts' own weights."""

    @property
    def images(self) -> list[tuple[str, int]]:
        """Prompt and seed of each image, in order."""
        return [(job.prompt, job.options.seed + k) for job in self.jobs for k in range(job.options.count)]


def drawing(
    session: Session,
    prompts: Sequence[str],
    layouts: Sequence[Layout],
    options: Mapping[str, Any],
    *,
    merged: Path | None = None,
    sketch: Sketch | None = None,
    control: str | None = None,
) -> Drawing:
    """What is to be drawn. Options win over layouts, layouts over settings.

    Args:
        options: of ``DrawOptions`` and ``PromptOptions``.
        control: the model that follows structures where neither a layout nor the sketch names one.

    Raises:
        CidmError: NOT_FOUND for an unknown concept, USAGE for what cannot be drawn.
    """
    registry, note = session.registry, session.listener.note
    usual = session.machine("draw").completed(session.said(DrawOptions, "draw", {}))
    reading = {name: options[name] for name in declared(PromptOptions) if name in options}
    if isinstance(written := reading.get("seeds"), str):
        reading["seeds"] = read_seeds(written)
    read = settled(PromptOptions, reading)
    given = session.said(DrawOptions, "draw", {k: v for k, v in options.items() if k not in reading})
    said = {name: given[name] for name in options if name in given}
    if read.seeds and (other := next((name for name in ("seed", "count") if name in said), None)):
        raise CidmError(f"--seeds and {flag(other)} exclude each other", "give one of them", ExitCode.USAGE)
    for layout in layouts if "size" not in said else ():
        if unfit := unfit_size(layout, picture_of(layout.image.size, registry).multiple):
            raise unfit
    asked = [{**usual, **told_by(layout), **said} for layout in layouts]
    asked += [{**usual, **said} for _ in prompts]
    resolved = [resolve_draw(own, session.kind, 64) for own in asked]
    for own in asked:
        check_drawable(own.get("size"), registry)
    what = [*((layout.base.prompt, layout) for layout in layouts), *((prompt, None) for prompt in prompts)]
    jobs, asking, of = [], [], []
    for number, ((prompt, scene), how) in enumerate(zip(what, resolved, strict=True)):
        for job in chosen(Job(prompt, how, scene), read):
            jobs.append(job)
            asking.append({**asked[number], **{name: getattr(job.options, name) for name in _DECIDED}})
            of.append(number)
    check(registry, jobs)
    if merged:
        check_static(registry, merged, [name for job in jobs for name in job.names])
        if any(parse_prompt(text).strengths for job in jobs for text, _ in job.parts):
            raise CidmError(
                "a concept's strength means nothing with --merged: the file holds it",
                "merge with other weights, or leave --merged out",
                ExitCode.USAGE,
            )
    names = [record.name for record in registry.records()]
    for prompt in prompts:
        if name := unmarked(parse_prompt(prompt), names):
            note(f"prompt {prompt!r}: names no concept; <{name}> would be the learned one")
    lines = followed(sketch or Sketch(), layouts, len(prompts), control, note)
    following = [replace(job, structure=lines[number]) for job, number in zip(jobs, of, strict=True)]
    return Drawing(tuple(following), tuple(asking), merged)


def to_redraw(paths: Sequence[Path]) -> list[tuple[dict[str, Any], Path]]:
    """What images say of how they were drawn, each with the folder it lies in.

    Raises:
        CidmError: USAGE for one that cannot be drawn again from that alone; what ``read_facts`` raises.
    """
    out = []
    for path in paths:
        facts = read_facts(path)
        if facts.get("command") == "learn":
            raise CidmError(
                f"{path}: shows a concept in training, with weights that are not kept",
                "give an image that cidm generate wrote",
                ExitCode.USAGE,
            )
        if command := command_for(facts):
            raise CidmError(
                f"{path}: was drawn over a given image, which is not in it",
                f"with that image, run: {command}",
                ExitCode.USAGE,
            )
        out.append((facts, path.parent))
    return out


def as_drawn(machine: Machine, facts: Mapping[str, Any]) -> Machine:
    """The machine, computing as it did when an image was drawn."""
    whole = facts.get("whole")
    return replace(
        machine,
        precision={"bfloat16": "bf16", "float16": "fp16"}.get(str(facts.get("compute")), "fp32"),
        whole=whole if type(whole) is int and whole > 0 else None,
        compiled=facts.get("compiled") is True,
    )


def told_by(layout: Layout) -> dict[str, Any]:
    """What a layout says of drawing: only what stands in it, so that the base's own defaults stay."""
    image = {name: getattr(layout.image, name) for name in ("size", "seed", "steps", "guidance")}
    if "count" in layout.image.model_fields_set:
        image["count"] = layout.image.count
    said = {name: value for name, value in image.items() if value is not None}
    return {**said, "negative": layout.base.negative} if layout.base.negative else said


def check_drawable(size: tuple[int, int] | None, registry: Registry) -> None:
    """Raises CidmError USAGE for a size that the base cannot draw, as far as its configuration files tell."""
    if size is not None and (multiple := picture_of(size, registry).multiple):
        check_size(size, multiple)
