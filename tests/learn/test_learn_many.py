"""Several concepts in one command: as one after another, with what is done kept where one of them fails."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

import tiny
from cidm_cli.errors import ExitCode
from cidm_cli.models import base as models
from cidm_registry import Registry
from command import Cidm
from learning import FAST


@pytest.fixture
def folders(elsewhere: Path, pictures: Path) -> list[str]:
    """NAME=IMAGES of <rex>, <tom> and <bird>, the nouns in captions and names."""
    shutil.copytree(pictures, "rex pictures")
    tiny.save_pictures(Path("cats"), ("a photo of a cat",) * 3, seed=1)
    Image.new("RGB", (64, 64), "red").save("bird.png")
    return ["rex=./rex pictures", "tom=cats", "bird=bird.png"]


def test_several_are_learned_one_after_another_as_by_themselves(
    cidm: Cidm, tiny_registry: Registry, folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--registry", tiny_registry.root, *FAST)
    planned = cidm("learn", *folders, *where, "--dry-run", "--json").answer["concepts"]
    assert [(one["name"], one["plan"]["images"]) for one in planned] == [("rex", 3), ("tom", 3), ("bird", 1)]
    assert tiny_registry.records() == []
    loaded = []
    load = models.load
    monkeypatch.setattr(models, "load", lambda *args, **how: (loaded.append(1), load(*args, **how))[1])
    answer = cidm("learn", *folders, *where, "--json").answer
    assert loaded == [1], "the base is loaded once"
    records = tiny_registry.records()
    assert [(one.name, one.class_noun) for one in records] == [
        ("rex", "dog"),
        ("tom", "cat"),
        ("bird", "bird"),
    ]
    assert [one["concept"]["blob"] for one in answer["concepts"]] == [one.blob for one in records]
    assert [one.against.count for one in records] == [0, 1, 2]
    other = Registry.create(tiny_registry.root.with_name("other"), tiny_registry.base)
    for name, images in (one.split("=") for one in folders[:2]):
        assert cidm("learn", name, images, "--registry", other.root, *FAST).code == 0
    assert [one.blob for one in other.records()] == [one.blob for one in records[:2]]


def test_where_one_fails_the_others_stay_and_the_command_that_goes_on_is_told(
    cidm: Cidm, tiny_registry: Registry, folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cidm_cli.learn import run

    real = run.train_step

    def train_step(trainee: run.Trainee, *rest: object) -> float:
        """Stops as Ctrl-C does at the second concept's second step."""
        if trainee.name == "tom" and trainee.step == 2:
            raise run.CidmError("stopped here", code=ExitCode.INTERRUPTED)
        return real(trainee, *rest)  # type: ignore[arg-type]

    said = ("--registry", tiny_registry.root, *FAST, "--checkpoint-every", 1, "--no-cache")
    with monkeypatch.context() as patched:
        patched.setattr(run, "train_step", train_step)
        ran = cidm("learn", *folders, *said, "--json")
    assert ran.code == ExitCode.INTERRUPTED
    told = ran.answer["error"]
    assert (told["learned"], told["left"]) == (["rex"], ["tom", "bird"])
    assert f"learned: rex; to go on: {told['go_on']}\n" in ran.err
    program, *words = shlex.split(told["go_on"])
    assert (program, words[:3]) == ("cidm", ["learn", "tom=cats", "bird=bird.png"])
    assert {"--resume", "--no-cache", "--no-preview-image", "--checkpoint-every"} <= {*words}
    again = cidm(*words)
    assert (again.code, "going on from step 2" in again.err) == (0, True), again.err
    assert [one.name for one in tiny_registry.records()] == ["rex", "tom", "bird"]
    assert tiny_registry.runs() == []


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("dog",), ExitCode.USAGE, "no images are given"),
        (("dog", "a", "b"), ExitCode.USAGE, "one too many"),
        (("dog=a", "cat"), ExitCode.USAGE, "is not NAME=IMAGES"),
        (("dog=a", "cat="), ExitCode.USAGE, "is not NAME=IMAGES"),
        (("rex=cats", "Rex=cats"), ExitCode.USAGE, "given twice"),
        (("./x=cats",), ExitCode.USAGE, "./x"),
        (("rex=cats", "tom=nowhere"), ExitCode.NOT_FOUND, "nowhere"),
        (("rex=cats", "tom=cats", "--preview", "a <rex>"), ExitCode.USAGE, "does not name <tom>"),
    ],
)
@pytest.mark.usefixtures("no_model", "folders")
def test_all_are_looked_at_before_the_first_is_learned(
    given: tuple[str, ...], code: int, said: str, cidm: Cidm, tiny_registry: Registry
) -> None:
    ran = cidm("learn", *given, "--registry", tiny_registry.root, *FAST)
    assert (ran.code, said in ran.error) == (code, True), ran.err
    assert "to go on" not in ran.err
