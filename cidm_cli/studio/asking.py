"""What the page asks to be done: checked here, where nothing has to be loaded for it, then put into the queue."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any, Literal

from annotated_types import Ge, Len
from pydantic import BaseModel, ConfigDict

from cidm_registry import canonical_key

from ..api import Workspace
from ..errors import CidmError, ExitCode
from . import worker
from .jobs import Job, Queue
from .layouts import UNNAMED
from .place import Place

MAX_PROMPTS = 100


class Asked(BaseModel):
    """What a page sends: nothing else is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Drawing(Asked):
    """Images of a layout, or else of prompts."""

    layout: str | None = None
    """TOML."""
    name: str = UNNAMED
    """Of the layout's file: its masks lie beside it."""
    prompts: Annotated[list[str], Len(0, MAX_PROMPTS)] = []
    options: dict[Literal["negative", "seed", "seeds", "count", "steps", "guidance"], Any] = {}
    """As of `cidm generate`; they win over the layout."""
    grid: bool = False
    """Also one sheet of all images: a row a prompt, a column a seed."""


class Over(Asked):
    """A style given to an image of the folder, or an object drawn into a part of it."""

    concept: str
    prompt: str = ""
    """Empty: what the command says by itself."""
    box: str | None = None
    """Of an edit: x0,y0,x1,y1 as shares of the image."""
    options: dict[Literal["strength"], float] = {}


class Learning(Asked):
    """A concept to learn from uploaded images."""

    name: str
    noun: str = ""
    """Empty: what the captions or the name say."""
    style: bool = False
    update: bool = False
    resume: bool = False
    restart: bool = False
    options: dict[Literal["steps", "seed"], int] = {}
    preview: str = ""
    """A prompt that is drawn now and then; empty: none."""
    every: Annotated[int, Ge(1)] = 100


def draw(place: Place, queue: Queue, asked: Drawing) -> dict[str, Any]:
    """Images; refused before they wait where they cannot be drawn."""
    notes: list[str] = []
    given = asked.model_dump()
    prompts, layouts = worker.subject(place, given)
    drawing = place.workspace(on_note=notes.append).drawing(prompts, layouts, **asked.options)
    return _added(place, queue, "draw", drawing.images[0][0], given, notes)


def again(place: Place, queue: Queue, image: str) -> dict[str, Any]:
    """An image of the gallery, drawn again."""
    Workspace.redrawing([place.there(image)])
    return _added(place, queue, "again", image, {"image": image}, [])


def over(
    place: Place, queue: Queue, image: str, kind: Literal["stylize", "edit"], asked: Over
) -> dict[str, Any]:
    """An image drawn over; refused before it waits where it cannot be."""
    notes: list[str] = []
    given = {**asked.model_dump(), "image": image}
    worker.WORK_OVER[kind](place.workspace(on_note=notes.append, on_warning=notes.append), place, given)
    return _added(place, queue, kind, f"{image}: <{asked.concept}>", given, notes)


def learn(place: Place, queue: Queue, kind: Literal["plan", "learn"], asked: Learning) -> dict[str, Any]:
    """A training, or what it would take; refused before it waits where it cannot be done."""
    notes: list[str] = []
    given = {**asked.model_dump(), "folder": canonical_key(asked.name), "began": time.time_ns() // 10**9}
    workspace = place.workspace(on_note=notes.append, on_warning=notes.append)
    task = worker.task(workspace, place, given)
    if asked.preview:
        workspace.watching(task.name, preview=[asked.preview])
    return _added(place, queue, kind, f"<{task.name}>, a {task.noun}", given, notes)


def export(
    place: Place, queue: Queue, name: str, to: Literal["kohya", "diffusers", "peft", "embedding", "bundle"]
) -> dict[str, Any]:
    """A concept as a file of another program."""
    place.workspace().registry.get(name)
    return _added(place, queue, "export", f"<{name}> as {to}", {"name": name, "to": to}, [])


def previews(place: Place, queue: Queue, number: int) -> list[list[str]]:
    """Previews of a training, oldest first: folder and file."""
    asked = queue.get(number).asked
    if "began" not in asked:
        raise CidmError("only a training has previews", code=ExitCode.USAGE)
    folder = place.within("previews", f"{asked['folder']}-{asked['began']}")
    return [[folder.name, path.name] for path in sorted(folder.glob("*.png"))] if folder.is_dir() else []


def _added(
    place: Place, queue: Queue, kind: str, title: str, asked: dict[str, Any], notes: list[str]
) -> dict[str, Any]:
    job: Job = queue.add(kind, title, asked, [place.shown(note) for note in notes])
    return asdict(job)
