"""Several processes at one command do what one does, and end together, however one of them fails."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load

import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn import shares
from cidm_cli.machine.processes import SOLO, Crew, found
from cidm_cli.models.base import Base
from cidm_cli.options.learn import resolve_learn
from cidm_registry import Registry
from command import Cidm, Ran
from crew import LONGEST, environment, run_together
from learning import FAST, files_of, learn_direct, task

LOOK = ("--steps", 1, "-n", 2)


def only_one_speaks(ran: list[Ran], code: int) -> Ran:
    """The main process's part; all have ended alike, and nobody else has said anything."""
    main, *others = ran
    assert {one.code for one in ran} == {code}, ran
    assert all((one.out, one.err) == ("", "") for one in others), others
    return main


# Shares of a step


@pytest.mark.parametrize(
    ("batch", "accumulate", "count"), [(8, 1, 2), (4, 3, 2), (2, 3, 3), (2, 3, 6), (6, 1, 1)]
)
def test_processes_share_a_steps_samples_evenly_and_none_is_learned_twice(
    batch: int, accumulate: int, count: int
) -> None:
    options = resolve_learn(dict(batch=batch, accumulate=accumulate), "sd15")
    dealt = [
        [(part, number) for part, numbers in shares.pieces(options, Crew(count, rank)) for number in numbers]
        for rank in range(count)
    ]
    assert {len(some) for some in dealt} == {batch * accumulate // count}
    assert [*itertools.chain(*dealt)] == [
        (part, number) for part in range(accumulate) for number in range(batch)
    ]


@pytest.mark.parametrize(("batch", "accumulate", "count"), [(1, 1, 2), (8, 1, 3), (3, 2, 4), (5, 7, 6)])
def test_what_cannot_be_shared_is_refused_with_numbers_that_can(
    batch: int, accumulate: int, count: int
) -> None:
    with pytest.raises(CidmError) as caught:
        shares.check(resolve_learn(dict(batch=batch, accumulate=accumulate), "sd15"), Crew(count))
    assert caught.value.code == ExitCode.USAGE
    assert caught.value.hint
    words = caught.value.hint.split()
    larger, more = int(words[words.index("--batch") + 1]), int(words[words.index("--accumulate") + 1])
    assert larger > batch
    assert more > accumulate
    shares.check(resolve_learn(dict(batch=larger, accumulate=accumulate), "sd15"), Crew(count))
    shares.check(resolve_learn(dict(batch=batch, accumulate=more), "sd15"), Crew(count))


def test_a_launcher_is_recognised_by_what_it_sets_and_half_a_one_is_refused() -> None:
    assert found({}) == found({"WORLD_SIZE": "1", "RANK": "0"}) == SOLO
    assert found({"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"}) == Crew(8, 5, 1)
    for half in ({"RANK": "x"}, {}, {"RANK": "2"}):
        with pytest.raises(CidmError) as caught:
            found({"WORLD_SIZE": "2", **half})
        assert caught.value.code == ExitCode.USAGE


# Learning


@pytest.fixture
def knows_dog(tiny_registry: Registry, base: Base, pictures: Path) -> Registry:
    """A registry that has learned <dog> from the pictures."""
    learn_direct(tiny_registry, base, task(pictures))
    return tiny_registry


def learned(registry: Registry, name: str) -> dict[str, torch.Tensor]:
    return load(registry.read_blob(registry.get(name).blob))


def same_training(one: Registry, several: Registry, name: str, *, r1: bool = False) -> None:
    """Of a concept that was learned by one process and by several.

    R1 compares directions of weights that begin at nothing and are nearly collinear after AdamW's first step: there the
    last digits of a sum grow to a part of a step. Without it they do not.
    """
    first, second = one.get(name), several.get(name)
    assert first.config == second.config
    assert first.losses == pytest.approx(second.losses, rel=5e-3 if r1 else 1e-4)
    mine, theirs = learned(one, name), learned(several, name)
    assert mine.keys() == theirs.keys()
    for key, tensor in mine.items():
        if r1:
            alike = torch.cosine_similarity(tensor.flatten().float(), theirs[key].flatten().float(), 0)
            assert float(alike) > 0.999, key
        else:
            # The order of sums decides the last digits, and AdamW's first steps are nearly the gradients' signs.
            torch.testing.assert_close(theirs[key], tensor, rtol=1e-4, atol=1e-4)


def test_accelerate_launch_learns_what_one_process_learns_and_commits_it_once(
    knows_dog: Registry, base: Base, tmp_path: Path
) -> None:
    """Against an older concept, beside prior pictures, in batches of which each process has one and a half."""
    other = Registry.open(shutil.copytree(knows_dog.root, tmp_path / "other"))
    cats = tiny.save_pictures(tmp_path / "cats", ("a photo of a cat",) * 4, seed=1)
    said = (*FAST, "--accumulate", 3, "--prior", 3, "--gamma1", 0, "--precision", "fp32")
    launched = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2",
            "--main_process_port", "0", "-m", "cidm_cli", "learn", "cat", str(cats),
            "--registry", str(other.root), "--json", *map(str, said),
        ],
        capture_output=True, text=True, check=False, timeout=LONGEST, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    (answer,) = [json.loads(line) for line in launched.stdout.splitlines()]
    assert answer["concept"]["name"] == "cat"
    assert [record.name for record in other.records(all_versions=True)] == ["dog", "cat"]
    assert other.runs() == []
    assert other.verify() == []
    learn_direct(knows_dog, base, task(cats, name="cat", noun="cat", accumulate=3, prior=3, gamma1=0.0))
    same_training(knows_dog, other, "cat")
    assert "prior" in other.get("cat").losses


def test_a_training_that_one_process_stops_ends_in_all_and_goes_on_in_any_number(
    knows_dog: Registry, base: Base, pictures: Path, tmp_path: Path
) -> None:
    other = Registry.open(shutil.copytree(knows_dog.root, tmp_path / "other"))
    command = [
        "learn",
        "toy",
        pictures,
        "--registry",
        other.root,
        *FAST,
        "--class",
        "dog",
        "--precision",
        "fp32",
    ]
    nan, full, stopped, again = run_together(
        command, [*command, "--restart"], [*command, "--restart"], [*command, "--resume", "-q"],
        breaks={0: "nan loss", 1: "full disk", 2: "stopped"},
    )  # fmt: skip
    error = only_one_speaks(nan, ExitCode.FAILED).error
    assert "process 2 of 2: concept toy: the loss is nan at step 2; nothing was committed" in error
    assert "No space left on device" in only_one_speaks(full, ExitCode.FAILED).error
    assert "stopped at step 2 of 4; checkpoint saved" in only_one_speaks(stopped, ExitCode.INTERRUPTED).error
    resumed = only_one_speaks(again, 0)
    assert resumed.out == "toy\n"
    assert [record.name for record in other.records(all_versions=True)] == ["dog", "toy"]
    assert other.runs() == []
    learn_direct(knows_dog, base, task(pictures, name="toy", noun="dog"))
    same_training(knows_dog, other, "toy", r1=True)
    assert "r1" in other.get("toy").losses


# Drawing and judging


def test_pictures_and_scores_are_those_of_one_process(
    cidm: Cidm, place: Path, tmp_path: Path, elsewhere: Path
) -> None:
    registry = shutil.copytree(place / "registry", tmp_path / "registry")
    twin = shutil.copytree(place / "registry", tmp_path / "twin")
    # Files of the last two prompts have the same names, and each is drawn by both processes.
    prompts = ("a <dog>", "a <cat>", "a cat")
    draw = ["generate", "--json", "--steps", 1, "-n", 5, "--batch", 2]
    draw += [word for prompt in prompts for word in ("-p", prompt)]
    judge = ["eval", "--json", *LOOK, "--data", place / "data"]
    judge += ["--clip", place / "clip", "--dino", place / "dino"]
    refused = ["generate", "-p", "a <dgo>", "--registry", twin, "-o", "none"]
    # What is wrong with the second is seen while it is drawn, by one of the processes.
    Path("plain.toml").write_text('version = 1\n[base]\nprompt = "a dog"\n')
    Path("black.toml").write_text(
        'version = 1\n[base]\nprompt = "a dog"\n[[region]]\nprompt = "a <dog>"\nmask = "black.png"\n'
        "box = [0.0, 0.0, 0.5, 0.5]\n"
    )
    mask = Image.new("L", (64, 64))
    mask.putpixel((63, 63), 255)
    mask.save("black.png")
    black = ["generate", *LOOK, "plain.toml", "black.toml", "--registry", twin, "-o", "black"]
    other = ["rename", "dog", "rex", "--registry", twin]
    drawn, judged, unknown, cut, alone = run_together(
        [*draw, "--registry", twin, "-o", "theirs"], [*judge, "--registry", twin, "-o", "their-eval"],
        refused, black, other,
    )  # fmt: skip

    one = cidm(*draw, "--registry", registry, "-o", "mine").answer["images"]
    theirs = only_one_speaks(drawn, 0).answer["images"]
    assert [{**image, "path": Path(image["path"]).name} for image in theirs] == [
        {**image, "path": Path(image["path"]).name} for image in one
    ]
    assert len(files_of(elsewhere / "mine")) == 15
    assert files_of(elsewhere / "theirs") == files_of(elsewhere / "mine")

    mine = cidm(*judge, "--registry", registry, "-o", "my-eval").answer["evaluation"]
    assert only_one_speaks(judged, 0).answer["evaluation"] == mine
    assert files_of(elsewhere / "their-eval" / "samples") == files_of(elsewhere / "my-eval" / "samples")
    assert Registry.open(twin).get("dog").scores["eval"] == Registry.open(registry).get("dog").scores["eval"]

    assert "did you mean" in only_one_speaks(unknown, ExitCode.NOT_FOUND).error
    error = only_one_speaks(cut, ExitCode.INVALID).error
    assert "process 2 of 2" in error
    assert "mask is black all over the box" in error
    assert "cidm rename: is done by one process" in only_one_speaks(alone, ExitCode.USAGE).error
    assert Registry.open(twin).get("dog")
