"""PNG files that say how they were made, in a text chunk named ``cidm``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from ..errors import CidmError, ExitCode
from ..files.images import MAX_FILE_BYTES, opened
from ..files.json_files import parse_json
from ..files.reading import read_bounded

_KEY = "cidm"
_LARGEST_TEXT = 1 << 20


def encode(image: Image.Image, facts: dict[str, Any]) -> bytes:
    """The file's bytes; equal pictures and facts give equal bytes.

    Besides ``cidm`` (JSON) it carries ``parameters``, the line that AUTOMATIC1111 and its kin show.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt(_KEY, json.dumps(facts, ensure_ascii=False, sort_keys=True))
    info.add_itxt("parameters", _parameters(facts))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def read_facts(path: Path) -> dict[str, Any]:
    """What a picture says of itself.

    Raises:
        CidmError: NOT_FOUND without the file, INVALID when it is no PNG of ours.
    """
    with opened(read_bounded(path, MAX_FILE_BYTES), str(path), ("PNG",)) as image:
        image.load()
        told = image.info.get(_KEY)
    if not isinstance(told, str) or len(told) > _LARGEST_TEXT:
        raise _untold(path, "no such text in it")
    try:
        facts = parse_json(told, "its cidm text")
    except CidmError as error:
        raise _untold(path, error.message) from error
    if not isinstance(facts, dict) or facts.get("format") != 1:
        raise _untold(path, "its cidm text is of an unknown format")
    return facts


def _untold(path: Path, why: str) -> CidmError:
    return CidmError(
        f"{path}: does not say how it was made ({why})",
        hint="give an image that cidm generate wrote; other programs may strip the text on saving",
        code=ExitCode.INVALID,
    )


def _parameters(facts: dict[str, Any]) -> str:
    options = facts["options"]
    negative = f"\nNegative prompt: {options['negative']}" if options["negative"] else ""
    width, height = options["size"]
    strength = f", Denoising strength: {options['strength']:g}" if "strength" in options else ""
    return (
        f"{facts['prompt']}{negative}\nSteps: {options['steps']}, Sampler: {options['sampler']}, "
        f"CFG scale: {options['guidance']:g}, Seed: {facts['seed']}, Size: {width}x{height}{strength}"
    )
