"""Which base a name means, and the fingerprint that a registry knows its base by."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models import digests, identity
from cidm_cli.models.identity import Weights, fingerprint, folder_of, identify, part_weights, vae_of
from cidm_registry import BaseRef

if TYPE_CHECKING:
    from cidm_cli.models.base import Base

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


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and an empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


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


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model"])
def test_a_file_that_may_need_unpickling_is_refused_by_name(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"weights")
    assert name in refused(lambda: identify(str(file)), ExitCode.INVALID)


@pytest.mark.parametrize("name", ["StableDiffusion3Pipeline", "FluxPipeline", None])
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


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize(
    ("file", "settings", "words"),
    [
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("unet/config.json", {"in_channels": 8}, "InstructPix2Pix"),
        ("unet/config.json", {"cross_attention_dim": 1024}, "Stable Diffusion 2"),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler"}, "EDM"),
    ],
)
def test_relatives_that_cannot_be_used_are_refused_by_what_they_are(
    copied: Path, file: str, settings: dict[str, object], words: str
) -> None:
    change(copied / file, **settings)
    assert words in refused(lambda: identify(str(copied)), ExitCode.INVALID)


def test_the_refiner_is_refused_by_name(tiny_sdxl: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_sdxl, tmp_path / "refiner")
    shutil.rmtree(folder / "text_encoder")
    assert "refiner" in refused(lambda: identify(str(folder)), ExitCode.INVALID)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_base_that_lacks_a_parts_weights_is_refused(tiny_sdxl: Path, tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(tiny_sdxl, tmp_path / "part")
    for file in (folder / part).glob("*.safetensors"):
        file.unlink()
    assert f"in its {part} folder" in refused(lambda: identify(str(folder)), ExitCode.INVALID)


def test_an_sdxl_is_known_by_its_folder(tiny_sdxl: Path) -> None:
    assert identify(str(tiny_sdxl)).kind == "sdxl"


# -- which weights of several ---------------------------------------------------------------------------------------


def shard(folder: Path, part: str = "unet", stem: str = "diffusion_pytorch_model") -> list[Path]:
    """Parts a part's weights in two, as diffusers does with large ones."""
    from safetensors.torch import load_file, save_file

    whole = folder / part / f"{stem}.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    files = [folder / part / f"{stem}-0000{k}-of-00002.safetensors" for k in (1, 2)]
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    for file, some in zip(files, halves, strict=True):
        save_file({name: tensors[name] for name in some}, file, metadata={"format": "pt"})
    place = {name: file.name for file, some in zip(files, halves, strict=True) for name in some}
    index = {"metadata": {"total_size": 1}, "weight_map": place}
    (folder / part / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    return files


def test_sharded_weights_count_and_load(copied: Path, base: Base) -> None:
    import torch

    from cidm_cli.models.base import load

    files = shard(copied)
    before = identify(str(copied)).fingerprint
    loaded = load(copied, device=torch.device("cpu"), compute=torch.float32)
    for ours, theirs in zip(loaded.denoiser.parameters(), base.denoiser.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    content = bytearray(files[1].read_bytes())
    content[-1] ^= 1
    files[1].write_bytes(content)
    assert fingerprint(copied) != before


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "gone.safetensors", "pipe.safetensors", 3]
)
def test_an_index_of_shards_names_nothing_but_files_beside_it(copied: Path, name: object) -> None:
    shard(copied)
    (copied / "outside.safetensors").write_bytes(b"")
    os.mkfifo(copied / "unet" / "pipe.safetensors")
    index = copied / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    change(index, weight_map={"conv_in.weight": name})
    assert "which is not a safetensors file beside it" in refused(
        lambda: identify(str(copied)), ExitCode.INVALID
    )


def test_half_precision_files_are_the_ones_that_count(copied: Path) -> None:
    before = fingerprint(copied)
    half = copied / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(copied / WEIGHTS[0], half)
    assert fingerprint(copied) != before
    assert part_weights(copied, "unet") == Weights("fp16", (half,))
    both = fingerprint(copied)
    (copied / WEIGHTS[0]).unlink()
    assert fingerprint(copied) == both


def test_another_vae_is_another_base(copied: Path, tmp_path: Path) -> None:
    """And the same one under another roof is the same."""
    other = shutil.copytree(copied / "vae", tmp_path / "other")
    plain, with_other = identify(str(copied)), identify(str(copied), str(other))
    assert with_other.vae == str(other.resolve())
    assert vae_of(with_other) == other.resolve()
    assert vae_of(plain) is None
    content = bytearray((other / "diffusion_pytorch_model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "diffusion_pytorch_model.safetensors").write_bytes(content)
    changed = identify(str(copied), str(other))
    assert len({plain.fingerprint, with_other.fingerprint, changed.fingerprint}) >= 2
    assert changed.fingerprint != with_other.fingerprint
    shutil.rmtree(other)
    assert "no longer there" in refused(lambda: vae_of(changed), ExitCode.NOT_FOUND)


# -- hashes of large files --------------------------------------------------------------------------------------


def test_a_large_file_is_hashed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 1000)
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    reads: list[object] = []
    whole = digests.hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *a: (reads.append(a), whole(*a))[1])
    file = tmp_path / "large"
    file.write_bytes(b"a" * 2000)
    first = digests.digest(file)
    assert digests.digest(file) == first
    assert len(reads) == 1
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"b" * 2000)
    # Whoever sets the clock back cannot set back when that was done.
    os.utime(file, ns=times)
    assert digests.digest(file) != first
    assert len(reads) == 2


def test_a_file_just_written_and_a_small_one_are_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIDM_CACHE", str(tmp_path / "cache"))
    small = tmp_path / "small"
    small.write_bytes(b"a")
    digests.digest(small)
    monkeypatch.setattr(digests, "LARGE", 0)
    digests.digest(small)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 3}'])
def test_damaged_notes_of_hashes_are_no_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv("CIDM_CACHE", str(tmp_path))
    monkeypatch.setattr(digests, "LARGE", 0)
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    (tmp_path / "digests.json").write_text(content)
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    assert digests.digest(file) == hashlib.sha256(b"abc").hexdigest() == digests.digest(file)


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
