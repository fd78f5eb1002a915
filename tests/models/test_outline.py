"""A base without its weights: shapes, settings and tokenizers as they are with them, at full size, too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import original
import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn.step import token_copies
from cidm_cli.models import sd_parts, text
from cidm_cli.models.attention import layer_groups, lora_sites
from cidm_cli.models.base import Base, load, outline
from cidm_cli.options.learn import resolve_learn

FAMILIES = ("sd15", "sdxl")


@pytest.mark.parametrize("single", [False, True], ids=["folder", "single file"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_outline_is_the_base_but_for_its_weights(
    base: Base, sdxl: Base, tiny_base: Path, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    family: str, single: bool,
) -> None:  # fmt: skip
    folders = {"sd15": tiny_base, "sdxl": tiny_sdxl}
    whole, place = {"sd15": base, "sdxl": sdxl}[family], folders[family]
    if single:
        monkeypatch.setattr(sd_parts, "settings_folder", folders.__getitem__)
        monkeypatch.setattr(sd_parts, "clip_tokenizer", tiny.tokenizer)
        place = tmp_path / "model.safetensors"
        save_file(original.checkpoint(whole.denoiser, whole.vae, *whole.encoders), place)
    else:
        place = shutil.copytree(place, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    found = outline(place)
    for ours, theirs in zip(
        (found.denoiser, found.vae, *found.encoders),
        (whole.denoiser, whole.vae, *whole.encoders),
        strict=True,
    ):
        assert {n: p.shape for n, p in ours.named_parameters()} == {
            n: p.shape for n, p in theirs.named_parameters()
        }
        assert all(p.is_meta for p in ours.parameters())
    assert found.shapes == whole.shapes
    assert found.convolutions == whole.convolutions
    for told in ("family", "pixels", "factor", "multiple", "prediction", "scheduler_config", "zero_empty"):
        assert getattr(found, told) == getattr(whole, told), told
    assert text.token_width(found) == text.token_width(whole)
    assert found.architecture.pieces(found, "duck toy") == whole.architecture.pieces(whole, "duck toy")


def test_an_outline_with_another_vae_has_its_settings(tiny_base: Path, tmp_path: Path) -> None:
    vae = shutil.copytree(tiny_base / "vae", tmp_path / "vae")
    settings = (vae / "config.json").read_text()
    (vae / "config.json").write_text(settings.replace('"scaling_factor": 0.18215', '"scaling_factor": 0.5'))
    assert outline(tiny_base, vae=vae).vae.config.scaling_factor == 0.5


def with_weights(folder: Path) -> Base:
    return load(folder, device=torch.device("cpu"), compute=torch.float32)


@pytest.mark.parametrize("reading", [outline, with_weights])
@pytest.mark.parametrize("absent", ["text_encoder/config.json", "unet/config.json", "tokenizer"])
def test_settings_that_are_not_there_are_told_in_one_line(
    tiny_base: Path, tmp_path: Path, absent: str, reading: Callable[[Path], Base]
) -> None:
    """transformers takes its own defaults for them."""
    bare = shutil.copytree(tiny_base, tmp_path / "bare")
    shutil.rmtree(bare / absent) if (bare / absent).is_dir() else (bare / absent).unlink()
    with pytest.raises(CidmError) as caught:
        reading(bare)
    assert caught.value.code == ExitCode.INVALID
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("family", "layers", "copies", "sites", "width", "pixels"),
    [("sd15", 16, 16, 64, 768, 512), ("sdxl", 70, 11, 280, 2048, 1024)],
)
def test_the_published_bases_have_the_papers_layers_and_tokens(
    family: str, layers: int, copies: int, sites: int, width: int, pixels: int, tmp_path: Path
) -> None:
    folder = shutil.copytree(sd_parts.settings_folder(family), tmp_path / family)
    for part, pad in {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}.items():
        sd_parts.clip_tokenizer(pad).save_pretrained(folder / part)
    found = outline(folder)
    assert len(found.layers) == layers
    assert len(lora_sites(found.denoiser)) == len(set(lora_sites(found.denoiser))) == sites
    assert len(set(layer_groups(found.denoiser))) == copies
    assert (text.token_width(found), found.pixels, found.family.name) == (width, pixels, family)
    assert token_copies(found, resolve_learn({}, "mini")) == copies
    assert token_copies(found, resolve_learn(dict(token_groups="layer"), "mini")) == layers
    assert token_copies(found, resolve_learn(dict(portable=True), "mini")) == 1
