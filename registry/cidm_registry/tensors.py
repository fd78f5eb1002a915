"""Checks that bytes really are a safetensors file, with the standard library only.

Reading a header costs nothing and runs nothing, so everything that enters the registry passes here first,
before any library parses it.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from .errors import Invalid

MAX_HEADER = 100_000_000
"""Bytes, safetensors' own limit. Trainers write every tag of their captions, and thumbnails, into the metadata."""
MAX_STRUCTURE = 2_000_000
"""Bytes of a header without its texts: what a parser makes many objects of, however long the texts are."""
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**48
MAX_NAME = 512

BYTES_PER_ELEMENT = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}

PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(dp", b"(lp", b"]q", b"}q")


@dataclass(frozen=True)
class Tensor:
    """One tensor as the header describes it."""

    dtype: str
    """Element type in safetensors' own spelling, e.g. `F32`."""
    shape: tuple[int, ...]
    """Size along each dimension."""
    begin: int
    """First byte, counted from the end of the header."""
    end: int
    """One past the last byte."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself."""

    tensors: dict[str, Tensor]
    """By name."""
    metadata: dict[str, str]


def check_safetensors(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. Raises Invalid as `check_header` does."""
    return check_header(data, len(data)).tensors


def check_header(start: bytes, size: int) -> Header:
    """What a safetensors file of `size` bytes holds, told by its first bytes: at least those of its header.

    Raises Invalid for anything else: a pickle or an archive under another name, a cut-off file, a header over
    100 MB, over 2 MB without its texts or over 20,000 tensors (refused before it is parsed), an unknown element
    type, offsets that disagree with shape and type, overlap, leave gaps or leave the file, names that look like
    paths.
    """
    if what := _what_it_is(start):
        raise Invalid(what)
    if len(start) < 8:
        raise Invalid("not a safetensors file: it ends before its header")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER:
        raise Invalid(f"not a safetensors file, or its header is over {MAX_HEADER:,} bytes")
    raw = start[8 : 8 + length]
    if len(raw) < length:
        raise Invalid("the safetensors file is cut off inside its header")
    if not raw.startswith(b"{"):
        raise Invalid("not a safetensors file: its header is not a JSON object")
    # Counted in the raw bytes, so that a huge header never reaches the parser.
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise Invalid(f"the safetensors header lists more than {MAX_TENSORS:,} tensors")
    if length > MAX_STRUCTURE and _structure(raw) > MAX_STRUCTURE:
        raise Invalid(f"the safetensors header lists more than {MAX_TENSORS:,} tensors could take")
    header = _parse(raw)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Invalid("the safetensors metadata is not text")
    if len(header) > MAX_TENSORS:
        raise Invalid(f"the safetensors header lists more than {MAX_TENSORS:,} tensors")
    tensors = {name: _tensor(name, entry) for name, entry in header.items()}
    _check_layout(tensors, size - 8 - length)
    return Header(tensors, metadata)


def _structure(raw: bytes) -> int:
    """How many bytes of a header stand outside its texts, two quotes of each included."""
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = plain.count(b'"')
    return quotes if quotes > MAX_STRUCTURE else quotes + sum(map(len, plain.split(b'"')[::2]))


def _what_it_is(data: bytes) -> str | None:
    if data[8:9] == b"{":
        # A header whose length happens to start like something else.
        return None
    if data.startswith(b"PK"):
        return "this is a zip archive (a PyTorch .bin, .pt or .ckpt file?), not safetensors"
    if data.startswith(PICKLE_STARTS):
        return "this is a Python pickle, not safetensors; pickles are never loaded"
    if data.startswith(b"version https://git-lfs"):
        return "this is a git-LFS pointer, not the file it stands for: fetch that with `git lfs pull`, or download it"
    text = data[:200].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "this is a web page, such as one to log in at, not safetensors: download the file again"
    if text.startswith((b"<", b"{")) and text.isascii():
        return "this is text, such as a site's error message, not safetensors: download the file again"
    return None


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise Invalid("the safetensors header is not valid JSON") from error
    if not isinstance(header, dict):
        raise Invalid("not a safetensors file: its header is not a JSON object")
    return header


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name appears twice")
    return entries


def _tensor(name: str, entry: Any) -> Tensor:
    _check_name(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Invalid(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES_PER_ELEMENT:
        raise Invalid(f"tensor {name!r} has the unknown element type {str(dtype)[:20]!r}")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise Invalid(f"tensor {name!r} has an impossible shape")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Invalid(f"tensor {name!r} has impossible offsets")
    # A dimension of 0 hides how large the others are.
    if math.prod(dimension or 1 for dimension in shape) > MAX_ELEMENTS:
        raise Invalid(f"tensor {name!r} has an impossible shape")
    size = BYTES_PER_ELEMENT[dtype] * math.prod(shape)
    if size != offsets[1] - offsets[0]:
        raise Invalid(f"tensor {name!r}: its bytes do not match its shape and element type")
    return Tensor(dtype, tuple(shape), offsets[0], offsets[1])


def _check_name(name: str) -> None:
    looks_like_path = ".." in name or "\\" in name or name.startswith("/")
    if not name or len(name) > MAX_NAME or looks_like_path or not name.isprintable():
        raise Invalid(f"tensor name {name[:40]!r} is not allowed")


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**48 for item in value)


def _check_layout(tensors: dict[str, Tensor], available: int) -> None:
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            raise Invalid(f"tensor {name!r} overlaps another, or leaves a gap before it")
        position = tensor.end
    if position != available:
        raise Invalid(f"the tensors take {position:,} bytes, the file holds {available:,}: cut off or padded")
