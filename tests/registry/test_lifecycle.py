"""Learning, updating, renaming, removing, collecting: what the registry promises when nothing goes wrong."""

import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cidm_registry import (
    Against,
    Conflict,
    Damaged,
    Draft,
    Exists,
    Invalid,
    InvalidName,
    NotFound,
    Registry,
)
from cidm_registry.records import encode
from cidm_registry.strict_json import hash_of
from registry_support import BASE, DRAFT, PNG, HookedDisk, add, files_of, make_draft, make_weights


def test_a_committed_concept_reads_back_as_it_was_returned(registry: Registry) -> None:
    draft = make_draft("Déjà-vu", config={"steps": 5, "nested": {"box": (1, 2)}}, extra={"note": "ünï"})
    record = registry.commit(draft, make_weights(1), expected_head=0, preview=PNG)
    assert Registry.open(registry.root).get("déjà-VU") == record
    assert record.name == "Déjà-vu"
    assert record.key == "déjà-vu"
    assert (record.sequence, record.version, record.origin) == (1, 1, 1)
    assert record.base == BASE.fingerprint
    assert record.config["nested"] == {"box": [1, 2]}
    assert record.config_hash == hash_of(draft.config)
    assert registry.read_blob(record.blob) == make_weights(1)
    assert record.preview is not None
    assert registry.read_blob(record.preview) == PNG
    assert json.loads(json.dumps(record.to_json()))["tokens"] == list(DRAFT.tokens)


def test_learning_changes_no_byte_of_older_concepts(copies: Callable[[], Path]) -> None:
    root = copies()
    before = files_of(root)
    add(Registry.open(root), "bird", 9)
    assert {name: content for name, content in files_of(root).items() if name in before} == before
    assert len(files_of(root)) == len(before) + 2


def test_order_is_the_number_also_when_the_clock_runs_backwards(registry: Registry) -> None:
    class Backwards(HookedDisk):
        clock = 1_000_000.0

        def now(self) -> float:
            self.clock -= 3600
            return self.clock

    strange = Registry.open(registry.root, disk=Backwards())
    for number, name in enumerate(("zebra", "ant", "mole")):
        add(strange, name, number)
    records = registry.records()
    assert [one.name for one in records] == ["zebra", "ant", "mole"]
    assert [one.created for one in records] == sorted((one.created for one in records), reverse=True)


@pytest.mark.parametrize("clock", [433_800_000_000.0, -9e15, 1e300])
def test_a_clock_thousands_of_years_off_stops_nothing(clock: float, registry: Registry) -> None:
    class Off(HookedDisk):
        def now(self) -> float:
            return clock

    off = Registry.open(registry.root, disk=Off())
    record = add(off, "dog", 1)
    assert datetime.fromisoformat(record.created) == datetime.fromisoformat(registry.get("dog").created)
    off.rename("dog", "cat")
    off.start_run({"key": "bird"})
    assert registry.find_run("bird") is not None
    assert registry.verify() == []


def test_a_record_is_as_small_after_a_thousand_as_after_one(registry: Registry) -> None:
    sizes = []
    for count in (1, 1000):
        record = add(registry, f"c{count}", count)
        older = [replace(record, blob=f"{number:064x}") for number in range(count)]
        sizes.append(len(encode(replace(record, against=Against.of(older, 0)))))
    assert sizes[1] - sizes[0] < 10


def test_an_update_is_a_new_version_and_the_old_one_stays_readable(registry: Registry) -> None:
    first = add(registry, "dog", 1)
    add(registry, "cat", 2)
    second = add(registry, "DOG", 3, update=True)
    assert (second.version, second.sequence, second.origin) == (2, 3, 1)
    assert [(one.name, one.version) for one in registry.records()] == [("cat", 1), ("DOG", 2)]
    assert [one.sequence for one in registry.records(all_versions=True)] == [1, 2, 3]
    assert registry.read_blob(first.blob) == make_weights(1)
    registry.gc(grace=0.0)
    assert registry.read_blob(first.blob) == make_weights(1), "older versions are alive"


def test_an_existing_name_needs_update(registry: Registry) -> None:
    add(registry, "dog", 1)
    before = files_of(registry.root)
    for name in ("dog", "Dog", "DOG"):
        with pytest.raises(Exists, match="'dog'"):
            add(registry, name, 2)
    assert files_of(registry.root) == before


def test_composed_and_decomposed_spellings_are_one_name(registry: Registry) -> None:
    add(registry, "caf\u00e9", 1)
    with pytest.raises(Exists):
        add(registry, "cafe\u0301", 2)
    assert registry.get("cafe\u0301").name == "caf\u00e9"


def test_a_commit_against_an_older_state_is_a_conflict_and_writes_nothing(registry: Registry) -> None:
    add(registry, "dog", 1)
    before = files_of(registry.root)
    with pytest.raises(Conflict, match="'dog' was added"):
        registry.commit(make_draft("cat"), make_weights(2), expected_head=0)
    assert files_of(registry.root) == before


def test_a_removal_meanwhile_is_no_conflict(registry: Registry) -> None:
    add(registry, "dog", 1)
    head = registry.head()
    registry.remove("dog")
    assert registry.commit(make_draft("cat"), make_weights(2), expected_head=head).sequence == 2


BAD_DRAFTS: dict[str, dict[str, Any]] = {
    "config with NaN": {"config": {"loss": float("nan")}},
    "config with an object": {"config": {"path": Path()}},
    "losses with infinity": {"losses": {"last": float("inf")}},
    "huge extra": {"extra": {"text": "x" * 1_000_001}},
    "rank of text": {"rank": "4"},
    "rank below zero": {"rank": -1},
    "rank true": {"rank": True},
    "scale NaN": {"scale": float("nan")},
    "style of text": {"style": "yes"},
    "token with a space": {"tokens": ("a b",)},
    "token with an escape": {"tokens": ("\x1b[31m",)},
    "hash that is a path": {"against": Against(0, 0, "../../etc/passwd")},
    "learned against what comes later": {"against": Against(7, 0, "0" * 64)},
    "config deeper than can be read back": {
        "config": {"deep": functools.reduce(lambda v, _: [v], range(70), 0)}
    },
    "scale of 400 digits": {"scale": 10**400},
    "seed of 400 digits": {"config": {"seed": 10**400}},
    "class of two lines": {"class_noun": "dog\ncat"},
    "config that is no mapping": {"config": [1]},
}


@pytest.mark.parametrize("what", BAD_DRAFTS)
def test_a_draft_that_cannot_be_stored_is_refused_and_nothing_is_written(
    what: str, registry: Registry
) -> None:
    with pytest.raises(Invalid, match="dog"):
        registry.commit(make_draft("dog", **BAD_DRAFTS[what]), make_weights(1), expected_head=0)
    assert set(files_of(registry.root)) == {"registry.json"}


def test_renaming_keeps_bytes_order_and_versions(copies: Callable[[], Path]) -> None:
    root = copies()
    before = files_of(root)
    registry = Registry.open(root)
    record = registry.rename("DOG", "Wolf-Hound")
    assert (record.name, record.key, record.sequence, record.version) == ("Wolf-Hound", "wolf-hound", 5, 2)
    assert registry.get("wolf-hound") == record
    assert [one.name for one in registry.records(all_versions=True)] == ["Wolf-Hound", "cat", "Wolf-Hound"]
    with pytest.raises(NotFound):
        registry.get("dog")
    assert {name: files_of(root)[name] for name in before} == before
    assert add(registry, "dog", 9).version == 1, "the old name is free again"
    assert registry.verify() == []


def test_renaming_may_change_only_the_case_and_back(registry: Registry) -> None:
    add(registry, "dog", 1)
    assert registry.rename("dog", "Dog").name == "Dog"
    head = registry.head()
    assert registry.rename("dog", "Dog").name == "Dog"
    assert registry.head() == head, "nothing to do writes nothing"
    assert registry.rename("dog", "dog").name == "dog"


def test_renaming_refuses_taken_unknown_and_impossible_names(registry: Registry) -> None:
    add(registry, "dog", 1)
    add(registry, "cat", 2)
    before = files_of(registry.root)
    with pytest.raises(Exists):
        registry.rename("dog", "CAT")
    with pytest.raises(NotFound):
        registry.rename("bird", "fish")
    with pytest.raises(InvalidName):
        registry.rename("dog", "../cat")
    assert files_of(registry.root) == before


def test_an_unknown_name_gets_a_suggestion(registry: Registry) -> None:
    add(registry, "Labrador", 1)
    with pytest.raises(NotFound, match="labradro") as caught:
        registry.get("labradro")
    assert caught.value.hint == "did you mean 'Labrador'?"
    with pytest.raises(NotFound) as caught:
        registry.get("xyz")
    assert "cidm list" in (caught.value.hint or "")


def test_removing_takes_all_versions_and_frees_only_what_nobody_shares(registry: Registry) -> None:
    add(registry, "dog", 1)
    dog = add(registry, "dog", 2, update=True)
    shared = add(registry, "copy", 1)
    draft = make_draft("cat", against=Against.of(registry.records(), registry.head()))
    registry.commit(draft, make_weights(3), expected_head=registry.head())
    plan = registry.remove_plan("dog")
    assert [one.version for one in plan.records] == [1, 2]
    assert [path.name for path in plan.files] == [dog.blob]
    assert plan.size == len(make_weights(2))
    assert plan.dependents == ("cat",)
    assert registry.remove("dog") == plan
    assert [one.name for one in registry.records(all_versions=True)] == ["copy", "cat"]
    assert registry.gc(grace=0.0).files == plan.files
    assert registry.read_blob(shared.blob) == make_weights(1)
    assert registry.verify() == []


def test_a_removed_number_is_never_used_again(registry: Registry) -> None:
    add(registry, "dog", 1)
    add(registry, "cat", 2)
    registry.remove("cat")
    registry.gc(grace=0.0)
    assert registry.head() == 2
    assert add(registry, "cat", 3).sequence == 3
    names = sorted(path.name for path in (registry.root / "concepts").iterdir())
    assert names == ["000001.json", "000002.removed", "000003.json"]


def test_what_was_removed_comes_back_as_it_was(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    before = registry.records(all_versions=True)
    files = {name: data for name, data in files_of(registry.root).items() if name.startswith("concepts/")}
    registry.remove("dog")
    registry.remove("cat")
    assert [one.name for one in registry.removed()] == ["cat", "gone", "dog"]
    assert registry.restore("DOG") == before[-1]
    assert registry.restore("cat").preview == before[1].preview
    assert registry.records(all_versions=True) == before
    after = files_of(registry.root)
    assert {name: after[name] for name in files} == files, "the records keep every byte"
    assert [one.name for one in registry.removed()] == ["gone"]
    registry.gc(grace=0.0)
    assert registry.verify() == []
    assert registry.records(all_versions=True) == before


def test_it_can_be_removed_brought_back_and_renamed_again_and_again(registry: Registry) -> None:
    add(registry, "dog", 1)
    for _ in range(3):
        registry.rename("dog", "hound")
        registry.remove("hound")
        assert registry.restore("hound").sequence == 1
        registry.rename("hound", "dog")
        registry.remove("dog")
        assert registry.restore("dog").sequence == 1
    assert [one.name for one in registry.records()] == ["dog"]
    assert registry.verify() == []


def test_of_several_removed_ones_of_a_name_the_last_learned_comes_back_first(registry: Registry) -> None:
    for seed in (1, 2):
        add(registry, "dog", seed)
        registry.remove("dog")
    assert [one.sequence for one in registry.removed()] == [1, 2]
    assert registry.restore("dog").sequence == 2
    before = files_of(registry.root)
    with pytest.raises(Exists, match="dog") as caught:
        registry.restore("dog")
    assert "cidm rename" in (caught.value.hint or "")
    assert files_of(registry.root) == before
    registry.rename("dog", "hound")
    assert registry.restore("dog").sequence == 1
    assert registry.verify() == []


def test_nothing_comes_back_without_its_weights(registry: Registry) -> None:
    add(registry, "dog", 1)
    old = add(registry, "cat", 2)
    add(registry, "cat", 3, update=True)
    registry.remove("dog")
    registry.remove("cat")
    registry.blob_path(old.blob).unlink()
    assert registry.restore("cat").version == 2
    assert [one.version for one in registry.records(all_versions=True)] == [2], (
        "the older one lost its weights"
    )
    assert registry.verify() == []
    damaged = registry.blob_path(registry.removed()[0].blob)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(Damaged):
        registry.restore("dog")
    assert [one.name for one in registry.records()] == ["cat"]
    registry.gc(grace=0.0)
    assert registry.removed() == []
    with pytest.raises(NotFound, match="dog") as caught:
        registry.restore("dog")
    assert "cidm restore" in (caught.value.hint or "")


def test_gc_leaves_alone_what_was_just_brought_back(registry: Registry) -> None:
    dog = add(registry, "dog", 1)
    registry.remove("dog")
    age(registry.blob_path(dog.blob), 1e6)
    registry.restore("dog")
    assert registry.gc().files == ()
    registry.remove("dog")
    assert registry.gc().files == (), "its age counts from when it was brought back"


def test_removing_what_is_not_there_says_so(registry: Registry) -> None:
    with pytest.raises(NotFound):
        registry.remove("dog")
    with pytest.raises(NotFound):
        registry.remove_plan("dog")


def test_scores_are_added_by_name_and_a_preview_is_kept(registry: Registry) -> None:
    record = add(registry, "dog", 1)
    registry.rename("dog", "hound")
    record = registry.annotate(record, scores={"ia": 0.5, "ta": 0.3})
    record = registry.annotate(registry.get("hound"), scores={"ia": 0.6}, preview=PNG)
    assert record == registry.get("hound")
    assert record.scores == {"ia": 0.6, "ta": 0.3}
    assert record.preview is not None
    registry.gc(grace=0.0)
    assert registry.read_blob(record.preview) == PNG
    assert registry.head() == 2
    with pytest.raises(Invalid):
        registry.annotate(record, scores={"ia": float("nan")})
    assert registry.get("hound") == record
    assert registry.verify() == []


def test_annotating_a_record_that_is_gone_or_another_is_refused(registry: Registry) -> None:
    dog, cat = add(registry, "dog", 1), add(registry, "cat", 2)
    registry.remove("dog")
    with pytest.raises(NotFound):
        registry.annotate(dog, scores={"ia": 1.0})
    (registry.root / "concepts" / "000002.json").write_bytes(
        (registry.root / "concepts" / "000002.json")
        .read_bytes()
        .replace(cat.blob.encode(), dog.blob.encode())
    )
    with pytest.raises(Conflict):
        registry.annotate(cat, scores={"ia": 1.0})


def age(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_gc_leaves_young_leftovers_alone_and_takes_old_ones(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    root = registry.root
    lost = registry.remove_plan("cat").files
    registry.remove("cat")
    run = registry.runs()[0]
    leftovers = [
        root / "blobs" / ".tmp-1",
        root / "concepts" / ".tmp-2",
        root / ".tmp-3",
        run.path / ".tmp-4",
    ]
    for path in leftovers:
        path.write_bytes(b"half")
    (root / "runs" / ".tmp-5").mkdir()
    leftovers.append(root / "runs" / ".tmp-5")
    for path in (*lost, *leftovers):
        age(path, 3000)
    assert registry.gc().files == ()
    assert registry.gc_plan().waiting == len(lost) + len(leftovers) + 1  # and what the fixture removed
    assert all(path.exists() for path in (*lost, *leftovers))
    for path in (*lost, *leftovers):
        age(path, 4000)
    assert set(registry.gc_plan().files) >= {*lost, *leftovers}
    assert set(registry.gc().files) >= {*lost, *leftovers}
    assert not any(path.exists() for path in (*lost, *leftovers))
    assert run.latest() is not None, "a training run in progress is not garbage"
    assert registry.verify() == []


def test_gc_does_not_touch_files_it_does_not_know(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    foreign = [
        registry.root / "README.txt",
        registry.root / "blobs" / "notes",
        registry.root / "runs" / "mine",
    ]
    for path in foreign:
        path.write_text("hands off")
        age(path, 1e6)
    registry.gc(grace=0.0, runs=True)
    assert all(path.exists() for path in foreign)


def test_gc_takes_training_runs_only_when_asked(copies: Callable[[], Path]) -> None:
    registry = Registry.open(copies())
    registry.gc(grace=0.0)
    assert len(registry.runs()) == 1
    registry.gc(grace=3600.0, runs=True)
    assert len(registry.runs()) == 1, "it may be running right now"
    plan = registry.gc(grace=0.0, runs=True)
    assert registry.runs() == []
    assert plan.size >= len(make_weights(50))


def test_a_blob_set_aside_by_an_interrupted_gc_comes_back(registry: Registry) -> None:
    dog = add(registry, "dog", 1)
    path = registry.blob_path(dog.blob)
    path.rename(path.with_name(".trash-" + path.name))
    problems = registry.verify()
    assert "cidm gc" in (problems[0].hint or "")
    registry.gc()
    assert registry.read_blob(dog.blob) == make_weights(1)


def test_a_thousand_records_are_listed_in_a_blink(registry: Registry) -> None:
    add(registry, "c1", 1)
    template = (registry.root / "concepts" / "000001.json").read_text()
    for number in range(2, 1001):
        text = template.replace('"c1"', f'"c{number}"')
        text = text.replace('"sequence": 1,', f'"sequence": {number},').replace(
            '"origin": 1,', f'"origin": {number},'
        )
        (registry.root / "concepts" / f"{number:06d}.json").write_text(text)
    started = time.process_time()
    assert len(registry.records()) == 1000
    assert time.process_time() - started < 1.0


def test_every_field_of_a_draft_is_in_the_record(registry: Registry) -> None:
    record = add(registry, "dog", 1)
    for name in Draft.__dataclass_fields__:
        assert getattr(record, name) == getattr(make_draft("dog"), name)
