"""Killed before, within or behind any single operation, the registry is as it was before or as it is after."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cidm_registry import Exists, NotFound, Registry
from registry_support import (
    BASE,
    PNG,
    WRITES,
    DyingDisk,
    HookedDisk,
    Killed,
    add,
    files_of,
    make_draft,
    make_weights,
)

CHANGES: dict[str, Callable[[Registry], Any]] = {
    "commit": lambda r: r.commit(
        make_draft("bird"), make_weights(9), expected_head=r.head(), preview=PNG + b"2"
    ),
    "update": lambda r: r.commit(make_draft("dog"), make_weights(9), expected_head=r.head(), update=True),
    "rename": lambda r: r.rename("cat", "kitty"),
    "remove": lambda r: r.remove("dog"),
    "restore": lambda r: r.restore("gone"),
    "annotate": lambda r: r.annotate(r.get("cat"), scores={"ia": 0.8}, preview=PNG + b"3"),
    "gc": lambda r: r.gc(grace=0.0, runs=True),
    "checkpoint": lambda r: r.runs()[0].save(200, make_weights(51)),
    "start run": lambda r: r.start_run({"key": "bird", "steps": 5}),
    "finish run": lambda r: r.runs()[0].finish(),
}


def described(root: Path) -> dict[str, Any]:
    """What a user would see, without dates and temporary files."""
    registry = Registry.open(root)
    return {
        "concepts": [
            (one.sequence, one.name, one.version, one.blob, one.preview, tuple(one.scores.items()))
            for one in registry.records()
        ],
        "runs": [(run.config, run.latest()) for run in registry.runs()],
    }


@pytest.mark.parametrize("late", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("change", CHANGES)
def test_killed_at_any_step_it_is_before_or_after_and_sound(
    change: str, late: bool, furnished: Path, copies: Callable[[], Path]
) -> None:
    finished = copies()
    CHANGES[change](Registry.open(finished))
    before, after = described(furnished), described(finished)
    old_blobs = {
        one.blob: Registry.open(furnished).read_blob(one.blob) for one in Registry.open(furnished).records()
    }
    seen = []
    step = 0
    while True:
        step += 1
        root = copies()
        disk = DyingDisk(step, late=late)
        try:
            CHANGES[change](Registry.open(root, disk=disk))
        except Killed:
            pass
        else:
            break
        now = described(root)
        assert now in (before, after), f"step {step}"
        seen.append(now == after)
        registry = Registry.open(root)
        assert registry.verify() == [], f"step {step}"
        if change != "remove":
            for blob, content in old_blobs.items():
                assert registry.read_blob(blob) == content
        CHANGES_AGAIN.get(change, lambda r, done: None)(registry, now == after)
        registry.gc(grace=0.0)
        assert registry.verify() == []
        leftovers = [name for name in files_of(root) if "/." in name or name.startswith(".")]
        assert leftovers == [], f"step {step}"
    assert step > 1, "no operation was cut short: the test tests nothing"
    if change != "gc":
        assert seen == sorted(seen), "done, then undone again"


def _again(registry: Registry, done: bool) -> None:
    """After the crash the same work can simply be done again."""
    if done:
        with pytest.raises(Exists):
            add(registry, "bird", 9)
    else:
        add(registry, "bird", 9)
    assert registry.get("bird").blob


def _remove_again(registry: Registry, done: bool) -> None:
    if done:
        with pytest.raises(NotFound):
            registry.remove("dog")
    else:
        registry.remove("dog")
    assert [one.name for one in registry.records(all_versions=True)] == ["cat"]


CHANGES_AGAIN: dict[str, Callable[[Registry, bool], None]] = {"commit": _again, "remove": _remove_again}


@pytest.mark.parametrize("late", [False, True], ids=["before", "behind"])
def test_a_registry_whose_making_was_killed_can_be_made_again(late: bool, tmp_path: Path) -> None:
    step = 0
    while True:
        step += 1
        root = tmp_path / str(step)
        try:
            Registry.create(root, BASE, disk=DyingDisk(step, late=late))
        except Killed:
            pass
        else:
            break
        try:
            registry = Registry.open(root)
        except NotFound:
            registry = Registry.create(root, BASE)
        assert registry.base == BASE
        assert registry.verify() == []
    assert step > 5


def test_a_record_is_linked_only_after_blob_and_record_are_on_disk(registry: Registry) -> None:
    done: list[tuple[str, str]] = []
    disk = HookedDisk()

    def after(name: str, arguments: tuple[Any, ...]) -> None:
        if name in WRITES:
            path = arguments[0] if isinstance(arguments[0], Path) else None
            done.append(
                (name, path.parent.name if path and name != "sync_folder" else path.name if path else "")
            )

    disk.after = after
    add(Registry.open(registry.root, disk=disk), "dog", 1)
    assert done == [
        ("create", "blobs"),
        ("write", ""),
        ("fsync", ""),
        ("close", ""),
        ("replace", "blobs"),
        ("sync_folder", "blobs"),
        ("create", "concepts"),
        ("write", ""),
        ("fsync", ""),
        ("close", ""),
        ("link", "concepts"),
        ("unlink", "concepts"),
        ("sync_folder", "concepts"),
    ]


SUICIDE = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from registry_support import HookedDisk, make_draft, make_weights
from cidm_registry import Registry

def die(name, arguments):
    if name == {at!r}:
        os.kill(os.getpid(), signal.SIGKILL)

disk = HookedDisk()
setattr(disk, {when!r}, die)
registry = Registry.open({root!r}, disk=disk)
registry.commit(make_draft("bird"), make_weights(9), expected_head=registry.head())
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize(
    ("at", "when", "there"), [("fsync", "after", False), ("link", "hook", False), ("link", "after", True)]
)
def test_a_real_sigkill_leaves_a_sound_registry_and_no_held_lock(
    at: str, when: str, there: bool, copies: Callable[[], Path]
) -> None:
    root = copies()
    before = files_of(root)
    script = SUICIDE.format(
        tests=str(Path(__file__).parents[1] / "support"), at=at, when=when, root=str(root)
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    registry = Registry.open(root)
    assert registry.verify() == []
    assert ("bird" in [one.name for one in registry.records()]) == there
    with registry.lock(timeout=1.0):
        add(registry, "fish", 10)
    assert {name: files_of(root)[name] for name in before} == before
