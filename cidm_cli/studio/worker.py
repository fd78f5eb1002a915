"""The process that computes: it keeps the base loaded and does one job after another, told by lines of JSON.

What it is sent: a job, ``{"cancel": ID}``. What it sends: ``ready``, and of a job ``progress``, ``note``, ``look``,
``image``, and at its end ``done`` or ``failed``. Where its standard input ends, so does its work: a training saves a
checkpoint first.
"""

from __future__ import annotations

import base64
import io
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cidm_registry import RegistryError

from ..api import Workspace
from ..errors import CidmError, ExitCode, is_out_of_memory
from ..files.places import words
from ..files.writing import write_beside
from ..layout import load_layout
from .layouts import file_of
from .place import Place

if TYPE_CHECKING:
    from PIL.Image import Image

Tell = Callable[[Mapping[str, Any]], None]
"""Sends a message to the server."""


class Line:
    """What goes back and forth between the server and this process."""

    def __init__(self, given: TextIO, out: TextIO) -> None:
        self.jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.job: int | None = None
        """The number of the one under way."""
        self._cancelled: set[int | None] = set()
        self._closed = False
        self._given, self._out = given, out
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def stopped(self) -> bool:
        """Whether the job under way is to end."""
        return self._closed or self.job in self._cancelled

    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a message; where nobody reads any more, there is nobody to tell."""
        try:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()
        except BrokenPipeError:
            self._closed = True

    def _listen(self) -> None:
        for line in self._given:
            message = json.loads(line)
            if "cancel" in message:
                self._cancelled.add(message["cancel"])
            else:
                self.jobs.put(message)
        self._closed = True
        self.jobs.put(None)


def main() -> None:
    """The process. Its one argument is a ``Place`` as JSON."""
    place = Place(**json.loads(sys.argv[1]))
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What libraries print is for whoever started the server, and would come between the messages.
    os.dup2(2, 1)
    serve(place, Line(sys.stdin, out))


def serve(place: Place, line: Line) -> None:
    """Does the jobs that come, until no more can come."""
    workspace = _opened(place, line)
    # Where it cannot be loaded, the first job that needs it says why.
    with suppress(CidmError, RegistryError):
        workspace.session.base()
    line.tell({"ready": True})
    while (job := line.jobs.get()) is not None:
        line.job = job["id"]
        try:
            line.tell({"done": WORK[job["kind"]](workspace, place, job["asked"], line.tell)})
        except Exception as error:
            line.tell({"failed": _failure(error)})


def _opened(place: Place, line: Line) -> Workspace:
    def progress(label: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        line.tell({"progress": [label, done, total], **numbers})
        # A training is asked to stop by ``should_stop``, and saves a checkpoint.
        if line.stopped and not label.startswith("learning"):
            raise CidmError("stopped", code=ExitCode.INTERRUPTED)

    def look(image: Image) -> None:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=80)
        shown = base64.b64encode(stream.getvalue()).decode()
        line.tell({"look": f"data:image/jpeg;base64,{shown}"})

    def say(text: str) -> None:
        line.tell({"note": text})

    return place.workspace(
        on_progress=progress, on_note=say, on_warning=say, on_look=look, should_stop=lambda: line.stopped
    )


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, CidmError | RegistryError):
        stopped = isinstance(error, CidmError) and error.code == ExitCode.INTERRUPTED
        return {"message": error.message, "hint": error.hint, "stopped": stopped}
    if is_out_of_memory(error):
        return {"message": "out of memory", "hint": "smaller or fewer images, or --offload", "stopped": False}
    traceback.print_exc()
    return {"message": f"unexpected {type(error).__name__}: {error}", "hint": None, "stopped": False}


def draw(workspace: Workspace, place: Place, asked: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Images of a layout or of prompts, and perhaps a grid of them, written as `cidm generate` writes them."""
    drawing = workspace.drawing(*subject(place, asked), **asked["options"])
    drawn = []
    for picture in workspace.draw(drawing):
        prompt, seed = drawing.images[picture.number]
        _keep(place, f"{words(prompt)}-{seed}", picture.content, tell)
        drawn += [picture] if asked["grid"] else []
    if drawn:
        _keep(place, "grid", workspace.grid(sorted(drawn, key=lambda one: one.number)), tell)
    return {}


def subject(place: Place, asked: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """What is to be drawn: prompts, and layouts."""
    if asked["layout"] is None:
        return asked["prompts"], []
    return [], [load_layout(file_of(place, asked["name"]), asked["layout"])]


def again(workspace: Workspace, place: Place, asked: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """An image, from what it says of itself; whether it came out byte for byte the same."""
    path = place.there(asked["image"])
    (picture,) = workspace.redraw(workspace.redrawing([path]))
    return {"same": _keep(place, path.stem, picture.content, tell) == path.name}


def _styling(workspace: Workspace, place: Place, asked: Mapping[str, Any]) -> Any:
    image = place.there(asked["image"])
    return workspace.styling([image], asked["concept"], asked["prompt"] or None, **asked["options"])


def _editing(workspace: Workspace, place: Place, asked: Mapping[str, Any]) -> Any:
    image, prompt = place.there(asked["image"]), asked["prompt"] or None
    return workspace.editing([image], asked["concept"], prompt, box=asked["box"], **asked["options"])


WORK_OVER: Mapping[str, Callable[[Workspace, Place, Mapping[str, Any]], Any]] = {
    "stylize": _styling, "edit": _editing,
}  # fmt: skip
"""By the kind of job, what is to be drawn over an image, checked."""


def over(kind: str, workspace: Workspace, place: Place, asked: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """An image drawn over, written beside it as `cidm stylize` and `cidm edit` write it."""
    for picture in workspace.paint(WORK_OVER[kind](workspace, place, asked)):
        stem = words(f"{Path(asked['image']).stem} {picture.facts['concept']}")
        _keep(place, f"{stem}-{picture.facts['seed']}", picture.content, tell)
    return {}


def plan(workspace: Workspace, place: Place, asked: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """What a training would take."""
    return asdict(workspace.plan(task(workspace, place, asked)))


def learn(workspace: Workspace, place: Place, asked: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """A concept from uploaded images, with previews now and then."""
    work = task(workspace, place, asked)
    folder = place.within("previews", f"{asked['folder']}-{asked['began']}")
    watch = None
    if asked["preview"]:
        watch = workspace.watching(
            work.name, preview=[asked["preview"]], preview_every=asked["every"], preview_to=folder
        )
    record = workspace.train(work, watch=watch)
    return {"concept": record.name, "version": record.version}


def task(workspace: Workspace, place: Place, asked: Mapping[str, Any]) -> Any:
    """What is to be learned, checked."""
    return workspace.task(
        asked["name"], place.within("uploads", asked["folder"]), noun=asked["noun"] or None,
        style=asked["style"], update=asked["update"], resume=asked["resume"], restart=asked["restart"],
        **asked["options"],
    )  # fmt: skip


def export(workspace: Workspace, place: Place, asked: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """A concept as a file of another program."""
    name, kind = asked["name"], asked["to"]
    folder = place.within("exports", f"{name}-{kind}")
    out = folder if kind == "peft" else folder / f"{name}.safetensors"
    written = workspace.export(out, [name], to=kind, force=True)
    return {"files": [path.name for one in written for path in one.paths], "folder": folder.name}


def _keep(place: Place, stem: str, content: bytes, tell: Tell) -> str:
    name = write_beside(Path(place.folder), stem, ".png", content).name
    tell({"image": name})
    return name


WORK: Mapping[str, Callable[[Workspace, Place, dict[str, Any], Tell], dict[str, Any]]] = {
    "draw": draw, "again": again, "plan": plan, "learn": learn, "export": export,
    **{kind: partial(over, kind) for kind in WORK_OVER},
}  # fmt: skip
"""By the kind of job."""

if __name__ == "__main__":
    main()
