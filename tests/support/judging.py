"""Judges made very small, with random weights, and data to judge by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)
from transformers.utils import logging

import tiny

SIDE = 32
"""Pixels the judges look at."""
PROMPTS = ("a photo of a {}", "a red {} on the beach")


def save_clip(folder: Path, *, with_tokenizer: bool = False) -> Path:
    """A CLIP for the tiny base's tokenizer."""
    words = tiny.tokenizer()
    text = dict(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=tiny.TOKENS, projection_dim=8, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    vision = dict(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=8, projection_dim=8,
    )  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    if with_tokenizer:
        words.save_pretrained(folder)
    return _save(folder, lambda: CLIPModel(config), "CLIPImageProcessor")


def save_vit(folder: Path) -> Path:
    """A ViT without a pooler, as DINO's are."""
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=SIDE, patch_size=8
    )  # fmt: skip
    return _save(folder, lambda: ViTModel(config, add_pooling_layer=False), "ViTImageProcessor")


def save_resnet(folder: Path) -> Path:
    """A ResNet, whose pooled features are maps of one pixel."""
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return _save(folder, lambda: ResNetModel(config), "ViTImageProcessor")


def save_data(folder: Path, **nouns: str) -> Path:
    """A dataset.json of concepts by name, with their class nouns; different pictures for each, two prompts."""
    entries = []
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "all.txt").write_text("\n".join(PROMPTS) + "\n")
    for number, (name, noun) in enumerate(nouns.items(), 1):
        tiny.save_pictures(folder / "pictures" / name, (f"a photo of a {noun}",) * 3, seed=number)
        entries.append(
            {
                "instance_prompt": f"photo of a <new1> {noun}",
                "class_prompt": noun,
                "instance_data_dir": f"./pictures/{name}",
                "class_data_dir": f"./regularization/{name}",
                "prompt_filename": "prompts/all.txt",
            }
        )
    (folder / "dataset.json").write_text(json.dumps(entries))
    return folder


def _save(folder: Path, build: Callable[[], PreTrainedModel], processor: str) -> Path:
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = build()
    model.eval().save_pretrained(folder)
    settings = {
        "image_processor_type": processor, "do_resize": True, "do_rescale": True, "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.5], "resample": 3,
        "size": {"height": SIDE, "width": SIDE}, "do_center_crop": False,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def cifc(folder: Path) -> Path:
    """Two tasks in the paper's form: an object and a style, two prompts each."""
    sets = {"pet": "a <TOK> on the beach\nA red <TOK>\n", "style": "a <TOK> of a dog\na <TOK> of a cat\n"}
    entries = []
    for number, (name, noun, prompts) in enumerate((("rex", "dog", "pet"), ("ink", "photo", "style")), 1):
        tiny.save_pictures(folder / "concepts" / name, (f"a {noun} in the snow",) * 3, seed=number)
        entries.append(
            f'[[task]]\nid = "V{number}"\nname = "{name}"\nclass_noun = "{noun}"\nprompts = "{prompts}"\n'
        )
    (folder / "prompts").mkdir()
    for name, text in sets.items():
        (folder / "prompts" / f"{name}.txt").write_text(text)
    (folder / "tasks.toml").write_text("".join(entries))
    return folder
