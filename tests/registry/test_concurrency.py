"""Several processes at once: exactly one wins where only one can, and nobody's concept is lost, lock or no lock."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cidm_registry import Against, Busy, Conflict, Damaged, Exists, NotFound, Registry, RegistryError
from registry_support import PNG, HookedDisk, add, make_draft, make_weights

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from registry_support import HookedDisk, make_draft, make_weights
from cidm_registry import Conflict, Exists, Registry

disk = HookedDisk()
disk.locking = {locking!r}
registry = Registry.open({root!r}, disk=disk)
head = registry.head()
print("ready", flush=True)
sys.stdin.readline()
for number in range({count}):
    name = {names!r} + str(number)
    while True:
        try:
            registry.commit(make_draft(name), make_weights({seed} + number), expected_head=head)
        except Exists:
            print("exists", name)
        except Conflict:
            print("conflict", name)
            if {insist!r}:
                head = registry.head()
                continue
        else:
            print("won", name)
            head = registry.head()
        break
"""


def race(
    root: Path, *, locking: bool, workers: int, names: Callable[[int], str], count: int, insist: bool
) -> list[str]:
    """Lets processes loose on one registry at the same moment; what they said."""
    started = []
    for number in range(workers):
        script = WORKER.format(
            tests=str(Path(__file__).parents[1] / "support"),
            locking=locking,
            root=str(root),
            names=names(number),
            count=count,
            seed=100 * number,
            insist=insist,
        )
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = []
    for process in started:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        said += output.splitlines()
    return said


@pytest.mark.parametrize("locking", [True, False], ids=["locked", "lock does nothing"])
def test_writers_of_different_concepts_all_get_in_one_after_the_other(
    locking: bool, registry: Registry
) -> None:
    said = race(
        registry.root, locking=locking, workers=3, names=lambda worker: f"w{worker}-", count=8, insist=True
    )
    assert len([line for line in said if line.startswith("won")]) == 24
    records = registry.records()
    assert [one.sequence for one in records] == list(range(1, 25))
    assert {one.name for one in records} == {f"w{worker}-{n}" for worker in range(3) for n in range(8)}
    assert registry.verify() == []
    assert registry.gc_plan(grace=0.0).files == ()


@pytest.mark.parametrize("locking", [True, False], ids=["locked", "lock does nothing"])
def test_of_two_that_learn_the_same_concept_one_wins(locking: bool, registry: Registry) -> None:
    said = race(registry.root, locking=locking, workers=3, names=lambda worker: "dog", count=1, insist=False)
    assert sorted(line.split()[0] for line in said) == ["conflict", "conflict", "won"]
    assert [one.name for one in registry.records()] == ["dog0"]
    assert registry.verify() == []


def meanwhile(registry: Registry, at: str, folder: str, action: Callable[[Registry], Any]) -> Registry:
    """The same registry without a lock; `action` happens right before the first operation `at` in `folder`."""
    disk = HookedDisk()
    disk.locking = False
    waiting = [action]

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == at and arguments[-1].parent.name == folder and waiting:
            waiting.pop()(registry)

    disk.hook = hook
    return Registry.open(registry.root, disk=disk)


def test_a_concept_committed_at_the_last_moment_is_a_conflict(registry: Registry) -> None:
    slow = meanwhile(registry, "link", "concepts", lambda other: add(other, "cat", 2))
    with pytest.raises(Conflict, match="'cat' was added"):
        add(slow, "dog", 1)
    assert [one.name for one in registry.records()] == ["cat"]


def test_a_change_of_name_at_the_last_moment_is_no_conflict(registry: Registry) -> None:
    add(registry, "cat", 2)
    slow = meanwhile(registry, "link", "concepts", lambda other: other.rename("cat", "kitty"))
    assert add(slow, "dog", 1).sequence == 3
    assert [one.name for one in registry.records()] == ["kitty", "dog"]


def test_a_name_taken_by_renaming_at_the_last_moment_is_refused(registry: Registry) -> None:
    add(registry, "cat", 2)
    slow = meanwhile(registry, "link", "concepts", lambda other: other.rename("cat", "dog"))
    with pytest.raises(Exists):
        add(slow, "dog", 1)
    assert [(one.sequence, one.name) for one in registry.records()] == [(1, "dog")]


@pytest.mark.parametrize("act", ["restore", "commit"])
def test_a_name_that_is_given_away_while_its_concept_comes_back_has_one_owner(
    act: str, registry: Registry
) -> None:
    """Without locks, and the one just before the other shows what it has done."""
    add(registry, "dog", 1)
    registry.remove("dog")
    acts: dict[str, Callable[[Registry], Any]] = {
        "restore": lambda r: r.restore("dog"),
        "commit": lambda r: add(r, "dog", 2),
    }
    disk = HookedDisk()
    disk.locking = False

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("replace", "link") and arguments[-1].parent.name == "concepts":
            disk.hook = lambda name, arguments: None
            for other, do in acts.items():
                if other != act:
                    do(registry)

    disk.hook = hook
    with pytest.raises(Exists, match="dog"):
        acts[act](Registry.open(registry.root, disk=disk))
    assert [one.name for one in registry.records()] == ["dog"]
    assert registry.verify() == []


def test_a_training_keeps_what_it_would_not_know_of_from_coming_back(registry: Registry) -> None:
    add(registry, "dog", 1)
    add(registry, "cat", 2)
    registry.remove("dog")
    with registry.training_lock(0):
        script = f"from cidm_registry import Registry; Registry.open({str(registry.root)!r}).restore('dog')"
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "a training is going on" in ran.stderr
    # And where locks do nothing, its concept cannot be committed.
    draft = make_draft("bird", against=Against.of(registry.records(), registry.head()))
    head = registry.head()
    registry.restore("dog")
    with pytest.raises(Conflict, match="bird"):
        registry.commit(draft, make_weights(3), expected_head=head)


def test_two_renamings_to_one_name_cannot_both_win(registry: Registry) -> None:
    add(registry, "cat", 1)
    add(registry, "dog", 2)
    slow = meanwhile(registry, "link", "concepts", lambda other: other.rename("cat", "pet"))
    with pytest.raises(Exists):
        slow.rename("dog", "pet")
    assert [one.name for one in registry.records()] == ["pet", "dog"]


def test_a_number_that_was_used_and_removed_at_the_last_moment_is_not_used_again(registry: Registry) -> None:
    def add_and_remove(other: Registry) -> None:
        add(other, "cat", 2)
        other.remove("cat")

    slow = meanwhile(registry, "link", "concepts", add_and_remove)
    assert add(slow, "dog", 1).sequence == 2
    assert [one.name for one in registry.records()] == ["dog"]
    assert registry.get("dog").sequence == 2


def test_a_removal_cannot_be_undone_by_a_late_annotation(registry: Registry) -> None:
    record = add(registry, "cat", 2)
    slow = meanwhile(registry, "replace", "concepts", lambda other: other.remove("cat"))
    slow.annotate(record, scores={"ia": 0.9})
    assert registry.records() == []
    registry.gc(grace=0.0)
    assert not (registry.root / "concepts" / "000001.json").exists()
    with pytest.raises(NotFound):
        registry.annotate(record, scores={"ia": 0.9})


@pytest.mark.parametrize("moment", ["create", "unlink"])
def test_a_collection_in_the_middle_of_a_commit_takes_nothing_it_needs(
    moment: str, registry: Registry
) -> None:
    slow = meanwhile(registry, moment, "concepts", lambda other: other.gc(grace=0.0))
    record = add(slow, "dog", 1, preview=PNG)
    assert registry.verify() == []
    assert registry.read_blob(record.blob) == make_weights(1)


def test_an_old_blob_that_is_about_to_be_used_again_counts_as_young(registry: Registry) -> None:
    path = registry.blob_path(add(registry, "old", 1).blob)
    registry.remove("old")
    os.utime(path, (0, 0))
    assert registry.gc_plan().files == (path,)
    plans = []
    add(meanwhile(registry, "create", "concepts", lambda other: plans.append(other.gc_plan())), "new", 1)
    assert [(plan.files, plan.waiting) for plan in plans] == [((), 1)]


def test_a_collection_without_grace_may_stop_a_commit_but_not_silently(registry: Registry) -> None:
    slow = meanwhile(registry, "link", "concepts", lambda other: other.gc(grace=0.0))
    with pytest.raises(RegistryError, match="committing 'dog' failed"):
        add(slow, "dog", 1)
    assert registry.verify() == []
    assert add(registry, "dog", 1).sequence == 1


def test_a_collection_takes_no_run_while_a_training_goes_on(registry: Registry) -> None:
    run = registry.start_run({"key": "dog"})
    os.utime(run.path, (0, 0))
    with ThreadPoolExecutor(1) as elsewhere:
        with registry.training_lock():
            for collect in (registry.gc, registry.gc_plan):
                with pytest.raises(Busy, match="a training is going on"):
                    elsewhere.submit(collect, runs=True).result()
            elsewhere.submit(registry.gc).result()
        assert run.path.exists()
        assert elsewhere.submit(registry.gc, runs=True).result().files == (run.path,)
    assert not run.path.exists()


@pytest.mark.parametrize("moment", ["replace", "unlink"])
def test_a_commit_in_the_middle_of_a_collection_loses_nothing(moment: str, registry: Registry) -> None:
    add(registry, "old", 1)
    registry.remove("old")
    collecting = meanwhile(registry, moment, "blobs", lambda other: add(other, "new", 1))
    collecting.gc(grace=0.0)
    assert registry.verify() == []
    assert registry.read_blob(registry.get("new").blob) == make_weights(1)
    registry.gc(grace=0.0)
    assert [path.name for path in (registry.root / "blobs").iterdir()] == [registry.get("new").blob]


def test_damage_noticed_in_the_middle_of_a_collection_puts_everything_back(registry: Registry) -> None:
    old = add(registry, "old", 1)
    add(registry, "new", 2)
    registry.remove("old")
    collecting = meanwhile(
        registry, "replace", "blobs", lambda other: (other.root / "concepts" / "000002.json").write_bytes(b"")
    )
    with pytest.raises(Damaged):
        collecting.gc(grace=0.0)
    assert registry.read_blob(old.blob) == make_weights(1)


def test_removed_twice_at_once_is_removed(registry: Registry) -> None:
    add(registry, "cat", 2)
    slow = meanwhile(registry, "replace", "concepts", lambda other: other.remove("cat"))
    assert [one.name for one in slow.remove("cat").records] == ["cat"]
    assert registry.records() == []


def test_a_held_lock_is_waited_for_and_then_reported(registry: Registry) -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with registry.lock():
            held.set()
            release.wait(10.0)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10.0)
    with pytest.raises(Busy, match="another process"), registry.lock(timeout=0.05):
        pass
    threading.Timer(0.1, release.set).start()
    with registry.lock():
        assert release.is_set()
    holder.join()


def test_whoever_holds_the_lock_can_commit(registry: Registry) -> None:
    with registry.lock(timeout=0.1):
        add(Registry.open(registry.root), "dog", 1)


def test_a_lock_that_is_a_link_is_refused(registry: Registry, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (registry.root / "lock").unlink(missing_ok=True)
    (registry.root / "lock").symlink_to(victim)
    with pytest.raises(Damaged, match="symbolic link"):
        add(registry, "dog", 1)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("stale", [b"", b"4711\nsome-host"])
def test_a_lock_file_left_by_a_dead_process_holds_nothing(stale: bytes, registry: Registry) -> None:
    (registry.root / "lock").write_bytes(stale)
    with registry.lock(timeout=0.1):
        add(registry, "dog", 1)


def test_a_lock_that_cannot_be_taken_at_all_is_done_without(registry: Registry) -> None:
    (registry.root / "lock").mkdir()
    add(registry, "dog", 1)
    assert registry.verify() == []


def test_a_draft_for_an_older_registry_is_refused_even_if_the_registry_went_back(registry: Registry) -> None:
    with pytest.raises(Conflict, match="older"):
        registry.commit(make_draft("dog"), make_weights(1), expected_head=5)


@pytest.mark.parametrize(
    "write", [lambda r: add(r, "dog", 1), lambda r: r.rename("cat", "kitty")], ids=["commit", "rename"]
)
def test_a_writer_that_is_always_overtaken_gives_up_instead_of_spinning(
    write: Callable[[Registry], Any], registry: Registry
) -> None:
    add(registry, "cat", 2)
    disk = HookedDisk()

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "link":
            raise FileExistsError

    disk.hook = hook
    with pytest.raises(Busy, match="keep writing"):
        write(Registry.open(registry.root, disk=disk))
    assert [one.name for one in registry.records()] == ["cat"]
