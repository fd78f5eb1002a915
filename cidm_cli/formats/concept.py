"""A concept's weights as the registry stores them: one safetensors blob.

``unet.<site>.lora_A.weight`` [r, in] and ``.lora_B.weight`` [out, r] for each LoRA site, and
``tokens.text_encoder`` [L, n_tokens, width], or [1, n_tokens, width] where the layers share them; a concept that came
from a LoRA file of another program has none. ``state.<name>`` is what a method of learning left for the concepts that
come after (EWC's Fisher information): nothing is drawn with it. Everything else about the concept is in its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..errors import CidmError, ExitCode

_TOKENS = "tokens.text_encoder"
_STATE = "state."
_KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class ConceptWeights:
    """What training a concept yields."""

    up: Mapping[str, torch.Tensor]
    """[out, r] for each site"""
    down: Mapping[str, torch.Tensor]
    """[r, in] for each site"""
    tokens: torch.Tensor
    """[layers, n_tokens, width], or [1, n_tokens, width] shared by the layers; n_tokens is 0 where it has none"""
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """what the method of learning keeps for later concepts, by its own names"""

    @property
    def factors(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """(up, down) of each site."""
        return {site: (up, self.down[site]) for site, up in self.up.items()}


def pack(weights: ConceptWeights) -> bytes:
    """The blob; equal weights give equal bytes."""
    tensors = {_STATE + name: t for name, t in weights.state.items()}
    if weights.tokens.shape[1]:
        tensors[_TOKENS] = weights.tokens
    for site in weights.up:
        tensors[f"unet.{site}.lora_A.weight"] = weights.down[site]
        tensors[f"unet.{site}.lora_B.weight"] = weights.up[site]
    return save({name: tensors[name].detach().cpu().float().contiguous() for name in sorted(tensors)})


def unpack(
    blob: bytes, source: str, *, shapes: Mapping[str, tuple[int, int]], layers: int, groups: int | None = None
) -> ConceptWeights:
    """The weights of a blob, checked against the base they are to be used on.

    Args:
        source: the concept's name, for errors.
        shapes: (out, in) of every layer of the base that a LoRA may sit on.
        layers: the base's number of cross-attention layers.
        groups: into how many groups they fall that may share a copy of the tokens.

    Raises:
        CidmError: INVALID, naming the layer, for tensors that are missing, not finite, or of the wrong kind or shape.
    """
    try:
        tensors = load(blob)
    except SafetensorError as error:
        raise _invalid(source, f"is not a safetensors file ({error})") from error
    tokens = tensors.pop(_TOKENS, torch.zeros(1, 0, 0))
    if tokens.ndim != 3 or tokens.shape[0] not in (1, groups, layers):
        found = f"tokens of shape {tuple(tokens.shape)}"
        raise _invalid(source, f"has {found}, and the base has {layers} cross-attention layers")
    up: dict[str, torch.Tensor] = {}
    down: dict[str, torch.Tensor] = {}
    for name, tensor in {_TOKENS: tokens, **tensors}.items():
        if tensor.dtype not in _KINDS:
            raise _invalid(
                source, f"{name} holds {str(tensor.dtype).removeprefix('torch.')} values, not weights"
            )
        if not torch.isfinite(tensor).all():
            raise _invalid(source, f"{name} holds NaN or infinite values")
    state = {name: tensors.pop(name) for name in sorted(tensors) if name.startswith(_STATE)}
    for name, tensor in tensors.items():
        site, _, factor = name.removeprefix("unet.").removesuffix(".weight").rpartition(".")
        if site not in shapes or name not in (f"unet.{site}.lora_A.weight", f"unet.{site}.lora_B.weight"):
            raise _invalid(source, f"{name} is not a layer of this base")
        (down if factor == "lora_A" else up)[site] = tensor
    for site in sorted({*up, *down}):
        a, b, (out, width) = up.get(site), down.get(site), shapes[site]
        if a is None or b is None or a.shape != (out, *b.shape[:1]) or b.shape != (*a.shape[1:], width):
            raise _invalid(source, f"unet.{site} does not fit the base's {out}x{width} layer")
    if not up and not tokens.shape[1]:
        raise _invalid(source, "holds neither low-rank weights nor tokens")
    return ConceptWeights(up, down, tokens, {name.removeprefix(_STATE): t for name, t in state.items()})


def _invalid(source: str, what: str) -> CidmError:
    return CidmError(
        f"concept {source}: {what}",
        hint="`cidm verify` checks the registry; learn the concept again if its file is damaged",
        code=ExitCode.INVALID,
    )
