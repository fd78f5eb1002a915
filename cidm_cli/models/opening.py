"""Opening the base a registry is bound to."""

from __future__ import annotations

from pathlib import Path

from cidm_registry import Record, Registry

from ..errors import CidmError, ExitCode
from ..formats.concept import ConceptWeights, unpack
from ..formats.lora import Fit
from . import base as bases
from . import text
from .compiling import compiled as compiled_base
from .identity import fingerprint, folder_of, vae_of


def open_base(
    registry: Registry,
    *,
    device: str,
    precision: str,
    offload: bool = False,
    whole: int = bases.WHOLE,
    compiled: bool = False,
) -> bases.Base:
    """Loads the registry's base, after checking that its weights are still those the concepts were learned on.

    What the arguments mean, ``bases.load`` says; ``compiled``, ``compiling.compiled``.

    Raises:
        CidmError: NOT_FOUND when the base is gone, REGISTRY when its weights have changed, USAGE where the machine
            cannot do what is asked.
    """
    place, vae, full = _same(registry)
    where = bases.choose_device(device)
    compute = bases.choose_compute(precision, where)
    base = bases.load(place, device=where, compute=compute, vae=vae, full=full, offload=offload, whole=whole)
    return compiled_base(base) if compiled else base


def outlined(registry: Registry) -> bases.Base:
    """The registry's base without its weights (``models.base.outline``), after checking that they are the same still.

    Raises:
        CidmError: as ``open_base``.
    """
    place, vae, _ = _same(registry)
    return bases.outline(place, vae=vae)


def _same(registry: Registry) -> tuple[Path, Path | None, bool]:
    """Where the registry's base lies, the VAE that stands in for its own, and whether its files in full are meant.

    Other programs share the folder: files in half precision may have come beside those that the registry knows.
    """
    place, vae = folder_of(registry.base), vae_of(registry.base)
    for full in (False, True):
        if fingerprint(place, vae, full=full) == registry.base.fingerprint:
            return place, vae, full
    raise CidmError(
        f"base {registry.base.source}: its weights are not those this registry was made with",
        hint="put the old weights back, or make a registry for the new ones: cidm init --registry PATH",
        code=ExitCode.REGISTRY,
    )


def concept_weights(registry: Registry, base: bases.Base, record: Record) -> ConceptWeights:
    """A concept's weights from the registry, checked against the base, in float32 on the base's device.

    A concept without tokens of its own, from a LoRA file of another program, gets the embeddings of its class noun:
    wherever a prompt names it, the class noun's words stand.

    Raises:
        CidmError: INVALID when they do not fit the base.
    """
    return fitting(base, registry.read_blob(record.blob), record)


def fitting(base: bases.Base, blob: bytes, record: Record) -> ConceptWeights:
    """The weights in a concept's file, as ``concept_weights`` gives them.

    Raises:
        CidmError: INVALID when they do not fit the base.
    """
    weights = checked(base, blob, record)
    own = weights.tokens.shape[1] > 0
    tokens = weights.tokens if own else text.noun_vectors(base, record.class_noun)[None]
    return ConceptWeights(
        {site: up.to(base.device) for site, up in weights.up.items()},
        {site: down.to(base.device) for site, down in weights.down.items()},
        tokens.to(base.device),
        {name: tensor.to(base.device) for name, tensor in weights.state.items()},
    )


def lora_fit(base: bases.Base) -> Fit:
    """What a LoRA file for the base has to fit."""
    names, files = base.architecture.names(base.denoiser), base.family.files
    return Fit(base.shapes, names, files.prefix, files.accepted)


def checked(base: bases.Base, blob: bytes, record: Record) -> ConceptWeights:
    """The weights in a concept's file, as they are in it; the base's shapes are all that is asked for.

    Raises:
        CidmError: INVALID when they do not fit the base.
    """
    weights = unpack(blob, record.name, shapes=base.shapes, layers=len(base.layers), groups=base.groups)
    width = text.token_width(base)
    if weights.tokens.shape[1] and weights.tokens.shape[2] != width:
        raise CidmError(
            f"concept {record.name}: its tokens are {weights.tokens.shape[2]} wide, and the base's {width}",
            hint="learn the concept again on this base",
            code=ExitCode.INVALID,
        )
    return weights
