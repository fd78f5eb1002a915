"""FLUX.2 klein and Z-Image: their concepts are judged as others are."""

from __future__ import annotations

import shutil
from pathlib import Path

import judging
from cidm_registry import Registry
from command import Cidm


def test_concepts_are_judged(cidm: Cidm, joint_registry: Registry, tmp_path: Path) -> None:
    data = judging.save_data(tmp_path / "data", dog="dog", cat="cat")
    clip = judging.save_clip(tmp_path / "clip", with_tokenizer=True)
    judges = ("--clip", clip, "--dino", judging.save_resnet(tmp_path / "dino"))
    registry = shutil.copytree(joint_registry.root, tmp_path / "registry")
    done = cidm("eval", "--registry", registry, "--data", data, *judges, "--steps", 1, "-n", 1, "--json")
    assert done.code == 0, done.err
    told = done.answer["evaluation"]
    assert [concept["name"] for concept in told["concepts"]] == ["dog", "cat"]
    assert set(told["means"]["ia"]) == {"clip", "dino"}
