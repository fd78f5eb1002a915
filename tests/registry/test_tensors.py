"""Only real, modest safetensors get in, whatever the file is called."""

import contextlib
import io
import json
import pickle
import struct
import time
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cidm_registry import Invalid, Registry, check_header, check_safetensors
from registry_support import make_weights


def build(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def entry(begin: int = 0, end: int = 4, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return target.getvalue()


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "zeroed": b"\0" * 64,
    "pickle 2": pickle.dumps({"a": [1.0] * 9}, protocol=2),
    "pickle 4": pickle.dumps({"a": [1.0] * 9}, protocol=4),
    "zip": zipped(),
    "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 132\n",
    "page": b"\n<!DOCTYPE html><html><body>Log in</body></html>",
    "answer": b'{"error": "You must be logged in"}',
    "header longer than the file": build({}, length=500),
    "header of 100 MB": build({}, length=100_000_000),
    "header just over the limit": build(b"{", length=100_000_001),
    "structure just over the limit": build(b'{"a":[' + b"0," * 1_000_000 + b"0]}"),
    "names without end": build(b"{" + b'"":0,' * 500_000 + b'"":0}'),
    "a text that never ends": build(b'{"a":[' + b"0," * 1_000_000 + b'"' + b'\\"' * 1_000_000),
    "400,000 tensors": build(
        b"{" + b",".join(b'"%d":{"data_offsets":[0,0]}' % n for n in range(30_000)) + b"}"
    ),
    "20,001 tensors": build({str(n): entry(0, 0, [0]) for n in range(20_001)}),
    "20,001 tensors without offsets": build({str(n): 0 for n in range(20_001)}),
    "a huge shape hidden by a zero": build({"a": entry(0, 0, [0, 2**47, 2**47])}),
    "not JSON": build(b"{not json}"),
    "not UTF-8": build(b'{"\xff": 1}'),
    "a list": build([]),
    "nested": build(b'{"a":' + b"[" * 100_000),
    "one name twice": build(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), b"\0" * 4),
    "metadata of numbers": build({"__metadata__": {"a": 1}}),
    "metadata of text": build({"__metadata__": "a"}),
    "entry of text": build({"a": "F32"}),
    "no shape": build({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"\0" * 4),
    "one key more": build({"a": {**entry(), "code": "import os"}}, b"\0" * 4),
    "unknown type": build({"a": entry(dtype="O")}, b"\0" * 4),
    "type of list": build({"a": entry(dtype=["F32"])}, b"\0" * 4),
    "negative shape": build({"a": entry(shape=[-1])}, b"\0" * 4),
    "shape of text": build({"a": entry(shape=["1"])}, b"\0" * 4),
    "shape of booleans": build({"a": entry(shape=[True])}, b"\0" * 4),
    "shape of floats": build({"a": entry(shape=[1.0])}, b"\0" * 4),
    "absurd shape": build({"a": entry(shape=[2**62, 2**62])}, b"\0" * 4),
    "nine dimensions": build({"a": entry(shape=[1] * 9)}, b"\0" * 4),
    "shape too small": build({"a": entry(0, 8, [1])}, b"\0" * 8),
    "offsets backwards": build({"a": entry(4, 0)}, b"\0" * 4),
    "offsets negative": build({"a": entry(-4, 0)}, b"\0" * 4),
    "three offsets": build({"a": {**entry(), "data_offsets": [0, 4, 8]}}, b"\0" * 8),
    "overlap": build({"a": entry(0, 4), "b": entry(0, 4)}, b"\0" * 4),
    "gap": build({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12),
    "gap at the start": build({"a": entry(4, 8)}, b"\0" * 8),
    "past the end": build({"a": entry(0, 4)}, b"\0" * 3),
    "bytes behind the end": build({"a": entry(0, 4)}, b"\0" * 5),
    "path as a name": build({"../../a": entry()}, b"\0" * 4),
    "absolute name": build({"/a": entry()}, b"\0" * 4),
    "backslash name": build({"a\\b": entry()}, b"\0" * 4),
    "escape in a name": build({"a\x1b[2J": entry()}, b"\0" * 4),
    "empty name": build({"": entry()}, b"\0" * 4),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_refused_quickly_and_before_anything_is_written(what: str, registry: Registry) -> None:
    from registry_support import files_of, make_draft

    started = time.process_time()
    with pytest.raises(Invalid) as caught:
        check_safetensors(HOSTILE[what])
    assert time.process_time() - started < 2
    assert caught.value.message.isprintable()
    with pytest.raises(Invalid, match="'dog'"):
        registry.commit(make_draft("dog"), HOSTILE[what], expected_head=0)
    assert set(files_of(registry.root)) == {"registry.json"}


def test_texts_of_many_megabytes_are_no_reason_to_refuse_a_file() -> None:
    tags = json.dumps({f"tag number {n} of the set": n for n in range(100_000)})
    file = build({"__metadata__": {"ss_tag_frequency": tags}, "a": entry()}, b"\0" * 4)
    header = check_header(file, len(file))
    assert header.metadata["ss_tag_frequency"] == tags


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("pickle 2", "pickle"), ("pickle 4", "pickle"), ("zip", "zip archive"), ("text", "git lfs pull"),
        ("page", "web page"), ("answer", "error message"),
    ],
)  # fmt: skip
def test_says_what_it_is_instead(what: str, word: str) -> None:
    with pytest.raises(Invalid, match=word):
        check_safetensors(HOSTILE[what])


def test_accepts_what_the_real_library_writes() -> None:
    torch = pytest.importorskip("torch")
    save = pytest.importorskip("safetensors.torch").save
    tensors = {
        "unet.down.lora_A.weight": torch.zeros(4, 320),
        "half": torch.zeros(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0, 4),
        "ids": torch.zeros(2, dtype=torch.int64),
        "mask": torch.zeros(5, dtype=torch.bool),
    }
    found = check_safetensors(save(tensors, metadata={"format": "pt"}))
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }


def test_accepts_a_header_whose_length_starts_like_a_pickle() -> None:
    raw = json.dumps({"a": entry()}).encode()
    padded = raw + b" " * (0x280 - len(raw))
    assert build(padded, b"\0" * 4).startswith(b"\x80\x02")
    assert list(check_safetensors(build(padded, b"\0" * 4))) == ["a"]


@given(st.integers(0, 300), st.integers(0, 255))
def test_no_changed_byte_of_the_header_escapes_as_another_error(position: int, value: int) -> None:
    data = bytearray(make_weights(1))
    data[position % len(data)] = value
    with contextlib.suppress(Invalid):
        check_safetensors(bytes(data))


@given(st.integers(0, 400))
def test_every_cut_is_noticed(length: int) -> None:
    data = make_weights(1)
    cut = data[: min(length, len(data) - 1)]
    with pytest.raises(Invalid):
        check_safetensors(cut)
