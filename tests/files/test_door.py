"""Whatever is read comes through one door: hostile files and streams are refused by name and at once."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from cidm_cli.data.captions import read_caption
from cidm_cli.draw.png import read_facts
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.files import json_files
from cidm_cli.files.given import read_given
from cidm_cli.files.images import decode_picture
from cidm_cli.files.places import candidates, expanded, told_path
from cidm_cli.files.reading import read_bounded, read_start
from cidm_cli.judge.benchmarks import load_benchmark
from cidm_cli.layout import load_layout
from cidm_cli.layout.importing import Wishes, import_file
from cidm_cli.models.digests import digest
from cidm_cli.models.identity import identify, mini_folder
from cidm_cli.models.settings import check_settings
from cidm_cli.options import settings as config

READERS: dict[str, Callable[[Path], Any]] = {
    "a picture's facts": read_facts,
    "a given picture": read_given,
    "a caption": read_caption,
    "a layout": load_layout,
    "another program's layout": lambda path: import_file(path, Wishes()),
    "a benchmark": lambda path: load_benchmark(path.rename(path.with_suffix(".json"))),
    "JSON": json_files.read_json,
    "bytes": lambda path: read_bounded(path, 100),
    "a start": lambda path: read_start(path, 100),
}
KINDS = ("pipe", "socket", "folder", "device")


def made(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            monkeypatch.chdir(path.parent)  # its name may not be long
            socket.socket(socket.AF_UNIX).bind(path.name)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize(
    ("kind", "reader"),
    # A folder of pictures is a benchmark.
    [(kind, reader) for kind in KINDS for reader in READERS if (kind, reader) != ("folder", "a benchmark")],
)
def test_what_is_no_ordinary_file_is_never_waited_for(
    kind: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(kind, tmp_path / "given", monkeypatch)
    with pytest.raises(CidmError, match="given") as caught:
        READERS[reader](path)
    assert caught.value.code == ExitCode.INVALID


@pytest.mark.parametrize("reader", [name for name in READERS if name != "a start"])
def test_of_a_file_that_is_too_large_nothing_is_read(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "given"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr("cidm_cli.files.reading._within", lambda *_: pytest.fail("it was read"))
    with pytest.raises(CidmError, match="larger than the"):
        READERS[reader](path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1%s}' % ("0" * 400), "number of 401 digits"),
        ('{"a": [-1%s]}' % ("0" * 5000), "digits"),
        ('{"a": 1e999}', "larger than any number"),
        (r'{"a": "\ud800"}', "half a character"),
        (r'{"\uDC00": 1}', "half a character"),
        ("[" * 900 + "]" * 900, "64 deep"),
        ("-Infinity", "no number of JSON"),
    ],
)
def test_json_that_would_end_the_program_later_is_refused(text: str, said: str) -> None:
    with pytest.raises(CidmError, match=said) as caught:
        json_files.parse_json(text, "its.file")
    assert caught.value.message.startswith("its.file:")
    assert len(caught.value.message) < 200


def test_pairs_of_halves_are_characters() -> None:
    assert json_files.parse_json(r'"\ud83d\ude00"', "x") == "😀"


def test_settings_with_an_endless_number_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "cidm.toml").write_text("[learn]\nlr = 1" + "0" * 400)
    with pytest.raises(CidmError, match=r"cidm.toml:2: ") as caught:
        config.load_settings({}, tmp_path, tmp_path / "user")
    assert caught.value.code == ExitCode.INVALID


@pytest.mark.parametrize("path", ["~nosuchuser/x", "a\0b", "half \ud800"])
def test_what_is_no_path_here_is_told(path: str) -> None:
    with pytest.raises(CidmError, match="no path on this machine"):
        expanded(path)


@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_a_registry_of_nobodys_home_is_a_usage_error(
    way: str, cidm: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIDM_REGISTRY", raising=False)
    if way == "variable":
        monkeypatch.setenv("CIDM_REGISTRY", "~nosuchuser/x")
    elif way == "file":
        (tmp_path / "cidm.toml").write_text('registry = "~nosuchuser/x"')
    ran = cidm("list", *(("--registry", "~nosuchuser/x") if way == "flag" else ()))
    assert ran.code == ExitCode.USAGE
    assert "~nosuchuser/x" in ran.error


# Pictures


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(path: Path) -> Path:
    """178 million pixels in a hundred bytes."""
    header = struct.pack(">IIBBBBB", 17_800, 10_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("reader", [read_facts, read_given])
def test_a_picture_of_178_megapixels_is_refused_by_its_header(
    reader: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = huge_png(tmp_path / "p.png")
    warnings.simplefilter("error")
    with pytest.raises(CidmError, match="17800 x 10000 pixels") as caught:
        reader(path)
    assert caught.value.code == ExitCode.INVALID


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_colour_profile_of_2_megabytes_is_no_damage(kind: str, tmp_path: Path) -> None:
    picture = Image.effect_noise((32, 32), 90).convert("RGB")
    picture.save(
        tmp_path / "p",
        kind,
        icc_profile=os.urandom(2 << 20),
        **({"lossless": True} if kind == "WEBP" else {}),
    )
    decoded = decode_picture((tmp_path / "p").read_bytes(), "p").image
    assert decoded.info == {}
    assert kind == "JPEG" or decoded.tobytes() == picture.tobytes()


@pytest.mark.parametrize("fact", [r'"\ud800"', "1" + "0" * 400, "1e999", "[" * 900 + "]" * 900])
def test_a_picture_with_an_impossible_fact_does_not_say_how_it_was_made(fact: str, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("cidm", f'{{"format": 1, "prompt": {fact}}}')
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png", pnginfo=info)
    with pytest.raises(CidmError, match="does not say how it was made"):
        read_facts(tmp_path / "p.png")


# Standard streams


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("list >&-", 0),
        ("list >&- 2>&-", 0),
        ("list --json >&-", 0),
        ("list <&-", 0),
        ("--registry nowhere list 2>&-", 3),
        ("layout check - <&-", 2),
        ("layout import - <&-", 2),
        ("list 2>/dev/full", 0),
        ("--registry nowhere list 2>/dev/full", 3),
        ("list >/dev/full", 1),
    ],
)
def test_a_stream_that_is_closed_or_full_changes_no_work(line: str, code: int, tmp_path: Path) -> None:
    environment = {**os.environ, "CIDM_REGISTRY": str(tmp_path / "registry")}
    program = f'"{sys.executable}" -m cidm_cli'
    ran = subprocess.run(
        ["bash", "-c", f"{program} init -q >&2 && {program} {line}"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr
    assert "fault in cidm" not in ran.stderr
    assert "Traceback" not in ran.stderr


# Settings of models that others made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The embedded base, of which settings may be changed."""
    folder = tmp_path / "base"
    for path in mini_folder().rglob("*"):
        target = folder / path.relative_to(mini_folder())
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            target.symlink_to(path)
        elif path.is_file():
            target.write_bytes(path.read_bytes())
    return folder


HOSTILE: dict[str, tuple[str, dict[str, Any]]] = {
    "_attn_implementation": ("text_encoder/config.json", {"_attn_implementation": "kernels-community/flash-attn2"}),
    "attn_implementation": ("text_encoder/config.json", {"text_config": {"attn_implementation": {"": "a/b"}}}),
    "_experts_implementation": ("text_encoder/config.json", {"_experts_implementation": "sonicmoe"}),
    "auto_map": ("unet/config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
    "quantization_config": ("vae/config.json", {"quantization_config": {"quant_method": "mxfp4"}}),
    "adapter_config.json": ("text_encoder/adapter_config.json", {"base_model_name_or_path": "evil/model"}),
    "beta_schedule": ("scheduler/scheduler_config.json", {"beta_schedule": "evil"}),
    "prediction_type": ("scheduler/scheduler_config.json", {"prediction_type": "sample"}),
    "num_train_timesteps": ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
    "layers_per_block": ("unet/config.json", {"layers_per_block": 10**7}),
    "transformer_layers_per_block": ("unet/config.json", {"transformer_layers_per_block": [1, 5000]}),
    "num_hidden_layers": ("text_encoder/config.json", {"num_hidden_layers": 10**7}),
    "64 deep": ("unet/config.json", {"a": json.loads("[" * 90 + "]" * 90)}),
    "use_pretrained_backbone": ("vae/config.json", {"use_pretrained_backbone": True}),
}  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE)
def test_settings_that_choose_code_or_have_no_end_are_refused_by_name(key: str, model: Path) -> None:
    name, change = HOSTILE[key]
    file = model / name
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **change}))
    with pytest.raises(CidmError, match=key) as caught:
        identify(str(model))
    assert caught.value.code == ExitCode.INVALID
    assert file.parent.name in caught.value.message


@pytest.mark.parametrize(
    "name",
    ["model_index.json", "unet/config.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json"],
)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_settings_that_are_no_plain_file_are_refused_by_name(
    kind: str, name: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / name).unlink()
    made(kind, model / name, monkeypatch)
    with pytest.raises(CidmError, match=Path(name).name):
        identify(str(model))


def test_settings_as_they_are_in_the_wild_are_let_through(tmp_path: Path) -> None:
    words = {"model_max_length": int(1e30), "added_tokens_decoder": {"49406": {"content": "<|startoftext|>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(words))
    told = {"_attn_implementation": "sdpa", "auto_map": None, "num_hidden_layers": 48, "vocab_size": 250_002}
    (tmp_path / "config.json").write_text(json.dumps({**told, "id2label": {"0": "cat"}, "backbone": None}))
    check_settings(tmp_path)


# What is told of paths in files that are made to be shared


@pytest.mark.parametrize(
    ("path", "told"),
    [("out/all.safetensors", "out/all.safetensors"), ("/home/ann/all.safetensors", "all.safetensors"),
     ("../ann/all.safetensors", "all.safetensors"), (".", "."), ("/", "")],
)  # fmt: skip
def test_a_path_is_told_without_what_leads_there(path: str, told: str) -> None:
    assert told_path(Path(path)) == told


def test_a_file_is_looked_for_where_it_was_and_beside(tmp_path: Path) -> None:
    (tmp_path / "all").write_bytes(b"1")
    assert [digest(path) for path in candidates("out/all", tmp_path) if path.is_file()] == [
        digest(tmp_path / "all")
    ]
