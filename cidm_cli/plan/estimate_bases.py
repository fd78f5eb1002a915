"""The base that an estimate is made for: its settings, wherever its weights are, or are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cidm_registry import BaseRef, Record, Registry

from ..errors import CidmError, ExitCode
from ..files.places import expanded
from ..machine.hardware import Hardware
from ..models import checkpoint
from ..models.base import WHOLE, Base
from ..models.identity import (
    MINI,
    family_of,
    folder_of,
    known,
    mini_folder,
    place_of,
    settings_folder,
    vae_of,
)
from ..models.skeleton import skeleton


@dataclass(frozen=True)
class Described:
    """A base by its settings."""

    name: str
    """As it was named, or the registry's source of it."""
    kind: str
    """The name of its family: decides defaults."""
    place: Path
    """A folder or a single file with the settings of its parts; weights may be there or not."""
    vae: Path | None = None
    """The folder of a VAE that stands in for its own."""
    registry: Registry | None = None
    """The registry that is bound to it, if one was asked for."""
    records: Sequence[Record] = ()
    """The concepts there are."""


def described(name: str) -> Described:
    """The base that ``--base`` means; nothing is fetched, and no weights are needed.

    Raises:
        CidmError: NOT_FOUND for one whose settings are not here; INVALID for another kind of model.
    """
    path = expanded(name)
    if name == MINI:
        return Described(name, MINI, mini_folder())
    if name.partition("@")[0] in known():
        family = name.partition("@")[0]
        return Described(name, family, settings_folder(family))
    place = place_of(str(path))
    if place is None or not place.exists():
        raise CidmError(
            f"--base {name!r}: not here, and only settings that are here can be read",
            f"name one that is as large, of its family: --base {' or --base '.join(known())}",
            ExitCode.NOT_FOUND,
        )
    family = checkpoint.inspect(place).family if place.is_file() else family_of(place, name)
    return Described(name, family, place)


def described_in(registry: Registry) -> Described:
    """The base of a registry, and its concepts; where the base is gone, one of its family.

    Raises:
        CidmError: NOT_FOUND when not even the family's settings are known.
    """
    place = _settings(registry.base)
    vae = vae_of(registry.base)
    return Described(registry.base.source, registry.base.kind, place, vae, registry, registry.records())


def _settings(base: BaseRef) -> Path:
    try:
        return folder_of(base)
    except CidmError:
        if base.kind not in known():
            raise
        return settings_folder(base.kind)


def without_weights(about: Described, wanted: Hardware, *, offload: bool = False, whole: int = WHOLE) -> Base:
    """The base as it would be on the hardware, of tensors without numbers."""
    return skeleton(
        about.place, hardware=wanted.kind, compute=wanted.compute, vae=about.vae, offload=offload, whole=whole
    )
