"""Whatever happened to the files, damage is found, named, kept to itself, and never made worse."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cidm_registry import Against, BaseRef, Conflict, Damaged, Invalid, NewerFormat, NotFound, Registry
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
    draft = make_draft("bird", against=Against.of(registry.records(), registry.head()))
    with pytest.raises(Damaged, match=cat.blob):
        registry.commit(draft, make_weights(9), expected_head=registry.head())
    assert files_of(registry.root) == before


def test_a_parent_that_was_removed_meanwhile_does_not_refuse_the_commit(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    head = registry.head()
    draft = make_draft("bird", against=Against.of(registry.records(), head))
    registry.remove("cat")
    registry.gc(grace=0.0)
    registry.commit(draft, make_weights(9), expected_head=head)
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
    "newer": lambda path: path.read_bytes().replace(b'"format": 2', b'"format": 3'),
    "scale of 400 digits": lambda path: edited(path, scale=10**400),
    "learned against itself": lambda path: edited(
        path, against={"sequence": 2, "count": 1, "digest": "0" * 64}
    ),
    "against a list": lambda path: edited(path, against=["0" * 64]),
    "a number no float holds": lambda path: path.read_bytes().replace(b'"steps": 800', b'"steps": 1e999'),
    "settings 900 deep": lambda path: path.read_bytes().replace(b"800", b"[" * 900 + b"]" * 900),
    "no UTF-8": lambda path: path.read_bytes().replace(b"dog", b"d\xffg"),
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
    assert [problem.path for problem in registry.listing()[1]] == [path]
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


@pytest.mark.parametrize("damage", RECORDS)
def test_the_name_of_an_unreadable_record_stays_taken(damage: str, copies: Callable[[], Path]) -> None:
    root = copies()
    path = root / "concepts" / "000002.json"
    path.write_bytes(RECORDS[damage](path))
    registry = Registry.open(root)
    assert "'cat'" in registry.listing()[1][0].message, "the entry behind it, though removed, tells its name"
    before = files_of(root)
    for write in (
        lambda: add(registry, "Cat", 9),
        lambda: add(registry, "cat", 9, update=True),
        lambda: registry.rename("dog", "CAT"),
        lambda: registry.check_free("cat"),
    ):
        with pytest.raises(Damaged, match=rf"(?i)'cat' is taken: {path}") as caught:
            write()
        assert caught.value.hint == registry.listing()[1][0].hint
    assert files_of(root) == before
    assert registry.rename("dog", "wolf").name == "wolf", "others go on"


def test_the_name_that_an_unreadable_record_was_given_later_is_taken(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    registry.rename("cat", "kitty")
    (registry.root / "concepts" / "000002.json").write_bytes(b"")
    with pytest.raises(Damaged, match="'kitty' is taken"):
        add(registry, "kitty", 9)
    assert add(registry, "cat", 9).version == 1


def test_nothing_tells_the_name_of_the_newest_record_so_no_name_is_given_away(
    copies: Callable[[], Path],
) -> None:
    registry = Registry.open(copies())
    add(registry, "bird", 9)
    newest = registry.root / "concepts" / "000006.json"
    newest.write_bytes(b"")
    for write in (lambda: add(registry, "fish", 10), lambda: registry.rename("cat", "fish")):
        with pytest.raises(Damaged, match=f"'fish' may be taken: {newest}"):
            write()
    registry.annotate(registry.get("cat"), scores={"ia": 1.0})
    newest.rename(newest.with_suffix(".removed"))
    assert add(registry, "fish", 10).sequence == 7


def test_what_is_meant_to_hold_all_concepts_is_refused_while_one_cannot_be_read(
    copies: Callable[[], Path],
) -> None:
    registry = Registry.open(copies())
    assert [one.name for one in registry.chosen([])] == ["cat", "dog"]
    (registry.root / "concepts" / "000002.json").write_bytes(b"")
    with pytest.raises(Damaged, match=r"000002\.json") as caught:
        registry.chosen([])
    assert "name the concepts" in (caught.value.hint or "")
    assert [one.name for one in registry.chosen(["DOG", "dog"])] == ["dog"]
    with pytest.raises(NotFound):
        registry.chosen(["cat"])


def test_what_is_left_out_is_told_once(copies: Callable[[], Path]) -> None:
    root = copies()
    (root / "concepts" / "000002.json").write_bytes(b"")
    told: list[str] = []
    registry = Registry.open(root, tell=told.append)
    registry.records()
    registry.get("dog")
    registry.rename("dog", "wolf")
    assert len(told) == 1
    assert "000002.json" in told[0]
    assert "'cat'" in told[0]
    told.clear()
    Registry.open(root, tell=told.append).listing()
    assert told == [], "a caller that is given the problems tells them itself"


def test_a_newer_record_is_kept_for_a_newer_program(copies: Callable[[], Path]) -> None:
    root = copies()
    path = root / "concepts" / "000002.json"
    newer = edited(path, tools={"cidm": "9.1.0"}, of_another_shape=[1]).replace(
        b'"format": 2', b'"format": 3'
    )
    path.write_bytes(newer)
    (problem,) = Registry.open(root).listing()[1]
    assert "by cidm 9.1.0" in problem.message
    assert problem.hint == "update cidm"


def test_an_older_concept_whose_record_says_other_weights_now_refuses_the_commit(
    copies: Callable[[], Path],
) -> None:
    registry = Registry.open(copies())
    head = registry.head()
    draft = make_draft("bird", against=Against.of(registry.records(), head))
    path = registry.root / "concepts" / "000002.json"
    path.write_bytes(edited(path, blob=registry.get("dog").blob))
    before = files_of(registry.root)
    with pytest.raises(Conflict, match="an older concept is another"):
        registry.commit(draft, make_weights(9), expected_head=head)
    assert files_of(registry.root) == before


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
    assert len(registry.listing()[1]) == 1


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
    "newer": (b'{"format": 3, "base": "of another shape"}', NewerFormat),
    "format of 400 digits": (b'{"format": 1' + b"0" * 400 + b"}", Damaged),
    "nested": (b'{"format": 2, "base": ' + b"[" * 900 + b"]" * 900 + b"}", Damaged),
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
