"""Low-rank weights as LoRA files hold them, whatever the file's naming: taken apart and put together.

| here | shape | kohya | diffusers, PEFT |
|---|---|---|---|
| ``up`` | [out, r] | ``lora_up.weight`` | ``lora_B.weight`` |
| ``down`` | [r, in] | ``lora_down.weight`` | ``lora_A.weight`` |
| ``alpha`` | | ``alpha`` | in the configuration |

ΔW = alpha / r · up down. A 1x1 convolution's factors have two more dimensions of size 1 in files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from ..errors import CidmError, ExitCode
from .tensors import LARGEST_VALUE, check_weights

Factors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""(up [out, r], down [r, in]) by site."""
LARGEST_RANK = 4096
_NETWORKS = {
    r"\.hada_": "LoHa", r"\.lokr_": "LoKr", r"\.lora_mid\.": "LoCon with a Tucker core",
    r"\.dora_scale$|\.lora_magnitude": "DoRA", r"\.b?oft_|^oft_": "OFT", r"\.diff(_b)?$": "full differences",
    r"\.[wb]_norm$": "norm weights", r"\.[ab][12]\.weight$": "GLoRA", r"\.on_input$|\.ia3_": "IA3",
    r"\.vera_lambda": "VeRA",
}  # fmt: skip
"""Other networks than LoRA, by the names of their tensors."""
_FACTOR = re.compile(r"\.(lora[._].+|alpha)$")
_UP = re.compile(r"\.lora([._]up|_B)\.weight$")
_ELSEWHERE = re.compile(
    r"(^|[._])(time_embed|time_embedding|label_emb|add_embedding|time_emb_proj|emb_layers)[._]"
)
"""Linear layers of a UNet outside its transformers, in the names of diffusers and of the original code."""


@dataclass(frozen=True)
class Module:
    """The low-rank weights of one layer."""

    up: torch.Tensor
    """[out, r], float32"""
    down: torch.Tensor
    """[r, in], float32"""
    alpha: float
    """ΔW = alpha / r · up down"""

    @property
    def scale(self) -> float:
        """Factor on the product."""
        return self.alpha / self.down.shape[0]


@dataclass(frozen=True)
class Names:
    """What other programs call the layers of a base."""

    kohya: Mapping[str, str]
    """The module that kohya's trainer would write, by site."""
    kohya_sites: Mapping[str, str]
    """The site, by every module's name that such files are known to have."""
    dotted: Mapping[str, str]
    """The site, by every name that ComfyUI's files have after "diffusion_model."."""
    native: Mapping[str, str]
    """What the original code calls a layer, by site; one that it has for several sites is there for each of them."""
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The layers in a file that are several sites, rows below one another, each with names that these have in one."""
    unfit: Callable[[Mapping[str, torch.Tensor]], str] = lambda tensors: ""
    """Given a file's tensors, why it is plainly one of another model; or empty."""


@dataclass(frozen=True)
class Fit:
    """What a LoRA file has to fit: a base."""

    shapes: Mapping[str, tuple[int, int]]
    """(out, in) of every layer that a LoRA may sit on, by site."""
    names: Names
    prefix: str = "unet."
    """What diffusers puts before the names of the layers."""
    accepted: tuple[str, ...] = ()
    """What kohya's ss_base_model_version may begin with, where it is one that is known."""


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file of another program holds."""

    kind: str
    """"kohya", "diffusers", "comfyui" or "peft"."""
    modules: Mapping[str, Module]
    """By site of the base's denoiser."""
    left_out: tuple[str, ...]
    """Layers in the file that a concept has no place for: of text encoders, embeddings, layers outside transformers."""
    metadata: Mapping[str, str]

    @property
    def idle(self) -> list[str]:
        """The sites at which the file changes nothing: alpha is 0, or a factor is all zeros."""
        return [site for site, m in self.modules.items() if not (m.alpha and m.up.any() and m.down.any())]


def one_rank(factors: Factors) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], int]:
    """The factors with as many columns and rows of zeros as make all ranks the largest, and that rank.

    Several readers take one rank, or one alpha, for the whole file.
    """
    rank = max(down.shape[0] for _, down in factors.values())
    pad = torch.nn.functional.pad
    out = {
        site: (pad(up, (0, rank - up.shape[1])), pad(down, (0, 0, 0, rank - down.shape[0])))
        for site, (up, down) in sorted(factors.items())
    }
    return out, rank


def joined(
    factors: Factors, names: Mapping[str, str], shapes: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The factors by names of a file's layers; those of sites that one layer holds are one, below one another.

    Args:
        names: by site; those of one layer in the order of its rows.
        shapes: (out, in) by site.
    """
    held: dict[str, list[str]] = {}
    for site, name in names.items():
        held.setdefault(name, []).append(site)
    out: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, sites in held.items():
        there = [factors[site] for site in sites if site in factors]
        if len(sites) > 1 and there:
            ups = [factors[site][0] if site in factors else torch.zeros(shapes[site][0], 0) for site in sites]
            out[name] = torch.block_diag(*ups), torch.cat([down for _, down in there])
        elif there:
            out[name] = there[0]
    return out


def parted(
    tensors: Mapping[str, torch.Tensor], fused: Mapping[str, tuple[str, ...]], source: str
) -> dict[str, torch.Tensor]:
    """A file's tensors with each layer that is several in several, as ``Names.fused`` has them.

    Raises:
        CidmError: INVALID for one that is there both ways.
    """
    out: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        layer = _FACTOR.sub("", key)
        parts = fused.get(layer, (layer,))
        if len(parts) > 1:
            # Each by itself in memory, as files of ours want them.
            rows = _UP.search(key) and tensor.ndim
            pieces = [each.clone() for each in (tensor.chunk(len(parts)) if rows else (tensor,) * len(parts))]
        else:
            pieces = [tensor]
        # Fewer rows than there are parts make fewer pieces: what is left over has half of its pair.
        found = {part + key[len(layer) :]: piece for part, piece in zip(parts, pieces, strict=False)}
        if twice := found.keys() & out.keys():
            raise refusal(source, f"{listed(twice)} is there twice, in two namings")
        out |= found
    return out


def as_stored(matrix: torch.Tensor, site: str, convolutions: Collection[str]) -> torch.Tensor:
    """A factor as files hold it: float32, [.., .., 1, 1] where the layer is a 1x1 convolution."""
    return matrix.float()[:, :, None, None] if site in convolutions else matrix.float()


def one_number(alpha: torch.Tensor, site: str, source: str) -> float:
    """A module's alpha; programs differ in whether they write a whole number as one.

    Raises:
        CidmError: INVALID.
    """
    if alpha.numel() != 1 or not torch.isfinite(alpha).all() or abs(float(alpha)) > LARGEST_VALUE:
        raise refusal(source, f"the alpha of {site} is not one finite number")
    return float(alpha)


def modules(
    ups: Mapping[str, torch.Tensor],
    downs: Mapping[str, torch.Tensor],
    alphas: Mapping[str, float],
    *,
    shapes: Mapping[str, tuple[int, int]],
    source: str,
) -> dict[str, Module]:
    """Modules by site, checked against the base; a site without an alpha has its rank for one.

    Args:
        shapes: (out, in) of every layer of the base that a LoRA may sit on.

    Raises:
        CidmError: INVALID, naming the layer, for half a pair, an alpha by itself, what does not fit, and what no
            training leaves.
    """
    out = {}
    for site in sorted({*ups, *downs}):
        pair = {name: _flat(side[site]) for name, side in (("up", ups), ("down", downs)) if site in side}
        check_weights({f"{site} ({name})": tensor for name, tensor in pair.items()}, source)
        up, down, (height, width) = pair.get("up"), pair.get("down"), shapes[site]
        if up is None or down is None:
            raise refusal(source, f"{site} has only one of its two factors")
        rank = down.shape[0] if down.ndim == 2 else 0
        if up.shape != (height, rank) or down.shape != (rank, width) or not 0 < rank <= LARGEST_RANK:
            raise refusal(
                source,
                f"{site} has factors {list(up.shape)} and {list(down.shape)}, and the base's layer is "
                f"{height}x{width}",
                hint="a LoRA fits bases of the family it was trained on only",
            )
        out[site] = Module(up.float(), down.float(), alphas.get(site, float(rank)))
    if not out:
        raise refusal(source, "holds no low-rank weights of the UNet")
    if lonely := alphas.keys() - out.keys():
        raise refusal(source, f"{listed(lonely)} has an alpha and no weights")
    return out


def is_elsewhere(name: str) -> bool:
    """Whether a layer of the UNet is linear and in none of its transformers, where a concept has no place for it."""
    return _ELSEWHERE.search(f"{name}.") is not None


def network_of(name: str) -> str | None:
    """What network a tensor's name belongs to, where that is not LoRA."""
    return next((network for pattern, network in _NETWORKS.items() if re.search(pattern, name)), None)


def check_plain(name: str, tensor: torch.Tensor, source: str) -> None:
    """Refuses a tensor that is no part of a LoRA of a linear layer.

    Raises:
        CidmError: INVALID, naming what it is.
    """
    if network := network_of(name):
        raise refusal(source, f"{name[:120]} belongs to a {network} network, and only LoRA is read")
    if tensor.ndim == 4 and max(tensor.shape[2:]) > 1:
        raise refusal(source, f"{name[:120]} belongs to a convolution (LoCon), and only LoRA is read")


def common_scale(modules: Iterable[Module]) -> float | None:
    """The factor that all modules' products have, or None where they differ."""
    scales = {module.scale for module in modules}
    return scales.pop() if len(scales) == 1 else None


def refusal(source: str, what: str, hint: str | None = None) -> CidmError:
    """The error for a LoRA file that cannot be taken."""
    usual = "LoRA files of kohya, diffusers and PEFT are read, on the UNet's attention and transformer layers"
    return CidmError(f"{source}: {what}", hint or usual, ExitCode.INVALID)


def listed(names: Collection[str]) -> str:
    """The first of some names and how many more there are, for errors."""
    first, *rest = sorted(names)
    return f"{first[:120]!r}" + (f" and {len(rest)} more" if rest else "")


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Without the two last dimensions of a 1x1 convolution."""
    return tensor.flatten(1) if tensor.shape[2:] == (1, 1) else tensor
