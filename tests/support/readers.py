"""The names of LoRA modules that other programs know, written down from their public key maps. No code of theirs.

Each program takes the file's names and looks them up: what it does not know it leaves out, with a warning or without.

| program | where its map is | Stable Diffusion 1.5 | SDXL |
|---|---|---|---|
| kohya | ``networks/lora.py``, ``library/sdxl_original_unet.py`` | diffusers' names | the original code's |
| ComfyUI | ``comfy/lora.py``, ``model_lora_keys_unet`` | both | both |
| AUTOMATIC1111, Forge | ``extensions-builtin/Lora/networks.py`` | both | the original code's |
| InvokeAI | ``sd_lora_conversion_utils``, ``sdxl_lora_conversion_utils`` | diffusers' names | both |
"""

from __future__ import annotations

PREFIX = "lora_unet_"
PARTS = {"lora_down.weight", "lora_up.weight", "alpha"}
"""What each module has."""
_LEAVES = (
    *(f"attn{n}_to_{letter}" for n in (1, 2) for letter in ("q", "k", "v", "out_0")), "ff_net_0_proj", "ff_net_2",
)  # fmt: skip

_SD15 = {
    "down_blocks_0_attentions_0": "input_blocks_1_1", "down_blocks_0_attentions_1": "input_blocks_2_1",
    "down_blocks_1_attentions_0": "input_blocks_4_1", "down_blocks_1_attentions_1": "input_blocks_5_1",
    "down_blocks_2_attentions_0": "input_blocks_7_1", "down_blocks_2_attentions_1": "input_blocks_8_1",
    "mid_block_attentions_0": "middle_block_1",
    "up_blocks_1_attentions_0": "output_blocks_3_1", "up_blocks_1_attentions_1": "output_blocks_4_1",
    "up_blocks_1_attentions_2": "output_blocks_5_1", "up_blocks_2_attentions_0": "output_blocks_6_1",
    "up_blocks_2_attentions_1": "output_blocks_7_1", "up_blocks_2_attentions_2": "output_blocks_8_1",
    "up_blocks_3_attentions_0": "output_blocks_9_1", "up_blocks_3_attentions_1": "output_blocks_10_1",
    "up_blocks_3_attentions_2": "output_blocks_11_1",
}  # fmt: skip
_SDXL = {
    "down_blocks_1_attentions_0": "input_blocks_4_1", "down_blocks_1_attentions_1": "input_blocks_5_1",
    "down_blocks_2_attentions_0": "input_blocks_7_1", "down_blocks_2_attentions_1": "input_blocks_8_1",
    "mid_block_attentions_0": "middle_block_1",
    "up_blocks_0_attentions_0": "output_blocks_0_1", "up_blocks_0_attentions_1": "output_blocks_1_1",
    "up_blocks_0_attentions_2": "output_blocks_2_1", "up_blocks_1_attentions_0": "output_blocks_3_1",
    "up_blocks_1_attentions_1": "output_blocks_4_1", "up_blocks_1_attentions_2": "output_blocks_5_1",
}  # fmt: skip
_DEPTHS = {"down_blocks_1": 2, "down_blocks_2": 10, "mid_block": 10, "up_blocks_0": 10, "up_blocks_1": 2}
"""Transformer blocks of each of SDXL's attentions; those of Stable Diffusion 1.5 have one."""


def _names(family: str, original: bool) -> set[str]:
    out = set()
    for place, theirs in (_SDXL if family == "sdxl" else _SD15).items():
        depth = _DEPTHS[place.split("_attentions")[0]] if family == "sdxl" else 1
        start = PREFIX + (theirs if original else place)
        out |= {f"{start}_proj_in", f"{start}_proj_out"}
        out |= {f"{start}_transformer_blocks_{n}_{leaf}" for n in range(depth) for leaf in _LEAVES}
    return out


def known(program: str, family: str) -> set[str]:
    """The modules of the UNet's transformers that a program knows on a family."""
    diffusers, original = _names(family, original=False), _names(family, original=True)
    if program == "ComfyUI":
        return diffusers | original
    if program == "AUTOMATIC1111":
        return original if family == "sdxl" else diffusers | original
    if program == "kohya":
        return original if family == "sdxl" else diffusers
    assert program == "InvokeAI"
    return diffusers | original if family == "sdxl" else diffusers


PROGRAMS = ("ComfyUI", "AUTOMATIC1111", "kohya", "InvokeAI")


def strangers(program: str, family: str, keys: set[str]) -> set[str]:
    """The keys of a file that a program would leave out."""
    there = known(program, family)
    return {key for key in keys if key.partition(".")[0] not in there or key.partition(".")[2] not in PARTS}
