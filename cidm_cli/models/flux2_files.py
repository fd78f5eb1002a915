"""What LoRA files call the layers of FLUX.2: diffusers as they are here, the original code otherwise."""

from __future__ import annotations

from collections.abc import Iterable

from ..formats.diffusers_lora import COMFYUI
from ..formats.kohya import PREFIX
from ..formats.lora import Names

_DOUBLE = {
    "attn.to_q": "img_attn.qkv", "attn.to_k": "img_attn.qkv", "attn.to_v": "img_attn.qkv",
    "attn.to_out.0": "img_attn.proj", "attn.add_q_proj": "txt_attn.qkv", "attn.add_k_proj": "txt_attn.qkv",
    "attn.add_v_proj": "txt_attn.qkv", "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0", "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0", "ff_context.linear_out": "txt_mlp.2",
}  # fmt: skip
_SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}


def named(sites: Iterable[str]) -> Names:
    """The names of layers; three of the original code's are three each: queries, keys and values."""
    native = {site: native_name(site) for site in sites}
    held: dict[str, list[str]] = {}
    for site, name in native.items():
        held.setdefault(name, []).append(site)
    single = {name: some[0] for name, some in held.items() if len(some) == 1}
    fused = {name: tuple(some) for name, some in held.items() if len(some) > 1}
    either = {**{site: site for site in native}, **single}
    return Names(
        kohya={site: _module(name) for site, name in native.items()},
        kohya_sites={_module(name): site for name, site in either.items()},
        dotted=either,
        native=native,
        fused={_module(name): tuple(map(_module, some)) for name, some in fused.items()}
        | {COMFYUI + name: tuple(COMFYUI + site for site in some) for name, some in fused.items()},
    )


def native_name(site: str) -> str:
    """A layer's name in the original code, from its name in diffusers'."""
    kind, number, leaf = site.split(".", 2)
    double = kind == "transformer_blocks"
    return f"{'double' if double else 'single'}_blocks.{number}.{(_DOUBLE if double else _SINGLE)[leaf]}"


def _module(name: str) -> str:
    return PREFIX + name.replace(".", "_")
