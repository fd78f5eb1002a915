"""Opening the base a registry is bound to."""

from __future__ import annotations

from cidm_registry import Registry

from ..errors import CidmError, ExitCode
from ..formats.concept import ConceptWeights, unpack
from ..models import base as bases
from ..models.attention import cross_attention_layers, linear_shapes
from ..models.identity import fingerprint, folder_of


def open_base(registry: Registry, *, device: str, precision: str) -> bases.Base:
    """Loads the registry's base, after checking that its weights are still those the concepts were learned on.

    Raises:
        CidmError: NOT_FOUND when the base is gone, REGISTRY when its weights have changed.
    """
    folder = folder_of(registry.base)
    if fingerprint(folder) != registry.base.fingerprint:
        raise CidmError(
            f"base {registry.base.source}: its weights are not those this registry was made with",
            hint="put the old weights back, or make a registry for the new ones: cidm init --registry PATH",
            code=ExitCode.REGISTRY,
        )
    where = bases.choose_device(device)
    return bases.load(folder, device=where, compute=bases.choose_compute(precision, where))


def concept_weights(registry: Registry, base: bases.Base, sha: str, name: str) -> ConceptWeights:
    """A concept's weights from the registry, checked against the base, in float32 on the base's device.

    Raises:
        CidmError: INVALID when they do not fit the base.
    """
    layers = len(cross_attention_layers(base.unet))
    weights = unpack(registry.read_blob(sha), name, shapes=linear_shapes(base.unet), layers=layers)
    width = base.text_encoder.get_input_embeddings().embedding_dim
    if weights.tokens.shape[2] != width:
        raise CidmError(
            f"concept {name}: its tokens are {weights.tokens.shape[2]} wide, and the base's {width}",
            hint="learn the concept again on this base",
            code=ExitCode.INVALID,
        )
    return ConceptWeights(
        {site: up.to(base.device) for site, up in weights.up.items()},
        {site: down.to(base.device) for site, down in weights.down.items()},
        weights.tokens.to(base.device),
        {name: tensor.to(base.device) for name, tensor in weights.state.items()},
    )
