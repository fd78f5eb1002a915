"""Checkpoints in the layouts that people share, `ldm` for Stable Diffusion 1.x and `sgm` for SDXL: diffusers'
conversion turned round, written here from the two programs' module names and not from diffusers' tables."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]

_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def checkpoint(
    unet: nn.Module, vae: nn.Module, encoder: nn.Module, second: nn.Module | None = None
) -> Tensors:
    """The whole model as one set of tensors."""
    clip = "cond_stage_model.transformer." if second is None else "conditioner.embedders.0.transformer."
    out = {f"model.diffusion_model.{name}": tensor for name, tensor in _unet(unet).items()}
    out |= {f"first_stage_model.{name}": tensor for name, tensor in _vae(vae).items()}
    out |= {f"{clip}text_model.{name}": tensor for name, tensor in encoder.state_dict().items()}
    # Old files hold it, new models make it themselves.
    out[f"{clip}text_model.embeddings.position_ids"] = torch.arange(3)[None]
    if second is not None:
        out |= {f"conditioner.embedders.1.model.{n}": t for n, t in _open_clip(second).items()}
    return {name: tensor.contiguous() for name, tensor in out.items()}


def _unet(unet: Any) -> Tensors:
    depth = unet.config.layers_per_block
    out = {}
    for name, tensor in unet.state_dict().items():
        module, leaf = name.rsplit(".", 1)
        found = re.fullmatch(r"(down_blocks|up_blocks)\.(\d+)\.(\w+)\.(\d+)\.(.+)", module)
        middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", module)
        if module in _UNET:
            place = _UNET[module]
        elif middle:
            kind, number, inner = middle[1], int(middle[2]), middle[3]
            place = f"middle_block.{2 * number if kind == 'resnets' else 1}.{_RESNET.get(inner, inner)}"
        else:
            assert found, name
            way, block, kind, number, inner = found[1], int(found[2]), found[3], int(found[4]), found[5]
            first = block * (depth + 1)
            if kind == "downsamplers":
                place = f"input_blocks.{first + depth + 1}.0.op"
            elif kind == "upsamplers":
                attends = hasattr(unet.up_blocks[block], "attentions")
                place = f"output_blocks.{first + depth}.{2 if attends else 1}.conv"
            else:
                index = (
                    f"input_blocks.{first + number + 1}"
                    if way == "down_blocks"
                    else f"output_blocks.{first + number}"
                )
                own = _RESNET.get(inner, inner) if kind == "resnets" else inner
                place = f"{index}.{0 if kind == 'resnets' else 1}.{own}"
        out[f"{place}.{leaf}"] = tensor
    return out


def _vae(vae: Any) -> Tensors:
    levels = len(vae.config.block_out_channels)
    out = {}
    for name, tensor in vae.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", new)
        new = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{levels - 1 - int(m[1])}.upsample.", new
        )
        new = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", new)
        if found := re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", new):
            new = f"{found[1]}.mid.attn_1.{_ATTENTION[found[2]]}.{found[3]}"
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        out[new] = tensor
    return out


def _open_clip(model: Any) -> Tensors:
    there = model.state_dict()
    out = {
        "positional_embedding": there["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": there["text_model.embeddings.token_embedding.weight"],
        "ln_final.weight": there["text_model.final_layer_norm.weight"],
        "ln_final.bias": there["text_model.final_layer_norm.bias"],
        "text_projection": there["text_projection.weight"].T,
        "logit_scale": torch.tensor(4.6),
    }
    for number in range(model.config.num_hidden_layers):
        old, new = f"text_model.encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for leaf in ("weight", "bias"):
            parts = [there[f"{old}self_attn.{letter}_proj.{leaf}"] for letter in "qkv"]
            out[f"{new}attn.in_proj_{leaf}"] = torch.cat(parts)
            for theirs, ours in _OPEN_CLIP.items():
                out[f"{new}{ours}.{leaf}"] = there[f"{old}{theirs}.{leaf}"]
    return out
