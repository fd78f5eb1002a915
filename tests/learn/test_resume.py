"""A training that was stopped, killed or changed: it ends in the same bytes as one that was not, or is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn import run as workflow
from cidm_cli.learn.run import Events
from cidm_cli.models.base import Base
from cidm_registry import Registry
from command import Cidm
from learning import FAST, files_of, learn_direct, task

STEPS = 7


class Killed(BaseException):
    """Ends the work where it stands, as a power cut does."""


def stop_at(step: int) -> Events:
    """Asks to stop after a step, as Ctrl-C does."""
    done = [0]
    return Events(on_step=lambda n, loss: done.__setitem__(0, n), stop=lambda: done[0] >= step)


def kill_at(step: int) -> Events:
    def on_step(done: int, _loss: float) -> None:
        if done == step:
            raise Killed

    return Events(on_step=on_step)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that every test here learns."""
    return tiny.save_pictures(tmp_path_factory.mktemp("resume") / "pictures")


@pytest.fixture(scope="module")
def whole(base: Base, tiny_base: Path, pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The blob of a training that nothing disturbed."""
    from cidm_cli.models.identity import identify

    registry = Registry.create(tmp_path_factory.mktemp("whole") / "registry", identify(str(tiny_base)))
    return learn_direct(registry, base, task(pieces, steps=STEPS)).blob


def interrupted(registry: Registry, base: Base, folder: Path, events: Events, **changes: Any) -> None:
    with pytest.raises((CidmError, Killed)) as caught:
        learn_direct(registry, base, task(folder, steps=STEPS, **changes), events)
    assert isinstance(caught.value, Killed) or caught.value.code == ExitCode.INTERRUPTED
    assert registry.records() == []


@pytest.mark.parametrize("stops", [(1,), (3,), (6,), (7,), (2, 5), (1, 2, 3, 4, 5, 6)])
def test_a_stopped_and_resumed_training_ends_in_the_same_bytes(
    stops: Sequence[int], base: Base, tiny_registry: Registry, pieces: Path, whole: str
) -> None:
    for number, step in enumerate(stops):
        interrupted(tiny_registry, base, pieces, stop_at(step), resume=number > 0)
        run = tiny_registry.find_run("dog")
        assert run is not None
        latest = run.latest()
        assert latest is not None
        assert latest[0] == step
    record = learn_direct(tiny_registry, base, task(pieces, steps=STEPS, resume=True))
    assert record.blob == whole
    assert record.losses["steps"] == STEPS
    assert tiny_registry.runs() == []
    assert tiny_registry.verify() == []


@pytest.mark.parametrize(("every", "killed", "from_step"), [(3, 5, 3), (3, 7, 6), (2, 2, 0), (50, 6, 0)])
def test_a_killed_training_goes_on_from_its_last_checkpoint_to_the_same_bytes(
    every: int, killed: int, from_step: int, base: Base, tiny_registry: Registry, pieces: Path
) -> None:
    other = Registry.create(tiny_registry.root.with_name("other"), tiny_registry.base)
    undisturbed = learn_direct(other, base, task(pieces, steps=STEPS, checkpoint_every=every)).blob
    interrupted(tiny_registry, base, pieces, kill_at(killed), checkpoint_every=every)
    notes: list[str] = []
    steps: list[int] = []
    events = Events(on_step=lambda n, loss: steps.append(n), on_note=notes.append)
    again = task(pieces, steps=STEPS, checkpoint_every=every, resume=True)
    assert learn_direct(tiny_registry, base, again, events).blob == undisturbed
    assert steps[0] == from_step + 1
    started = (
        f"going on from step {from_step}" if from_step else "no unfinished run of dog: starting at step 0"
    )
    assert notes == [started]


def test_a_damaged_checkpoint_falls_back_on_the_one_before(
    base: Base, tiny_registry: Registry, pieces: Path
) -> None:
    other = Registry.create(tiny_registry.root.with_name("other"), tiny_registry.base)
    undisturbed = learn_direct(other, base, task(pieces, steps=STEPS, checkpoint_every=2)).blob
    interrupted(tiny_registry, base, pieces, kill_at(6), checkpoint_every=2)
    run = tiny_registry.find_run("dog")
    assert run is not None
    newest = max(run.path.glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    steps: list[int] = []
    again = task(pieces, steps=STEPS, checkpoint_every=2, resume=True)
    assert (
        learn_direct(tiny_registry, base, again, Events(on_step=lambda n, _: steps.append(n))).blob
        == undisturbed
    )
    assert steps[0] == 3


def test_the_base_is_as_it_was_when_a_training_is_stopped(
    base: Base, tiny_registry: Registry, pieces: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    interrupted(tiny_registry, base, pieces, kill_at(2))
    after = base.denoiser.state_dict()
    assert list(after) == list(before)
    assert all(after[name].equal(tensor) for name, tensor in before.items())


# What must not be mixed


@pytest.fixture
def stopped(base: Base, tiny_registry: Registry, pictures: Path) -> Registry:
    """A registry with an unfinished run of <dog>, at step 2."""
    interrupted(tiny_registry, base, pictures, stop_at(2))
    return tiny_registry


SAME = (*FAST, "--steps", STEPS, "--precision", "fp32")
"""The options of `stopped` on the command line."""


@pytest.mark.parametrize("change", ["picture added", "picture edited", "caption", "mask"])
def test_changed_pictures_are_not_resumed(change: str, cidm: Cidm, stopped: Registry, pictures: Path) -> None:
    if change == "picture added":
        Image.new("RGB", (64, 64), "red").save(pictures / "red.png")
    elif change == "picture edited":
        picture = Image.open(pictures / "0.png")
        picture.putpixel((0, 0), (1, 2, 3))
        picture.save(pictures / "0.png")
    elif change == "caption":
        (pictures / "0.txt").write_text("a photo of a red dog")
    else:
        Image.new("L", (80, 72), 200).save(pictures / "0-mask.png")
    before = files_of(stopped.root)
    ran = cidm("learn", "dog", pictures, "--registry", stopped.root, *SAME, "--resume")
    assert ran.code == ExitCode.FAILED
    assert "the images or captions" in ran.error
    assert "--restart" in ran.error
    assert files_of(stopped.root) == before


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (("--lr", 0.5), "--lr was 0.02, now 0.5"),
        (("--steps", 9), "--steps was 7, now 9"),
        (("--token-lr", 0.5), "--token-lr was 0.05, now 0.5"),
        (("--no-crop",), "--crop was True, now False"),
        (("--seed", 1), "--seed was 0, now 1"),
        (("--class", "cat"), "noun was dog, now cat"),
        (("--style",), "style was False, now True"),
        (("--precision", "bf16"), "precision was float32, now bfloat16"),
    ],
)
def test_changed_options_are_not_resumed(
    option: tuple[object, ...], named: str, cidm: Cidm, stopped: Registry, pictures: Path
) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", stopped.root, *SAME, *option, "--resume")
    assert ran.code == ExitCode.FAILED
    assert named in ran.error


def test_a_run_of_an_earlier_version_that_lists_its_older_concepts_is_resumed(
    cidm: Cidm, stopped: Registry, pictures: Path
) -> None:
    (run,) = stopped.runs()
    older = [record.blob for record in stopped.records()]
    config = {name: value for name, value in run.config.items() if name != "older"} | {"parents": older}
    (run.path / "config.json").write_text(json.dumps(config))
    ran = cidm("learn", "dog", pictures, "--registry", stopped.root, *SAME, "--resume")
    assert ran.code == 0, ran.err
    assert "parents" not in stopped.get("dog").config


def test_changed_older_concepts_are_not_resumed(
    cidm: Cidm, base: Base, stopped: Registry, pictures: Path
) -> None:
    learn_direct(stopped, base, task(pictures, name="cat", steps=1))
    ran = cidm("learn", "dog", pictures, "--registry", stopped.root, *SAME, "--resume")
    assert ran.code == ExitCode.FAILED
    assert "the older concepts" in ran.error
    assert "images" not in ran.error


FOREIGN: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "of something else": lambda tensors: (tensors.clear(), tensors.update(a=torch.zeros(2))),
    "no safetensors": lambda tensors: tensors.update(a=torch.zeros(0)),
    "another shape": lambda tensors: tensors.update({"0000.value": torch.zeros(3, 3)}),
    "another moment": lambda tensors: tensors.update({"0000.exp_avg": torch.zeros(1)}),
    "no moment": lambda tensors: tensors.pop("0001.exp_avg_sq"),
    "losses in a square": lambda tensors: tensors.update(losses=torch.zeros(2, 2)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_whole_checkpoint_of_another_training_is_refused_by_name(
    what: str, cidm: Cidm, stopped: Registry, pictures: Path
) -> None:
    run = stopped.find_run("dog")
    assert run is not None
    step, blob = run.latest() or (0, b"")
    tensors = load(blob)
    FOREIGN[what](tensors)
    run.save(step, b"PK nothing" if what == "no safetensors" else save(tensors))
    ran = cidm("learn", "dog", pictures, *SAME, "--resume", "--registry", stopped.root)
    assert ran.code == ExitCode.INVALID
    assert "--restart" in ran.error
    assert "dog" in ran.error


def test_what_is_learned_is_learned_though_its_run_cannot_be_cleared_away(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("cidm_registry.disk.Disk.remove_tree", broken)
    ran = cidm("learn", "dog", pictures, *SAME, "--registry", tiny_registry.root)
    assert ran.code == 0
    assert "cidm gc --runs" in ran.err
    assert tiny_registry.get("dog").name == "dog"


def test_an_unfinished_run_is_neither_resumed_nor_dropped_unasked(
    cidm: Cidm, stopped: Registry, pictures: Path
) -> None:
    before = files_of(stopped.root)
    ran = cidm("learn", "dog", pictures, "--registry", stopped.root, *SAME)
    assert ran.code == ExitCode.FAILED
    assert "step 2" in ran.error
    assert "--resume" in ran.error
    assert "--restart" in ran.error
    assert files_of(stopped.root) == before


def test_restart_begins_again_with_other_options(cidm: Cidm, stopped: Registry, pictures: Path) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", stopped.root, *FAST, "--restart", "--json")
    assert ran.code == 0, ran.err
    assert ran.answer["concept"]["losses"]["steps"] == 4
    assert stopped.runs() == []


def test_an_unfinished_run_does_not_stand_in_the_way_of_another_concept(
    cidm: Cidm, stopped: Registry, pictures: Path
) -> None:
    assert cidm("learn", "cat", pictures, "--registry", stopped.root, *FAST).code == 0
    assert [run.config["key"] for run in stopped.runs()] == ["dog"]


def test_resume_without_a_run_starts_at_the_first_step(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--resume")
    assert ran.code == 0, ran.err
    assert "step 0" in ran.err


def test_resume_and_restart_exclude_each_other(cidm: Cidm, stopped: Registry, pictures: Path) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", stopped.root, *SAME, "--resume", "--restart")
    assert ran.code == ExitCode.USAGE


# Ctrl-C

SLOW = """
import sys, time
from cidm_cli.learn import run as learn
from cidm_cli.shell.main import main

sound = learn.train_step

def slow(trainee, *rest):
    loss = sound(trainee, *rest)
    if trainee.step >= 2:
        print("going on", flush=True)
        time.sleep(1)
    return loss

learn.train_step = slow
sys.exit(main(sys.argv[1:]))
"""
"""The program, with a second's rest in each step from the second on, so that a signal finds it at work."""


@pytest.mark.usefixtures("plain_signals")
def test_ctrl_c_saves_a_checkpoint_from_which_resume_reaches_the_same_bytes(
    cidm: Cidm, base: Base, tiny_registry: Registry, pieces: Path, whole: str
) -> None:
    arguments = ["learn", "dog", pieces, "--registry", tiny_registry.root, *SAME]
    program = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with program:
        assert program.stdout is not None
        assert program.stderr is not None
        try:
            assert program.stdout.readline() == "going on\n"
            program.send_signal(signal.SIGINT)
            told = program.stderr.read()
            assert program.wait(timeout=30) == ExitCode.INTERRUPTED, told
        finally:
            program.kill()
    assert "checkpoint saved" in told
    assert "--resume" in told
    assert "Traceback" not in told
    assert tiny_registry.records() == []
    assert tiny_registry.verify() == []
    run = tiny_registry.find_run("dog")
    assert run is not None
    latest = run.latest()
    assert latest is not None
    assert 2 <= latest[0] < STEPS
    assert cidm(*arguments, "--resume").code == 0
    assert tiny_registry.get("dog").blob == whole


@pytest.mark.usefixtures("plain_signals")
def test_a_second_ctrl_c_ends_at_once_and_leaves_the_registry_clean(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = workflow.train_step
    steps: list[int] = []

    def signalled(trainee: Any, *rest: Any) -> float:
        loss = sound(trainee, *rest)
        steps.append(trainee.step)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(workflow, "train_step", signalled)
    before = signal.getsignal(signal.SIGINT)
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST)
    assert ran.code == ExitCode.INTERRUPTED
    assert "interrupted" in ran.error
    assert steps == [1]
    assert signal.getsignal(signal.SIGINT) is before
    assert tiny_registry.records() == []
    assert cidm("verify", "--registry", tiny_registry.root).code == 0
