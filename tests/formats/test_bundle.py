"""Bundles: concepts come out byte for byte, or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.bundle import MARK, Bundled, pack_bundle, read_bundle
from cidm_cli.formats.tensors import write_tensors
from cidm_registry import Against, Registry
from registry_support import BASE, PNG, add


@pytest.fixture
def concepts(tmp_path: Path) -> list[Bundled]:
    registry = Registry.create(tmp_path / "registry", BASE)
    records = [add(registry, "dog", 1, preview=PNG), add(registry, "狐", 2)]
    return [Bundled(r, registry.read_blob(r.blob), PNG if r.preview else None) for r in records]


def altered(content: bytes, change: Any) -> bytes:
    tensors = load(content)
    records = json.loads(bytes(tensors["records"].tolist()))
    change(tensors, records)
    tensors["records"] = torch.tensor(list(json.dumps(records).encode()), dtype=torch.uint8)
    return write_tensors(tensors, {MARK: "1"})


def refused(content: bytes) -> str:
    with pytest.raises(CidmError) as caught:
        read_bundle(content, "all.safetensors")
    assert caught.value.code == ExitCode.INVALID
    assert caught.value.message.startswith("all.safetensors: ")
    return caught.value.message


def test_concepts_come_back_byte_for_byte_in_the_order_they_were_learned(concepts: list[Bundled]) -> None:
    content = pack_bundle(list(reversed(concepts)))
    assert read_bundle(content, "x") == concepts
    assert pack_bundle(concepts) == pack_bundle(concepts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t, r: t.update({f"blob.{r[0]['concept']['blob']}": torch.zeros(3, dtype=torch.uint8)}),
            "hash",
        ),
        (lambda t, r: t.pop(f"blob.{r[1]['concept']['blob']}"), "is not in it"),
        (lambda t, r: t.pop(f"preview.{r[0]['concept']['preview']}"), "is not in it"),
        (lambda t, r: t.update({"blob.more": torch.zeros(3, dtype=torch.uint8)}), "belong together"),
        (lambda t, r: r.append(r[0]), "belong together"),
        (lambda t, r: r[0]["concept"].update(base="0" * 64), "belong together"),
        (lambda t, r: r.clear(), "belong together"),
        (lambda t, r: r[0]["concept"].update(key="../x"), "records"),
        (lambda t, r: r[0]["concept"].update(rank=-1), "records"),
        (lambda t, r: r[0]["concept"].update(tokens="dog"), "records"),
        (lambda t, r: r[0]["concept"].pop("base"), "records"),
        (lambda t, r: r[0].update(format=99), "records"),
        (lambda t, r: r.append("dog"), "records"),
    ],
)
def test_a_doctored_bundle_is_refused(change: Any, words: str, concepts: list[Bundled]) -> None:
    assert words in refused(altered(pack_bundle(concepts), change))


def test_what_is_newer_asks_for_a_newer_program(concepts: list[Bundled]) -> None:
    content = pack_bundle(concepts)
    for newer in (
        altered(content, lambda t, r: r[0].update(format=99)),
        write_tensors(load(content), {MARK: "2"}),
    ):
        with pytest.raises(CidmError) as caught:
            read_bundle(newer, "x")
        assert caught.value.hint == "update cidm"


def test_a_bundle_of_the_first_version_lists_the_older_concepts(concepts: list[Bundled]) -> None:
    dog, fox = (one.record for one in concepts)

    def age(tensors: Any, records: Any) -> None:
        for entry, parents in zip(records, ([], [dog.blob]), strict=True):
            entry["format"] = 1
            del entry["concept"]["against"]
            entry["concept"]["parents"] = parents

    first, second = read_bundle(altered(pack_bundle(concepts), age), "x")
    assert first.record == dog
    assert second.record == replace(fox, against=Against.of([dog], 1))


def test_a_bundle_of_a_newer_format_is_refused(concepts: list[Bundled]) -> None:
    assert "'2'" in refused(write_tensors(load(pack_bundle(concepts)), {MARK: "2"}))


def test_records_that_are_no_json_are_refused(concepts: list[Bundled]) -> None:
    for raw in (b"{", b"[" * 50_000, b"\xff"):
        tensors = load(pack_bundle(concepts))
        tensors["records"] = torch.tensor(list(raw), dtype=torch.uint8)
        assert "records" in refused(write_tensors(tensors, {MARK: "1"}))


def test_one_file_may_serve_two_concepts(concepts: list[Bundled]) -> None:
    dog = concepts[0]
    twin = Bundled(replace(dog.record, name="twin", key="twin", sequence=9, origin=9), dog.blob, dog.preview)
    content = pack_bundle([dog, twin])
    assert [one.record.name for one in read_bundle(content, "x")] == ["dog", "twin"]
    assert len(load(content)) == 3
    assert hashlib.sha256(dog.blob).hexdigest() == dog.record.blob
