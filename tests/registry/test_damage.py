"""Whatever happened to the files, damage is found, named, kept to itself, and never made worse."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cidm_registry import BaseRef, Conflict, Damaged, Invalid, NewerFormat, NotFound, Registry
from registry_support import BASE, PNG, add, files_of, make_draft, make_weights


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit flipped": flip,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_blob_is_refused_and_named_and_healed_by_the_same_content(
    damage: str, copies: Callable[[], Path]
) -> None:
    registry = Registry.open(copies())
    cat = registry.get("cat")
    path = registry.blob_path(cat.blob)
    DAMAGES[damage](path)
    with pytest.raises(Damaged) as caught:
        registry.read_blob(cat.blob)
    assert str(path) in caught.value.message
    problems = registry.verify()
    assert [problem.path for problem in problems] == [path]
    assert "'cat'" in problems[0].message
    assert registry.read_blob(registry.get("dog").blob) == make_weights(4), "the others are untouched"
    if not path.is_dir():
        add(registry, "cat-again", 2)
        assert registry.verify() == []


def test_a_damaged_parent_refuses_the_commit_before_anything_is_written(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    cat = registry.get("cat")
    flip(registry.blob_path(cat.blob))
    before = files_of(registry.root)
    with pytest.raises(Damaged, match=cat.blob):
        registry.commit(
            make_draft("bird", parents=(cat.blob,)), make_weights(9), expected_head=registry.head()
        )
    assert files_of(registry.root) == before


def test_a_parent_that_was_removed_meanwhile_does_not_refuse_the_commit(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    cat, head = registry.get("cat"), registry.head()
    registry.remove("cat")
    registry.gc(grace=0.0)
    registry.commit(make_draft("bird", parents=(cat.blob,)), make_weights(9), expected_head=head)
    assert registry.verify() == []


def edited(path: Path, **changes: object) -> bytes:
    content = json.loads(path.read_bytes())
    content["concept"].update(changes)
    return json.dumps(content).encode()


RECORDS: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda path: b"",
    "zeroed": lambda path: bytes(path.stat().st_size),
    "cut off": lambda path: path.read_bytes()[:-10],
    "not JSON": lambda path: b"\x80\x04 pickled",
    "deeply nested": lambda path: b"[" * 100_000,
    "huge": lambda path: path.read_bytes() + b" " * 2_000_000,
    "a list": lambda path: b"[]",
    "neither": lambda path: b'{"format": 1}',
    "another number": lambda path: edited(path, sequence=7),
    "number as text": lambda path: edited(path, sequence="2"),
    "a hostile blob": lambda path: edited(path, blob="../../etc/passwd"),
    "a hostile name": lambda path: edited(path, name="../cat", key="../cat"),
    "another key": lambda path: edited(path, key="dog"),
    "tokens as text": lambda path: edited(path, tokens="<cat>"),
    "no number in the settings": lambda path: edited(path, config={"options": {"lr": float("nan")}}),
    "infinite scale": lambda path: edited(path, scale=float("inf")),
    "escape in the class": lambda path: edited(path, class_noun="\x1b[2J"),
    "newer": lambda path: path.read_bytes().replace(b'"format": 1', b'"format": 2'),
}


@pytest.mark.parametrize("damage", RECORDS)
def test_an_unreadable_record_is_quarantined_the_rest_listed_and_gc_refuses(
    damage: str, copies: Callable[[], Path]
) -> None:
    root = copies()
    path = root / "concepts" / "000002.json"
    path.write_bytes(RECORDS[damage](path))
    registry = Registry.open(root)
    assert [one.name for one in registry.records()] == ["dog"]
    assert [problem.path for problem in registry.problems()] == [path]
    with pytest.raises(NotFound, match="cat") as caught:
        registry.get("cat")
    assert "cidm verify" in (caught.value.hint or "")
    assert path in [problem.path for problem in registry.verify()]
    before = files_of(root)
    for collecting in (registry.gc_plan, registry.gc):
        with pytest.raises(Damaged, match="nothing was deleted") as refused:
            collecting(grace=0.0)
        assert str(path) in refused.value.message
    assert files_of(root) == before
    assert add(registry, "bird", 9).sequence == 6, "learning goes on"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_a_fifo_in_place_of_a_file_does_not_hang(copies: Callable[[], Path]) -> None:
    root = copies()
    registry = Registry.open(root)
    blob = registry.blob_path(registry.get("cat").blob)
    for path in (blob, root / "concepts" / "000002.json"):
        path.unlink()
        os.mkfifo(path)
    assert [one.name for one in registry.records()] == ["dog"]
    with pytest.raises(Damaged, match="not an ordinary file"):
        registry.read_blob(blob.name)
    head = root / "registry.json"
    head.unlink()
    os.mkfifo(head)
    with pytest.raises(Damaged, match=r"registry\.json"):
        Registry.open(root)


def test_an_unreadable_newer_entry_stops_a_commit_that_did_not_know_it(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    head = registry.head()
    (registry.root / "concepts" / f"{head + 1:06d}.json").write_bytes(b"")
    with pytest.raises(Conflict, match=str(head + 1)):
        registry.commit(make_draft("bird"), make_weights(9), expected_head=head)


def test_an_unreadable_change_of_name_brings_the_old_name_back(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    registry.rename("cat", "kitty")
    (registry.root / "concepts" / "000006.json").write_bytes(b"")
    assert registry.get("cat").sequence == 2
    assert len(registry.problems()) == 1


def test_settings_changed_afterwards_are_found(copies: Callable[[], Path]) -> None:
    root = copies()
    path = root / "concepts" / "000002.json"
    path.write_bytes(edited(path, config={"steps": 1}))
    problems = Registry.open(root).verify()
    assert [(problem.path, "settings" in problem.message) for problem in problems] == [(path, True)]


def test_a_concept_of_another_base_is_found(copies: Callable[[], Path]) -> None:
    root = copies()
    path = root / "concepts" / "000002.json"
    path.write_bytes(edited(path, base="0" * 64))
    assert [problem.message for problem in Registry.open(root).verify()] == ["'cat' belongs to another base"]


def test_two_concepts_of_one_name_are_found_and_the_newer_counts(copies: Callable[[], Path]) -> None:
    root = copies()
    restored = edited(root / "concepts" / "000002.json", sequence=3, origin=3)
    (root / "concepts" / "000003.removed").unlink()
    (root / "concepts" / "000003.json").write_bytes(restored)
    registry = Registry.open(root)
    assert registry.get("cat").sequence == 3
    assert [problem.path.name for problem in registry.verify()] == ["000002.json"]


HEADS: dict[str, tuple[bytes | None, type[Exception]]] = {
    "missing": (None, NotFound),
    "empty": (b"", Damaged),
    "not JSON": (b"{", Damaged),
    "a list": (b"[]", Damaged),
    "no base": (b'{"format": 1}', Damaged),
    "base of numbers": (b'{"format": 1, "base": {"kind": 1, "source": 2, "fingerprint": 3}}', Damaged),
    "format of text": (b'{"format": "1", "base": {}}', Damaged),
    "format of nothing": (b'{"format": true, "base": {}}', Damaged),
    "newer": (b'{"format": 2, "base": "of another shape"}', NewerFormat),
}


@pytest.mark.parametrize("damage", HEADS)
def test_a_registry_that_cannot_be_understood_is_refused_untouched(
    damage: str, copies: Callable[[], Path]
) -> None:
    root = copies()
    content, error = HEADS[damage]
    if content is None:
        (root / "registry.json").unlink()
    else:
        (root / "registry.json").write_bytes(content)
    before = files_of(root)
    with pytest.raises(error, match="registry"):
        Registry.open(root)
    assert files_of(root) == before


def test_making_a_registry_refuses_folders_that_hold_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(Invalid, match=r"thesis\.tex"):
        Registry.create(tmp_path, BASE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(Invalid, match="not a folder"):
        Registry.create(tmp_path / "thesis.tex", BASE)


def test_a_registry_keeps_its_base(tmp_path: Path) -> None:
    base = BaseRef("sd", "/models/some folder", "a" * 64)
    Registry.create(tmp_path / "deep" / "down", base)
    assert Registry.open(tmp_path / "deep" / "down").base == base


@pytest.mark.parametrize("preview", [b"", b"GIF89a", b"<svg onload=alert(1)>", PNG + bytes(20_000_001)])
def test_a_preview_must_be_a_picture_of_bearable_size(preview: bytes, registry: Registry) -> None:
    with pytest.raises(Invalid, match="preview"):
        add(registry, "dog", 1, preview=preview)
    assert registry.head() == 0
    assert list((registry.root / "blobs").iterdir()) == []
