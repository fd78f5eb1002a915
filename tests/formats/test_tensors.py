"""Files of tensors from strangers."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load, save

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.tensors import check_weights, content_hash, read_tensors, write_tensors


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../escape", "x")
    return stream.getvalue()


def with_header(header: dict[str, object]) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw


ONE = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a safetensors file"),
        (pickle.dumps({"a": 1}), "pickle"),
        (zipped(), "zip archive"),
        ((100_000_001).to_bytes(8, "little") + b"{" * 64, "header is over 100,000,000 bytes"),
        (with_header({f"t{n}": ONE for n in range(20_001)}), "more than 20,000 tensors"),
        (with_header({"../../escape": ONE}), "not allowed"),
        (with_header({"a": {**ONE, "shape": [2**40, 2**40]}}), "impossible shape"),
        (with_header({"a": {**ONE, "shape": [3]}}), "do not match"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (with_header({"a": {**ONE, "dtype": "OBJECT"}}), "unknown element type"),
        (save({"a": torch.ones(4)})[:-1], "cut off"),
    ],
)
def test_what_is_no_sound_safetensors_file_is_refused_by_its_content(content: bytes, words: str) -> None:
    with pytest.raises(CidmError, match=words) as caught:
        read_tensors(content, "dog.safetensors")
    assert caught.value.code == ExitCode.INVALID
    assert caught.value.message.startswith("dog.safetensors: ")
    assert caught.value.hint


def test_what_is_written_is_read_and_the_same_bytes_each_time() -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.ones(2, dtype=torch.uint8)}
    file = write_tensors(tensors, {"z": "1", "a": "ä"})
    assert file == write_tensors(dict(reversed(tensors.items())), {"a": "ä", "z": "1"})
    back, metadata = read_tensors(file, "x")
    assert metadata == {"z": "1", "a": "ä"}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert all(torch.equal(load(file)[name], tensors[name]) for name in tensors)
    assert content_hash(file) == content_hash(write_tensors(tensors, {}))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.tensor([1, 2]), "int64"),
        (torch.tensor([1.0, torch.nan]), "NaN"),
        (torch.tensor([-torch.inf]), "infinite"),
        (torch.tensor([2e6]), "no training leaves"),
    ],
)
def test_values_that_no_training_leaves_are_refused_by_name(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(CidmError, match=f"odd .*{words}"):
        check_weights({"fine": torch.zeros(2, 0), "odd": tensor}, "dog.safetensors")
