"""Which base a name means, and the fingerprint that a registry knows its base by."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models import identity
from cidm_cli.models.identity import fingerprint, folder_of, identify
from cidm_registry import BaseRef

WEIGHTS = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)


@pytest.fixture
def copied(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base to be changed."""
    return shutil.copytree(tiny_base, tmp_path / "copied")


def refused(action: Callable[[], object], code: ExitCode) -> str:
    with pytest.raises(CidmError) as caught:
        action()
    assert caught.value.code == code
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("file", WEIGHTS)
def test_one_bit_of_one_weight_changes_the_fingerprint(copied: Path, file: str) -> None:
    before = fingerprint(copied)
    content = bytearray((copied / file).read_bytes())
    content[-1] ^= 1
    (copied / file).write_bytes(content)
    assert fingerprint(copied) != before
    content[-1] ^= 1
    (copied / file).write_bytes(content)
    assert fingerprint(copied) == before


def test_times_and_place_do_not_change_the_fingerprint(tiny_base: Path, copied: Path) -> None:
    for number, file in enumerate(sorted(copied.rglob("*"))):
        os.utime(file, (number * 1000, number * 1000))
    assert fingerprint(copied) == fingerprint(tiny_base)


def test_sampler_and_evaluation_models_do_not_change_the_fingerprint(tiny_base: Path, copied: Path) -> None:
    (copied / "scheduler" / "scheduler_config.json").write_text("{}")
    (copied / "clip").mkdir()
    (copied / "clip" / "model.safetensors").write_bytes(b"another judge")
    assert fingerprint(copied) == fingerprint(tiny_base)


def test_the_same_weights_in_another_part_are_another_base(copied: Path) -> None:
    before = fingerprint(copied)
    unet, vae = (copied / part for part in WEIGHTS[:2])
    kept = unet.read_bytes()
    unet.write_bytes(vae.read_bytes())
    vae.write_bytes(kept)
    assert fingerprint(copied) != before


def test_weights_moved_to_another_part_are_another_base(copied: Path) -> None:
    before = fingerprint(copied)
    (copied / "text_encoder").rename(copied / "text_encoder_2")
    assert fingerprint(copied) != before


def test_a_second_text_encoder_counts(copied: Path) -> None:
    before = fingerprint(copied)
    shutil.copytree(copied / "text_encoder", copied / "text_encoder_2")
    assert fingerprint(copied) != before


def test_pickled_weights_are_no_weights(copied: Path) -> None:
    for file in WEIGHTS:
        (copied / file).rename((copied / file).with_suffix(".bin"))
    assert "no safetensors weights" in refused(lambda: fingerprint(copied), ExitCode.INVALID)
    refused(lambda: identify(str(copied)), ExitCode.INVALID)


def test_a_folder_is_identified_by_kind_place_and_weights(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = identify(str(tiny_base))
    assert found.fingerprint == fingerprint(tiny_base)
    assert folder_of(found) == tiny_base.resolve()
    monkeypatch.chdir(tiny_base.parent)
    assert identify(tiny_base.name) == found


def test_the_embedded_base_is_known_by_name_wherever_the_package_lies(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "mini_folder", lambda: tiny_base)
    found = identify("mini")
    assert found == BaseRef(kind="mini", source="mini", fingerprint=fingerprint(tiny_base))
    assert folder_of(found) == tiny_base


@pytest.mark.parametrize("base", ["no/such/folder", "runwayml/stable-diffusion-v1-5", "MINI", "file\nname"])
def test_what_is_no_folder_is_not_found(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert repr(base) in refused(lambda: identify(base), ExitCode.NOT_FOUND)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    refused(lambda: identify(str(file)), ExitCode.NOT_FOUND)


@pytest.mark.parametrize("name", ["StableDiffusionXLPipeline", "FluxPipeline", None])
def test_another_kind_of_pipeline_is_refused_by_name(copied: Path, name: str | None) -> None:
    (copied / "model_index.json").write_text(json.dumps({"_class_name": name}))
    assert str(name) in refused(lambda: identify(str(copied)), ExitCode.INVALID)


@pytest.mark.parametrize("content", [None, "", "not json", "[]", '"text"', "\udcff"])
def test_a_folder_that_says_nothing_of_its_kind_is_refused(copied: Path, content: str | None) -> None:
    index = copied / "model_index.json"
    if content is None:
        index.unlink()
    else:
        index.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "model_index.json" in refused(lambda: identify(str(copied)), ExitCode.INVALID)


def test_a_base_that_has_gone_is_not_found(tmp_path: Path) -> None:
    gone = BaseRef(kind="sd15", source=str(tmp_path / "gone"), fingerprint="0" * 64)
    assert "gone" in refused(lambda: folder_of(gone), ExitCode.NOT_FOUND)


def test_no_model_library_is_imported_to_identify_a_base(tiny_base: Path) -> None:
    code = (
        "import sys; from cidm_cli.models.identity import identify; "
        f"identify({str(tiny_base)!r}); print(sorted({{'torch', 'diffusers', 'transformers'}} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
