"""A disk that is full, broken, read-only or slow to write costs the work in progress and nothing else."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cidm_registry import Damaged, Registry, RegistryError
from registry_support import PNG, READS, FailingDisk, HookedDisk, add, files_of, make_draft, make_weights

WRITING = ("create", "write", "fsync", "replace", "link", "sync_folder")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failing_at_any_write_leaves_older_concepts_alone_and_can_be_repeated(
    code: int, copies: Callable[[], Path]
) -> None:
    failures = 0
    for step in range(1, 100):
        root = copies()
        before = files_of(root)
        registry = Registry.open(root, disk=FailingDisk(step, code, WRITING))
        try:
            registry.commit(
                make_draft("bird"), make_weights(9), expected_head=registry.head(), preview=PNG + b"2"
            )
        except RegistryError as error:
            failures += 1
            assert "bird" in error.message
            assert os.strerror(code) in error.message or errno.errorcode[code] in error.message
            if code == errno.ENOSPC:
                assert "cidm gc" in (error.hint or "")
        else:
            break
        after = files_of(root)
        assert {name: after[name] for name in before} == before
        assert not [name for name in after if ".tmp-" in name], "a failure that is reported cleans up"
        whole = Registry.open(root)
        assert whole.verify() == []
        if "bird" not in [one.name for one in whole.records()]:
            add(whole, "bird", 9)
        assert whole.read_blob(whole.get("bird").blob) == make_weights(9)
    assert failures > 10


@pytest.mark.parametrize("act", ["commit", "rename", "remove", "restore", "annotate"])
def test_what_is_done_when_the_last_sync_fails_is_done_and_told(act: str, copies: Callable[[], Path]) -> None:
    disk = HookedDisk()
    told: list[str] = []
    disk.tell = told.append

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "sync_folder" and arguments[0].name == "concepts":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))

    disk.hook = hook
    root = copies()
    registry = Registry.open(root, disk=disk)
    match act:
        case "commit":
            assert add(registry, "bird", 9).name == "bird"
        case "rename":
            assert registry.rename("dog", "hound").name == "hound"
        case "remove":
            assert registry.remove("dog").records
        case "restore":
            assert registry.restore("gone").name == "gone"
        case "annotate":
            assert registry.annotate(registry.get("dog"), scores={"ia": 0.5}).scores["ia"] == 0.5
    (line,) = told
    assert "concepts" in line
    assert os.strerror(errno.EIO) in line
    there = Registry.open(root)
    names = {
        "commit": "bird cat dog",
        "rename": "cat hound",
        "remove": "cat",
        "annotate": "cat dog",
        "restore": "cat dog gone",
    }
    assert sorted(one.name for one in there.records()) == names[act].split()
    assert there.verify() == []


def test_short_writes_are_continued(registry: Registry) -> None:
    class Dribble(HookedDisk):
        def write(self, descriptor: int, data: memoryview) -> int:
            return os.write(descriptor, data[:7])

    record = add(Registry.open(registry.root, disk=Dribble()), "dog", 1)
    assert registry.read_blob(record.blob) == make_weights(1)
    assert registry.verify() == []


def test_an_error_at_any_read_is_reported_and_changes_nothing(copies: Callable[[], Path]) -> None:
    root = copies()
    before = files_of(root)
    sha = Registry.open(root).get("cat").blob
    quarantined = 0
    for step in range(1, 100):
        disk = FailingDisk(step, errno.EIO, READS)
        try:
            registry = Registry.open(root, disk=disk)
            records, problems = registry.listing(all_versions=True)
            assert len(records) + len(problems) in (3, 4)  # a change of name is an entry of its own
            quarantined += len(problems)
            registry.read_blob(sha)
            registry.verify()
            registry.gc_plan()
        except RegistryError:
            pass
        else:
            if disk.count < step:
                break
        assert files_of(root) == before
    assert quarantined == 4
    assert step > 10


def test_a_record_that_cannot_be_read_does_not_hide_the_others(copies: Callable[[], Path]) -> None:
    root = copies()
    registry = Registry.open(root, disk=HookedDisk())

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "read" and arguments[0].name == "000002.json":
            raise OSError(errno.EIO, "Input/output error", str(arguments[0]))

    registry.disk.hook = hook  # type: ignore[attr-defined]
    assert [one.name for one in registry.records()] == ["dog"]
    assert [problem.path.name for problem in registry.listing()[1]] == ["000002.json"]


@pytest.fixture
def read_only(copies: Callable[[], Path]) -> Registry:
    registry = Registry.open(copies(), disk=HookedDisk())

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("create", "replace", "link", "unlink", "touch", "remove_tree"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))

    registry.disk.hook = hook  # type: ignore[attr-defined]
    return registry


def test_a_read_only_registry_can_be_read_and_says_it_cannot_be_written(read_only: Registry) -> None:
    assert not read_only.writable()
    assert read_only.verify() == []
    assert read_only.read_blob(read_only.get("cat").blob) == make_weights(2)
    with read_only.lock(timeout=0.1):
        pass
    with pytest.raises(RegistryError, match="Read-only") as caught:
        add(read_only, "bird", 9)
    assert "read-only" in (caught.value.hint or "")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not stop this user")
def test_a_folder_without_write_permission_is_read_only(copies: Callable[[], Path]) -> None:
    root = copies()
    for folder in (root / "concepts", root):
        folder.chmod(0o555)
    try:
        registry = Registry.open(root)
        assert not registry.writable()
        assert registry.verify() == []
    finally:
        for folder in (root, root / "concepts"):
            folder.chmod(0o755)


def test_writable_leaves_nothing_behind(copies: Callable[[], Path]) -> None:
    root = copies()
    before = files_of(root)
    assert Registry.open(root).writable()
    assert files_of(root) == before


def test_reading_never_writes(copies: Callable[[], Path]) -> None:
    disk = HookedDisk()

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        assert name in READS, f"a reader called {name}"

    disk.hook = hook
    registry = Registry.open(copies(), disk=disk)
    registry.records(all_versions=True)
    registry.listing()
    registry.head()
    registry.read_blob(registry.get("dog").blob)
    registry.verify()
    registry.remove_plan("dog")
    registry.gc_plan(grace=0.0, runs=True)
    assert registry.runs()[0].latest() is not None


def test_where_there_are_no_hard_links_numbers_are_still_claimed_once(registry: Registry) -> None:
    disk = HookedDisk()

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "link":
            raise OSError(errno.EPERM, "Operation not permitted", str(arguments[0]))

    disk.hook = hook
    linkless = Registry.open(registry.root, disk=disk)
    first = add(linkless, "dog", 1)
    (registry.root / "concepts" / "000002.json").write_bytes(b"somebody else's")
    with pytest.raises(RegistryError, match="record 2"):
        linkless.commit(make_draft("cat"), make_weights(2), expected_head=1)
    assert (registry.root / "concepts" / "000002.json").read_bytes() == b"somebody else's"
    assert registry.get("dog") == first


def test_an_unreadable_folder_of_records_is_damage_not_an_empty_registry(copies: Callable[[], Path]) -> None:
    root = copies()
    (root / "concepts").rename(root / "elsewhere")
    with pytest.raises(Damaged, match="concepts"):
        Registry.open(root).records()
