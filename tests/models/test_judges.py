"""Judges: what they make of pictures and texts, which are taken, and what is said when one is not to be had."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, ResNetModel, ViTModel

import hubs
import judging
import tiny
from cidm_cli.bases import family
from cidm_cli.bases.family import JUDGES
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge import encoders as judges
from cidm_cli.judge.encoders import Choice, Encoder, Judges, choose, open_judges
from cidm_cli.models import clip

RNG = np.random.default_rng(4)
PICTURES = [
    Image.fromarray(RNG.integers(0, 256, (judging.SIDE, judging.SIDE, 3), dtype=np.uint8)) for _ in "ab"
]
PIXELS = (
    torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) / 255 for p in PICTURES])
    - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
) / 0.5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judges")
    judging.save_clip(root / "clip")
    judging.save_vit(root / "vit")
    judging.save_resnet(root / "resnet")
    return root


def unit(rows: torch.Tensor) -> np.ndarray:
    return (rows / rows.norm(dim=1, keepdim=True)).numpy()


def refused(call: object) -> CidmError:
    with pytest.raises(CidmError) as caught:
        call()  # type: ignore[operator]
    return caught.value


# What they see


def test_clip_sees_what_transformers_own_model_sees(folders: Path) -> None:
    model = CLIPModel.from_pretrained(folders / "clip")
    with torch.no_grad():
        wanted = model.get_image_features(pixel_values=PIXELS).pooler_output
    np.testing.assert_allclose(clip.Judge(folders / "clip").embed(PICTURES), unit(wanted), atol=1e-5)


def test_clip_reads_texts_with_the_tokenizer_it_is_given(folders: Path) -> None:
    words = tiny.tokenizer()
    words.save_pretrained(folders / "words")
    judge = clip.Judge(folders / "clip", tokenizer=folders / "words")
    texts = ["a photo of a dog", "a cat on the beach " * 9]
    model = CLIPModel.from_pretrained(folders / "clip")
    for text, row in zip(texts, judge.embed_texts(texts), strict=True):
        ids = words(text, truncation=True, max_length=tiny.TOKENS, return_tensors="pt").input_ids
        with torch.no_grad():
            wanted = model.get_text_features(input_ids=ids).pooler_output
        np.testing.assert_allclose(row, unit(wanted)[0], atol=1e-5)


def test_a_vit_without_a_pooler_is_judged_by_its_cls_token(folders: Path) -> None:
    """AutoModel gives it a pooler of random weights, a different one each time."""
    model = ViTModel.from_pretrained(folders / "vit", add_pooling_layer=False)
    with torch.no_grad():
        wanted = model(pixel_values=PIXELS).last_hidden_state[:, 0]
    for _ in range(2):
        np.testing.assert_allclose(Encoder(folders / "vit").embed(PICTURES), unit(wanted), atol=1e-5)


def test_a_resnet_is_judged_by_its_pooled_features(folders: Path) -> None:
    model = ResNetModel.from_pretrained(folders / "resnet").eval()
    with torch.no_grad():
        wanted = model(pixel_values=PIXELS).pooler_output.flatten(1)
    np.testing.assert_allclose(Encoder(folders / "resnet").embed(PICTURES), unit(wanted), atol=1e-5)


def test_pictures_of_any_shape_and_mode_are_taken(folders: Path) -> None:
    odd = [Image.new("RGBA", (80, 30), "red"), Image.new("L", (20, 90), 7)]
    for judge in (clip.Judge(folders / "clip"), Encoder(folders / "resnet")):
        rows = judge.embed(odd)
        assert rows.shape[0] == 2
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


# Looking once


def test_a_picture_is_looked_at_once_however_often_it_is_asked_for(folders: Path) -> None:
    both = open_judges(Choice(str(folders / "clip"), str(folders / "resnet"), None))
    loaded: list[str] = []

    def picture(key: str) -> Image.Image:
        loaded.append(key)
        return PICTURES[int(key)]

    seen: list[int] = []
    both.look(["0"], picture, seen.append)
    both.look(["1", "0", "1"], picture, seen.append)
    assert loaded == ["0", "1"]
    assert seen[-1] == 3
    np.testing.assert_allclose(both.pictures("clip", ["1", "0"]), both.clip.embed(PICTURES[::-1]), atol=1e-5)
    assert both.dino
    np.testing.assert_allclose(both.pictures("dino", ["0"]), both.dino.embed(PICTURES[:1]), atol=1e-5)


def test_more_pictures_than_fit_in_one_pass_keep_their_order(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "AT_ONCE", 2)
    only = Judges(clip.Judge(folders / "clip"), None)
    assert only.names == ("clip",)
    pictures = [Image.new("RGB", (32, 32), (k * 40, 0, 255 - k * 40)) for k in range(5)]
    keys = [str(k) for k in range(5)]
    only.look(keys, lambda key: pictures[int(key)], lambda seen: None)
    np.testing.assert_allclose(only.pictures("clip", keys), only.clip.embed(pictures), atol=1e-5)


# Which are taken


def test_what_is_said_goes_before_what_the_base_brings_before_the_papers_judges(
    folders: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    assert choose(base, None, None, JUDGES) == Choice(JUDGES["clip"], JUDGES["dino"], None, base)
    judging.save_clip(base / "clip")
    judging.save_resnet(base / "dino")
    mine = Choice(str(base / "clip"), str(base / "dino"), base / "tokenizer", base)
    assert choose(base, None, None, JUDGES) == mine == choose(base, None, None, family("mini").judges)
    assert choose(base, "some/clip", str(folders / "vit"), family("mini").judges) == Choice(
        "some/clip", str(folders / "vit"), None, base
    )
    assert choose(base, None, "none", JUDGES).dino is None
    assert choose(base, None, "None", JUDGES).dino is None


def test_a_judge_of_the_base_is_told_as_its_own_and_another_by_name(folders: Path) -> None:
    own = open_judges(Choice(str(folders / "clip"), str(folders / "resnet"), None, folders))
    assert own.sources == {"clip": "the base's own", "dino": "the base's own"}
    other = open_judges(Choice(str(folders / "clip"), None, None, folders / "base"))
    assert other.sources == {"clip": "clip"}, "no path of the machine"


def test_a_base_of_its_own_kind_of_pictures_has_no_second_judge_from_elsewhere(tmp_path: Path) -> None:
    assert choose(tmp_path, None, None, family("mini").judges).dino is None


def test_a_clip_folder_with_a_tokenizer_needs_no_other(tmp_path: Path) -> None:
    judging.save_clip(tmp_path / "whole", with_tokenizer=True)
    assert choose(tmp_path, str(tmp_path / "whole"), "none", JUDGES).tokenizer is None


# From the hub


@pytest.mark.parametrize("said", ["somebody/judge", f"somebody/judge@{hubs.COMMIT}"])
def test_judges_are_fetched_from_the_hub_once_and_pickles_never(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real clients, from a hub on this machine."""
    remote = judging.save_clip(tmp_path / "remote", with_tokenizer=True)
    (remote / "pytorch_model.bin").write_bytes(b"pickled")
    wanted = clip.Judge(remote)
    with hubs.serving(remote, "somebody/judge", tmp_path / "cache", monkeypatch) as fetched:
        both = open_judges(Choice(said, None, None))
        assert np.array_equal(both.clip.embed(PICTURES), wanted.embed(PICTURES))
        assert np.array_equal(both.clip.embed_texts(["a dog"]), wanted.embed_texts(["a dog"]))
        assert fetched.count("model.safetensors") == 1
        assert "pytorch_model.bin" not in fetched
        before = list(fetched)
        again = clip.Judge(said)
        assert np.array_equal(again.embed_texts(["a dog"]), wanted.embed_texts(["a dog"]))
        assert fetched == before
    assert np.array_equal(clip.Judge(said).embed(PICTURES), wanted.embed(PICTURES)), "with the hub gone"


def test_a_second_judge_of_which_the_hub_has_only_pickles_is_refused(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = shutil.copytree(folders / "vit", tmp_path / "remote")
    (remote / "model.safetensors").rename(remote / "pytorch_model.bin")
    with hubs.serving(remote, "somebody/judge", tmp_path / "cache", monkeypatch) as fetched:
        error = refused(lambda: open_judges(Choice(str(folders / "clip"), "somebody/judge", None)))
    assert error.code == ExitCode.NOT_FOUND
    assert "--dino somebody/judge" in error.message
    assert "pytorch_model.bin" not in fetched


# What is said when one is not to be had


def test_a_hub_name_without_a_network_is_refused_with_every_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refused(lambda: Encoder(JUDGES["dino"]))
    assert error.code == ExitCode.NOT_FOUND
    assert JUDGES["dino"] in error.message
    for way in ("HF_HUB_OFFLINE", "--dino none", "save_pretrained"):
        assert way in str(error.hint)
    error = refused(lambda: clip.Judge(JUDGES["clip"]))
    assert JUDGES["clip"] in error.message
    assert "none" not in str(error.hint), "a CLIP is needed"


def test_a_folder_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    error = refused(lambda: Encoder(tmp_path))
    assert error.code == ExitCode.INVALID
    assert str(tmp_path) in error.message
    assert "\n" not in error.message


def test_weights_that_are_a_pipe_are_not_waited_for(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "vit", tmp_path / "vit")
    (tmp_path / "vit" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "vit" / "model.safetensors")
    assert "not a regular file" in refused(lambda: Encoder(tmp_path / "vit")).message


def test_a_clip_without_a_vocabulary_judges_no_texts(folders: Path) -> None:
    judge = clip.Judge(folders / "clip")
    error = refused(lambda: judge.embed_texts(["a dog"]))
    assert error.code == ExitCode.INVALID
    assert "vocabulary" in error.message


def test_a_model_of_another_kind_is_refused_and_not_filled_up_with_random_weights(folders: Path) -> None:
    error = refused(lambda: clip.Judge(folders / "resnet"))
    assert error.code == ExitCode.INVALID
    assert "weights" in error.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba"}, "a mamba is not known to look at images"),
        ({"model_type": "timm_wrapper", "architecture": "hf-hub:evil/model"}, "timm_wrapper"),
        ({"_attn_implementation": "kernels-community/flash-attn2"}, "_attn_implementation"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers"),
    ],
)
def test_settings_that_would_fetch_code_or_have_no_end_are_refused_by_name(
    folders: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    shutil.copytree(folders / "vit", tmp_path / "evil")
    config = json.loads((tmp_path / "evil" / "config.json").read_text())
    (tmp_path / "evil" / "config.json").write_text(json.dumps({**config, **change}))
    error = refused(lambda: Encoder(tmp_path / "evil"))
    assert error.code == ExitCode.INVALID
    assert said in error.message


def test_a_models_own_code_is_neither_run_nor_asked_about(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folders / "vit", tmp_path / "evil")
    config = json.loads((tmp_path / "evil" / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoModel": "mod.Evil", "AutoConfig": "mod.Evil"}}
    (tmp_path / "evil" / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil" / "mod.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")

    def asked(*_: object) -> str:
        (tmp_path / "asked").touch()
        return "y"

    monkeypatch.setattr("builtins.input", asked)
    try:
        Encoder(tmp_path / "evil")
    except CidmError as error:
        assert error.code == ExitCode.INVALID
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "asked").exists()
