"""Bases on the hub: what is fetched and what is not, and that what is there needs no network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

import tiny_flux2
import tiny_zimage
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models import hub
from cidm_cli.models.control_files import find
from cidm_cli.models.identity import fingerprint, folder_of, identify, known, vae_of, wanted

NAME, COMMIT = "somebody/something", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def place(cache: Path, folder: Path, name: str = NAME, files: Sequence[str] = ("*",)) -> Path:
    """Lays a repository down in the cache as the hub's client does."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        if file.is_file() and any(fnmatch(inner.as_posix(), pattern) for pattern in files):
            (snapshot / inner).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, snapshot / inner)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.fixture
def online(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Sequence[str]]:
    """A hub that holds what lies in tmp_path/remote; gives what was asked of it, file names by call."""
    remote = tmp_path / "remote"
    asked: list[Sequence[str]] = []

    class Api:
        def model_info(self, name: str, *, revision: str | None, files_metadata: bool) -> SimpleNamespace:
            files = [p.relative_to(remote).as_posix() for p in sorted(remote.rglob("*")) if p.is_file()]
            siblings = [SimpleNamespace(rfilename=file, size=10) for file in files]
            return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def download(name: str, *, revision: str | None, allow_patterns: Sequence[str]) -> str:
        assert revision in (None, COMMIT)
        asked.append(list(allow_patterns))
        return str(place(cache, remote, name, allow_patterns))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def refused(name: str, code: ExitCode, vae: str = "") -> CidmError:
    with pytest.raises(CidmError) as caught:
        identify(name, vae)
    assert caught.value.code == code
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_what_the_cache_holds_needs_no_network(
    cache: Path, tiny_base: Path, tiny_sdxl: Path, family: str
) -> None:
    folder = {"sd15": tiny_base, "sdxl": tiny_sdxl}[family]
    snapshot = place(cache, folder)
    found = identify(NAME)
    assert (found.kind, found.source) == (family, f"{NAME}@{COMMIT}")
    assert found.fingerprint == fingerprint(folder)
    assert folder_of(found) == snapshot
    assert identify(f"{NAME}@{COMMIT}") == found == identify(f"{NAME}@main")


@pytest.mark.parametrize("alias", known())
def test_short_names_stand_for_well_known_bases(
    cache: Path, tiny_base: Path, tiny_sdxl: Path, tmp_path: Path, alias: str
) -> None:
    made = {"flux2-klein": tiny_flux2, "z-image": tiny_zimage}
    folder = (
        made[alias].save(tmp_path / alias) if alias in made else {"sd15": tiny_base, "sdxl": tiny_sdxl}[alias]
    )
    place(cache, folder, known()[alias])
    assert identify(alias).source == f"{known()[alias]}@{COMMIT}"
    assert identify(f"{alias}@{COMMIT}") == identify(alias)


def test_a_short_name_is_no_folder_of_that_name(
    cache: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People keep a registry called sd15 beside their work."""
    place(cache, tiny_base, known()["sd15"])
    (tmp_path / "sd15").mkdir()
    monkeypatch.chdir(tmp_path)
    assert identify("sd15").source == f"{known()['sd15']}@{COMMIT}"


def test_a_registry_keeps_its_base_when_the_hub_moves_on(cache: Path, tiny_base: Path) -> None:
    place(cache, tiny_base)
    found = identify(NAME)
    (cache / "models--somebody--something" / "refs" / "main").write_text("f" * 40)
    assert folder_of(found).name == COMMIT


@pytest.mark.parametrize("name", [NAME, "sdxl", f"{NAME}@v2"])
def test_without_network_and_cache_the_way_out_is_named(cache: Path, name: str) -> None:
    error = refused(name, ExitCode.NOT_FOUND)
    assert "HF_HUB_OFFLINE" in error.hint
    assert not cache.exists(), "nothing half-downloaded"


@pytest.mark.parametrize(
    "missing", ["unet/*.safetensors", "vae/config.json", "tokenizer_2/*", "scheduler/*", "text_encoder_2/*"]
)
def test_a_download_that_was_cut_short_is_not_taken_for_whole(
    cache: Path, tiny_sdxl: Path, missing: str
) -> None:
    snapshot = place(cache, tiny_sdxl)
    for file in snapshot.glob(missing):
        file.unlink()
    assert "not whole" in refused(NAME, ExitCode.NOT_FOUND).message


def test_only_what_is_needed_is_fetched_and_settings_come_first(
    cache: Path, online: list[Sequence[str]], tiny_sdxl: Path, tmp_path: Path
) -> None:
    remote = shutil.copytree(tiny_sdxl, tmp_path / "remote")
    for extra in ("sd_xl_base_1.0.safetensors", "unet/diffusion_pytorch_model.bin", "unet/model.onnx", "code.py",
                  "vae_1_0/diffusion_pytorch_model.safetensors", "README.md"):  # fmt: skip
        (remote / extra).parent.mkdir(exist_ok=True)
        (remote / extra).write_bytes(b"unwanted")
    half = remote / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(remote / "unet" / "diffusion_pytorch_model.safetensors", half)
    notes: list[str] = []
    found = identify(NAME, on_note=notes.append)
    small, every = online
    assert not [name for name in small if name.endswith(".safetensors")]
    weights = {name for name in every if name.endswith(".safetensors")}
    assert weights == {
        "unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors", "text_encoder_2/model.safetensors",
    }  # fmt: skip
    assert {Path(name).suffix for name in every} <= {".json", ".txt", ".safetensors"}
    assert not [name for name in every if name.startswith(("vae_1_0", "README", "code"))]
    assert found.source == f"{NAME}@{COMMIT}"
    assert len(notes) == 1
    assert identify(NAME) == found
    assert len(online) == 2, "the second time, nothing is fetched"


def test_another_kind_of_model_is_refused_before_its_weights_are_fetched(
    cache: Path, online: list[Sequence[str]], tiny_sdxl: Path, tmp_path: Path
) -> None:
    remote = shutil.copytree(tiny_sdxl, tmp_path / "remote")
    (remote / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    assert "FluxPipeline" in refused(NAME, ExitCode.INVALID).message
    assert len(online) == 1
    assert not list(cache.rglob("*.safetensors"))


def test_another_vae_may_come_from_the_hub(
    cache: Path, online: list[Sequence[str]], tiny_base: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base / "vae", tmp_path / "remote")
    found = identify(str(tiny_base), "somebody/vae")
    assert found.vae == f"somebody/vae@{COMMIT}"
    folder = vae_of(found)
    assert folder is not None
    assert found.fingerprint == fingerprint(tiny_base, folder) == fingerprint(tiny_base)


def test_each_kind_of_model_is_told_what_else_may_be_given(tiny_base: Path, tmp_path: Path) -> None:
    assert "--base mini" in refused(NAME, ExitCode.NOT_FOUND).hint
    assert "VAE" in (hint := refused(str(tiny_base), ExitCode.NOT_FOUND, "somebody/vae").hint)
    assert "mini" not in hint
    with pytest.raises(CidmError) as caught:
        find(NAME, tmp_path)
    assert "ControlNet" in caught.value.hint
    assert "mini" not in caught.value.hint


def test_a_hub_that_fails_in_any_way_is_told_in_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(hub, "_download", fail)
    assert "first line" in refused(NAME, ExitCode.NOT_FOUND).message


@pytest.mark.parametrize("name", ["a/b/c", "../x", "a b/c", "x/y@", "/etc/none", "name"])
def test_what_cannot_be_a_hub_name_is_never_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: pytest.fail("asked"))
    assert repr(name) in refused(name, ExitCode.NOT_FOUND).message


def test_shards_and_their_list_are_wanted_and_pickles_never() -> None:
    names = [
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder/pytorch_model.bin", "safety_checker/model.safetensors", "tokenizer/merges.txt",
        "tokenizer/../../evil.json", "scheduler/scheduler_config.json",
    ]  # fmt: skip
    assert set(wanted(names)) == {*names[:5], "tokenizer/merges.txt", "scheduler/scheduler_config.json"}


NOTHING = "\x02\0\0\0\0\0\0\0{}"
"""A safetensors file without a tensor."""
CONTROL = {
    "config.json": '{"_class_name": "ControlNetModel"}',
    "diffusion_pytorch_model.bin": "pickled",
    "diffusion_pytorch_model.fp16.safetensors": NOTHING,
    "diffusion_pytorch_model.safetensors": NOTHING,
    "code.py": "evil",
}


def lay(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_of_a_controlnet_settings_and_one_set_of_safetensors_weights_are_fetched(
    online: list[Sequence[str]], cache: Path, tmp_path: Path
) -> None:
    lay(tmp_path / "remote", CONTROL)
    found = find(NAME, tmp_path)
    assert (found.source, found.variant, found.kind) == (f"{NAME}@{COMMIT}", "fp16", "controlnet")
    assert {name for names in online for name in names} == {
        "config.json", "diffusion_pytorch_model.fp16.safetensors",
    }  # fmt: skip
    asked = len(online)
    assert find(NAME, tmp_path) == found
    assert len(online) == asked, "what the cache holds whole needs no network"


def test_of_what_is_no_controlnet_the_weights_are_not_fetched(
    online: list[Sequence[str]], tmp_path: Path
) -> None:
    lay(tmp_path / "remote", {**CONTROL, "config.json": '{"_class_name": "AutoencoderKL"}'})
    with pytest.raises(CidmError, match="AutoencoderKL") as caught:
        find(NAME, tmp_path)
    assert caught.value.code == ExitCode.INVALID
    assert not any(name.endswith(".safetensors") for names in online for name in names)


def test_a_controlnet_that_is_nowhere_is_told(tmp_path: Path) -> None:
    with pytest.raises(CidmError, match="--control") as caught:
        find(NAME, tmp_path)
    assert caught.value.code == ExitCode.NOT_FOUND
