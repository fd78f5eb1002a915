"""Which ControlNet or T2I-Adapter a name means, and where its files lie. No torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CidmError, ExitCode
from ..files.json_files import read_json
from ..files.places import candidates, expanded
from . import hub
from .digests import digest_weights
from .identity import alone, need_hub_name, place_of, wanted_alone

CLASSES = {"ControlNetModel": "controlnet", "T2IAdapter": "t2i-adapter"}
"""By the name of the class that a model's settings tell."""
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class ControlFiles:
    """A model that makes a base follow a structure."""

    source: str
    """A folder, or OWNER/NAME@COMMIT on the hub."""
    folder: Path
    kind: str
    """ "controlnet" or "t2i-adapter"."""
    variant: str | None
    """ "fp16" for weights in half precision."""
    sha256: str
    """Of its weights."""


def find(
    name: str,
    folder: Path,
    flag: str = "--control",
    on_note: Callable[[str], None] = lambda note: None,
) -> ControlFiles:
    """The model a user means; one on the hub is fetched if it is not there yet.

    Args:
        name: a diffusers folder, or ``OWNER/NAME[@REVISION]`` on the hub.
        folder: what a relative path is relative to.
        flag: what named it, for errors.

    Raises:
        CidmError: NOT_FOUND when there is no such model, INVALID when it is neither of the two kinds.
    """
    place = _folder(name, folder)
    if place is not None:
        return _files(place, str(place), f"{flag} {name}")
    what = "the folder of a ControlNet or T2I-Adapter"
    need_hub_name(name, flag, what)
    source = hub.fetch(
        name,
        flag,
        otherwise=what,
        wanted=wanted_alone,
        whole=lambda there: alone(there) is not None,
        check=lambda there: _kind(there, f"{flag} {name}"),
        on_note=on_note,
    )
    cached = hub.cached(source)
    assert cached is not None
    return _files(cached, source, f"{flag} {name}")


def find_again(source: str, sha256: str, beside: Path) -> ControlFiles:
    """A model that was used before, from where it was then, or beside the picture that tells it; nothing is fetched.

    Raises:
        CidmError: NOT_FOUND when it is gone or another one by now.
    """
    there: list[Path | None] = [*candidates(source, beside)]
    with suppress(CidmError, OSError, ValueError):
        there.insert(0, place_of(source))
    for place in there:
        with suppress(CidmError, OSError, ValueError):
            if place is not None and (found := _files(place, source, source)).sha256 == sha256:
                return found
    raise CidmError(
        f"the image was drawn with the model {source}, which is gone or has changed",
        hint="put it back, or beside the image; one on the hub is fetched again by drawing with --control",
        code=ExitCode.NOT_FOUND,
    )


def _folder(name: str, folder: Path) -> Path | None:
    try:
        place = folder / expanded(name)
        return place if place.is_dir() else None
    except (CidmError, OSError, RuntimeError):
        return None


def _files(folder: Path, source: str, shown: str) -> ControlFiles:
    kind = _kind(folder, shown)
    weights = alone(folder)
    if weights is None:
        raise CidmError(
            f"{shown}: no safetensors weights in it",
            hint="save it with model.save_pretrained(PATH); files that need unpickling (.bin, .pth) are never read",
            code=ExitCode.INVALID,
        )
    (file,) = weights.files
    return ControlFiles(source, folder, kind, weights.variant, digest_weights(file))


def _kind(folder: Path, shown: str) -> str:
    """What a folder holds, by its settings alone. Raises CidmError INVALID for anything else than the two."""
    try:
        told: Any = read_json(folder / "config.json", _MAX_BYTES)
        name = str(told["_class_name"])
    except (CidmError, TypeError, KeyError) as error:
        raise CidmError(
            f"{shown}: no settings of a ControlNet or T2I-Adapter in it (config.json)",
            hint="give the folder that diffusers' save_pretrained wrote, or its name on the hub",
            code=ExitCode.INVALID,
        ) from error
    if name not in CLASSES:
        raise CidmError(
            f"{shown}: is a {name[:60]!r}, and neither a ControlNetModel nor a T2IAdapter",
            hint="give one of these, made for the base's family",
            code=ExitCode.INVALID,
        )
    return CLASSES[name]
