"""An older registry is read as it lies, and brought up to today's format by the first that writes, after a copy."""

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cidm_registry import Against, Damaged, NewerFormat, Registry, RegistryError, digest_of
from cidm_registry.strict_json import hash_of
from registry_support import (
    READS,
    DyingDisk,
    FailingDisk,
    HookedDisk,
    Killed,
    add,
    files_of,
    make_draft,
    make_weights,
)

WRITING = ("create", "write", "fsync", "replace", "link", "sync_folder")

CHANGES: dict[str, Callable[[Registry], Any]] = {
    "commit": lambda r: add(r, "bird", 9),
    "rename": lambda r: r.rename("cat", "kitty"),
    "remove": lambda r: r.remove("dog"),
    "annotate": lambda r: r.annotate(r.get("cat"), scores={"ia": 0.8}),
    "gc": lambda r: r.gc(grace=0.0),
    "start run": lambda r: r.start_run({"key": "bird", "steps": 5}),
}

PARENTS: dict[int, tuple[int, ...]] = {2: (1,), 3: (1, 2), 5: (1, 2)}
"""By number, what each of the furnished registry's records was learned against."""


def aged(root: Path) -> Path:
    """A furnished registry as the first version wrote it: each record lists the blobs of all older ones, twice."""
    files = sorted((root / "concepts").iterdir())
    blobs = {
        number: content["concept"]["blob"] for number, content in _contents(files) if "concept" in content
    }
    for path, (number, content) in zip(files, _contents(files), strict=True):
        del content["previous"]
        content["format"] = 1
        if concept := content.get("concept"):
            del concept["against"]
            concept["parents"] = [blobs[parent] for parent in PARENTS.get(number, ())]
            concept["config"]["parents"] = concept["parents"]
            concept["config_hash"] = hash_of(concept["config"])
        path.write_text(json.dumps(content, indent=1))
    head = json.loads((root / "registry.json").read_text())
    (root / "registry.json").write_text(json.dumps({**head, "format": 1}, indent=1))
    return root


def _contents(files: list[Path]) -> list[tuple[int, dict[str, Any]]]:
    return [(int(path.stem), json.loads(path.read_text())) for path in files]


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncs are still counted and made to fail, but the machine is spared them: there are thousands here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def old(copies: Callable[[], Path], tmp_path: Path) -> Callable[[], Path]:
    """Makes one fresh copy of the registry of format 1 after the other."""
    first = aged(copies())
    made = iter(range(10_000))

    def copy() -> Path:
        return Path(shutil.copytree(first, tmp_path / f"old{next(made)}", symlinks=True))

    return copy


def formats(root: Path) -> set[int]:
    """Of the head and of every entry, removed ones too."""
    files = [root / "registry.json", *(root / "concepts").glob("0*")]
    return {json.loads(path.read_text())["format"] for path in files}


def test_readers_read_it_as_it_lies(old: Callable[[], Path]) -> None:
    disk = HookedDisk()

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        assert name in READS, f"a reader called {name}"

    disk.hook = hook
    root = old()
    registry = Registry.open(root, disk=disk)
    dog, older = registry.get_with_older("dog")
    cat = registry.get("cat")
    assert [one.name for one in registry.records()] == ["cat", "dog"]
    assert cat.against == Against(1, 1, digest_of([registry.records(all_versions=True)[0].blob]))
    assert (dog.against.sequence, dog.against.count) == (4, 2)
    assert [(one.name, one.version) for one in older] == [("dog", 1), ("cat", 1)]
    assert "parents" not in dog.config
    assert registry.verify() == []
    assert registry.gc_plan(grace=0.0).records == ()
    assert registry.remove_plan("cat").dependents == ("dog",)


@pytest.mark.parametrize("change", CHANGES)
def test_the_first_that_writes_migrates_after_a_copy_and_says_so(
    change: str, old: Callable[[], Path]
) -> None:
    root = old()
    before = files_of(root)
    records = Registry.open(root).records(all_versions=True)
    told: list[str] = []
    CHANGES[change](Registry.open(root, tell=told.append))
    assert formats(root) == {2}
    (copy,) = root.glob("format-1-*.zip")
    assert len(told) == 1
    assert str(copy) in told[0]
    with zipfile.ZipFile(copy) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    assert kept == {
        name: content for name, content in before.items() if name.split("/")[0] not in ("blobs", "runs")
    }
    registry = Registry.open(root)
    assert registry.verify() == []
    if change in ("commit", "gc", "start run"):
        assert registry.records(all_versions=True)[:3] == records, "what was read before is what was written"
    assert b"parents" not in b"".join(path.read_bytes() for path in (root / "concepts").iterdir())
    add(Registry.open(root, tell=told.append), "more", 77)
    assert len(told) == 1, "once"


def test_the_copy_put_back_is_the_registry_as_it_was(old: Callable[[], Path]) -> None:
    root = old()
    before = files_of(root)
    add(Registry.open(root), "bird", 9)
    (copy,) = root.glob("format-1-*.zip")
    shutil.rmtree(root / "concepts")
    with zipfile.ZipFile(copy) as archive:
        archive.extractall(root)
    copy.unlink()
    assert before.items() <= files_of(root).items()


@pytest.mark.parametrize("late", [False, True], ids=["before", "behind"])
def test_killed_at_any_step_everything_can_be_read_and_the_next_writer_finishes(
    late: bool, old: Callable[[], Path]
) -> None:
    root = old()
    first = files_of(root)
    whole = Registry.open(root).listing(all_versions=True)
    step = 0
    while True:
        step += 1
        root = old()
        try:
            Registry.open(root, disk=DyingDisk(step, late=late)).rename("cat", "cat2")
        except Killed:
            pass
        else:
            break
        registry = Registry.open(root)
        assert registry.verify() == [], f"step {step}"
        records, problems = registry.listing(all_versions=True)
        assert (records, problems) == whole or "cat2" in [one.name for one in records], f"step {step}"
        if formats(root) != {1}:
            assert json.loads((root / "registry.json").read_text())["format"] == 2, (
                "older programs are kept away first"
            )
            (copy,) = root.glob("format-1-*.zip")
            with zipfile.ZipFile(copy) as archive:
                assert all(archive.read(name) == first[name] for name in archive.namelist())
        add(registry, "bird", 9)
        assert formats(root) == {2}
        assert "migrating" not in json.loads((root / "registry.json").read_text())
        assert len([*root.glob("format-1-*.zip")]) == 1
        registry.gc(grace=0.0)
        assert not [name for name in files_of(root) if ".tmp-" in name]
    assert step > 40, "a migration was cut short at each of its operations"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failing_at_any_write_it_is_as_it_was_or_goes_on_next_time(
    code: int, old: Callable[[], Path]
) -> None:
    whole = Registry.open(old()).listing(all_versions=True)
    failures = 0
    for step in range(1, 200):
        root = old()
        try:
            Registry.open(root, disk=FailingDisk(step, code, WRITING)).rename("cat", "cat2")
        except RegistryError:
            failures += 1
        else:
            break
        registry = Registry.open(root)
        records, problems = registry.listing(all_versions=True)
        assert (records, problems) == whole or "cat2" in [one.name for one in records], f"step {step}"
        assert not [name for name in files_of(root) if ".tmp-" in name]
        add(registry, "bird", 9)
        assert formats(root) == {2}
        assert registry.verify() == []
    assert failures > 30


@pytest.mark.parametrize("moment", ["create", "link", "replace"])
def test_two_at_once_without_a_lock_do_each_other_no_harm(moment: str, old: Callable[[], Path]) -> None:
    root = old()
    first = files_of(root)
    for number in range(12):
        root = old()
        disk = HookedDisk()
        disk.locking = False
        left = [number]

        def hook(name: str, arguments: tuple[Any, ...], root: Path = root, left: list[int] = left) -> None:
            if name == moment:
                left[0] -= 1
                if left[0] == -1:
                    add(Registry.open(root), "bird", 9)

        disk.hook = hook
        Registry.open(root, disk=disk).rename("cat", "kitty")
        registry = Registry.open(root)
        assert formats(root) == {2}
        assert {"dog", "kitty"} <= {one.name for one in registry.records()} <= {"dog", "kitty", "bird"}
        assert registry.verify() == []
        copies = []
        for path in root.glob("format-1-*.zip"):
            with zipfile.ZipFile(path) as archive:
                copies.append({name: archive.read(name) for name in archive.namelist()})
        assert any(copy.items() <= first.items() for copy in copies), "the copy of what was is never replaced"


def test_what_a_program_of_the_older_version_still_adds_can_be_read(old: Callable[[], Path]) -> None:
    root = old()
    entry = (root / "concepts" / "000002.json").read_text()
    Registry.open(root).rename("cat", "kitty")
    late = (
        entry.replace('"cat"', '"late"')
        .replace('"sequence": 2', '"sequence": 7')
        .replace('"origin": 2', '"origin": 7')
    )
    (root / "concepts" / "000007.json").write_text(late)
    registry = Registry.open(root)
    assert registry.get("late").against.sequence == 6
    assert add(registry, "bird", 9).sequence == 8
    assert registry.verify() == []


def test_a_record_that_cannot_be_read_stays_byte_for_byte_and_is_told(old: Callable[[], Path]) -> None:
    root = old()
    damaged = root / "concepts" / "000002.json"
    damaged.write_bytes(b"cut off")
    told: list[str] = []
    registry = Registry.open(root, tell=told.append)
    registry.annotate(registry.get("dog"), scores={"ia": 1.0})
    assert damaged.read_bytes() == b"cut off"
    assert [str(damaged) in line for line in told] == [True, False]
    with pytest.raises(Damaged, match="'bird' may be taken"):
        add(registry, "bird", 9)  # nothing of the first format tells what record 2 was called
    damaged.rename(damaged.with_suffix(".removed"))
    assert add(registry, "bird", 9).sequence == 6


def test_settings_changed_afterwards_stay_found(old: Callable[[], Path]) -> None:
    root = old()
    path = root / "concepts" / "000002.json"
    path.write_text(path.read_text().replace("800", "801"))
    for name in ("hound", "wolf"):
        (problem,) = Registry.open(root).verify()
        assert "settings" in problem.message
        Registry.open(root).rename(Registry.open(root).records()[-1].name, name)
    assert formats(root) == {2}


def test_what_came_in_a_bundle_was_not_learned_against_what_is_here(old: Callable[[], Path]) -> None:
    root = old()
    path = root / "concepts" / "000005.json"
    path.write_text(path.read_text().replace('"extra": {}', '"extra": {"bundled": {"sequence": 9}}'))
    record, older = Registry.open(root).get_with_older("dog")
    assert (record.against.sequence, record.against.count, older) == (0, 2, ())


def test_a_writer_that_was_there_before_a_newer_program_writes_nothing_any_more(
    copies: Callable[[], Path],
) -> None:
    root = copies()
    registry = Registry.open(root)
    head = root / "registry.json"
    head.write_text(head.read_text().replace('"format": 2', '"format": 3'))
    before = files_of(root)
    with pytest.raises(NewerFormat, match="format 3") as caught:
        registry.commit(make_draft("bird"), make_weights(9), expected_head=registry.head())
    assert caught.value.hint == "update cidm"
    assert files_of(root) == before
