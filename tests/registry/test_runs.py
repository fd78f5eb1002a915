"""Training runs: found again, resumed from the newest intact checkpoint, swept when done."""

from pathlib import Path

import pytest

from cidm_registry import Invalid, Registry
from registry_support import files_of


def test_a_run_is_found_by_its_concept_and_remembers_its_settings(registry: Registry) -> None:
    run = registry.start_run({"key": "dog", "steps": 800, "box": (1, 2)})
    registry.start_run({"key": "cat"})
    found = Registry.open(registry.root).find_run("dog")
    assert found == run
    assert found.config == {"key": "dog", "steps": 800, "box": [1, 2]}
    assert found.latest() is None
    assert registry.find_run("bird") is None
    assert len(registry.runs()) == 2


def test_the_newest_run_of_a_concept_is_found(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1_000_000.0, 1_000_005.0, 1_000_002.0])
    monkeypatch.setattr(type(registry.disk), "now", lambda self: next(times))
    registry.start_run({"key": "dog", "steps": 1})
    registry.start_run({"key": "dog", "steps": 2})
    registry.start_run({"key": "dog", "steps": 3})
    found = registry.find_run("dog")
    assert found is not None
    assert found.config["steps"] == 2


def test_the_newest_two_checkpoints_are_kept(registry: Registry) -> None:
    run = registry.start_run({"key": "dog"})
    for step in (100, 200, 1000, 1100):
        run.save(step, b"state %d" % step)
    assert run.latest() == (1100, b"state 1100")
    assert len(list(run.path.iterdir())) == 3


def newest(run_path: Path) -> Path:
    return sorted(run_path.glob("step-*"))[-1]


@pytest.mark.parametrize("content", [b"", b"state 201", b"state 20"])
def test_a_damaged_checkpoint_is_passed_over_and_reported(content: bytes, registry: Registry) -> None:
    run = registry.start_run({"key": "dog"})
    run.save(100, b"state 100")
    run.save(200, b"state 200")
    newest(run.path).write_bytes(content)
    assert run.latest() == (100, b"state 100")
    assert [problem.path for problem in registry.verify()] == [newest(run.path)]


def test_a_checkpoint_done_again_replaces_damaged_and_later_ones_but_no_good_one(registry: Registry) -> None:
    run = registry.start_run({"key": "dog"})
    run.save(100, b"state 100")
    run.save(200, b"state 200")
    newest(run.path).write_bytes(b"damaged")
    run.save(150, b"state 150")
    assert run.latest() == (150, b"state 150")
    run.save(200, b"state 200")
    assert run.latest() == (200, b"state 200")
    newest(run.path).write_bytes(b"damaged")
    assert run.latest() == (150, b"state 150")


def test_a_damaged_later_checkpoint_is_not_kept_in_place_of_a_good_earlier_one(registry: Registry) -> None:
    run = registry.start_run({"key": "dog"})
    run.save(100, b"state 100")
    run.save(300, b"state 300")
    newest(run.path).write_bytes(b"damaged")
    run.save(150, b"state 150")
    newest(run.path).write_bytes(b"damaged")
    assert run.latest() == (100, b"state 100")


def test_saving_the_same_checkpoint_twice_keeps_it(registry: Registry) -> None:
    run = registry.start_run({"key": "dog"})
    run.save(100, b"state 100")
    run.save(100, b"state 100")
    assert run.latest() == (100, b"state 100")


def test_a_finished_run_is_gone_and_finishing_twice_is_harmless(registry: Registry) -> None:
    before = files_of(registry.root)
    run = registry.start_run({"key": "dog"})
    run.save(100, b"state")
    run.finish()
    run.finish()
    assert registry.runs() == []
    assert files_of(registry.root) == before


@pytest.mark.parametrize(
    "config", [{}, {"key": 1}, {"key": "dog", "rate": float("nan")}, {"key": "dog", "p": Path()}]
)
def test_settings_that_cannot_be_kept_are_refused(config: dict[str, object], registry: Registry) -> None:
    with pytest.raises(Invalid):
        registry.start_run(config)
    assert list((registry.root / "runs").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 100_000, None])
def test_a_run_with_unreadable_settings_hides_no_other_and_is_reported(
    content: bytes | None, registry: Registry
) -> None:
    damaged, good = registry.start_run({"key": "dog"}), registry.start_run({"key": "cat"})
    if content is None:
        (damaged.path / "config.json").unlink()
    else:
        (damaged.path / "config.json").write_bytes(content)
    assert registry.runs() == [good]
    assert [problem.path for problem in registry.verify()] == [damaged.path]


def test_a_registry_copied_without_its_empty_folders_has_no_runs_and_can_start_one(
    registry: Registry,
) -> None:
    (registry.root / "runs").rmdir()
    assert registry.runs() == []
    assert registry.verify() == []
    registry.start_run({"key": "dog"})
    assert len(registry.runs()) == 1
