"""What lies in the folder: images, newest first, each with what it says of how it was drawn."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..api import Workspace
from ..errors import CidmError
from ..files.images import decode_picture
from ..files.places import words
from ..files.writing import write_beside
from .place import Place

PAGE = 24
"""Images that are told at a time."""


def listed(place: Place, start: int = 0) -> dict[str, Any]:
    """Some of the images, and how many there are."""
    paths = [path for path in Path(place.folder).glob("*.png") if path.is_file()]
    paths.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    shown = paths[start : start + PAGE]
    return {"count": len(paths), "images": [{"name": path.name, **_told(path)} for path in shown]}


def kept(place: Place, name: str, content: bytes) -> str:
    """Keeps an uploaded image among the others, as PNG, and returns its name. Raises CidmError for what is none."""
    stream = io.BytesIO()
    decode_picture(content, name).image.save(stream, "PNG")
    return write_beside(Path(place.folder), words(Path(name).stem), ".png", stream.getvalue()).name


def _told(path: Path) -> dict[str, Any]:
    """The facts that a page shows; none of an image that was not drawn here."""
    try:
        facts = Workspace.facts(path)
        concepts = [one["name"] for one in facts["concepts"]]
        regions = [one["name"] for part in facts.get("regions", ()) for one in part["concepts"]]
        told = {
            key: facts[key] for key in ("prompt", "seed", "options", "method", "compute", "device", "tools")
        }
    except (CidmError, KeyError, TypeError):
        return {"facts": None}
    told |= {
        "concepts": list(dict.fromkeys([*concepts, *regions])),
        "layout": facts.get("layout") is not None,
    }
    return {"facts": told}
