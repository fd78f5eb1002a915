"""What the original code of FLUX.2 calls its layers."""

from __future__ import annotations

_DOUBLE = {
    "attn.to_q": "img_attn.qkv", "attn.to_k": "img_attn.qkv", "attn.to_v": "img_attn.qkv",
    "attn.to_out.0": "img_attn.proj", "attn.add_q_proj": "txt_attn.qkv", "attn.add_k_proj": "txt_attn.qkv",
    "attn.add_v_proj": "txt_attn.qkv", "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0", "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0", "ff_context.linear_out": "txt_mlp.2",
}  # fmt: skip
_SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}


def native_name(site: str) -> str:
    """A layer's name in the original code, from its name in diffusers'."""
    kind, number, leaf = site.split(".", 2)
    double = kind == "transformer_blocks"
    return f"{'double' if double else 'single'}_blocks.{number}.{(_DOUBLE if double else _SINGLE)[leaf]}"
