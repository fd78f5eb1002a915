"""`cidm eval --layouts` as a command: what it prints and writes, and what it refuses early."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cidm_cli.errors import ExitCode
from command import Cidm, Ran
from learning import files_of

SCENE = """
[base]
prompt = "a photo of a dog and a cat"
[[region]]
prompt = "a <dog>"
box = [0.0, 0.25, 0.5, 1.0]
[[region]]
prompt = "a <cat>"
box = [0.5, 0.25, 1.0, 1.0]
"""


@pytest.fixture
def run(cidm: Cidm, place: Path, tmp_path: Path) -> Callable[..., Ran]:
    """Runs `cidm eval` on a copy of the registry, quickly, in a folder with two layouts."""
    registry = shutil.copytree(place / "registry", tmp_path / "registry")
    Path("scenes").mkdir()
    Path("scenes/one.toml").write_text(SCENE)
    Path("scenes/two.toml").write_text(SCENE.replace("0.5, 1.0]", "0.5, 0.75]"))

    def evaluate(*arguments: object) -> Ran:
        given = ["--data", place / "data", "--clip", place / "clip", "--dino", place / "dino", "-o", "out"]
        return cidm("eval", "--registry", registry, "--steps", 1, "-n", 2, *given, *arguments)

    return evaluate


def test_json_and_files_tell_the_same_and_the_registry_is_left_alone(
    run: Callable[..., Ran], place: Path, tmp_path: Path
) -> None:
    ran = run("--json", "--layouts", "scenes", "--rivals", "own,plain")
    assert ran.code == 0, ran.err
    answer = ran.answer
    assert json.loads(Path("out/layouts.json").read_text()) == answer["layouts"]
    told = answer["layouts"]
    assert [scores["name"] for scores in told["layouts"]] == ["scenes/one.toml", "scenes/two.toml"]
    assert set(told["figures"]) == {"own", "plain", "alone", "single", "base"}
    assert all(
        (Path("out/samples") / name).is_file() for s in told["layouts"] for name in s["shown"].values()
    )
    assert {Path(path).name for path in answer["files"].values()} == {"layouts.json", "layouts.html"}
    assert files_of(tmp_path / "registry") == files_of(place / "registry")


def test_people_see_a_row_for_each_way_and_a_page_of_all_images(run: Callable[..., Ran]) -> None:
    second = Path("scenes/two.toml").absolute()
    ran = run("--layouts", "scenes/one.toml", "--layouts", second, "--rivals", "fast,neither")
    assert ran.code == 0, ran.err
    head, *rows, told = ran.out.splitlines()
    assert head.split()[:4] == ["DRAWN", "IA", "CLIP", "DINO"]
    assert [row.split()[0] for row in rows] == ["fast", "neither", "alone", "single", "base"]
    assert max(len(row) for row in (head, *rows)) <= 120
    assert "out" in told
    page = Path("out/layouts.html").read_text()
    # Of each layout: two rivals, each of its two concepts alone and as a single image, and the base.
    assert page.count("data:image/png;base64,") == 2 * (2 + 2 + 2 + 1)
    assert "alone: &lt;dog&gt;" in page
    assert 'src="http' not in page
    assert str(second.parent) not in page, "no path of the machine"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--layouts", "scenes", "--rivals", "own,best"), ExitCode.USAGE, "best"),
        (("--layouts", "scenes", "--rivals", ","), ExitCode.USAGE, "--rivals"),
        (("--rivals", "own"), ExitCode.USAGE, "--rivals"),
        (("--layouts", "scenes", "--prompts", "pet"), ExitCode.USAGE, "--prompts"),
        (("--layouts", "scenes", "--concepts", "dog"), ExitCode.USAGE, "--concepts"),
        (("--layouts", "scenes", "--merged", "all.safetensors"), ExitCode.USAGE, "--merged"),
        (("--layouts", "scenes", "--method", "lora-c"), ExitCode.USAGE, "lora-c"),
        (("--layouts", "nowhere.toml"), ExitCode.NOT_FOUND, "nowhere.toml"),
        (("--layouts", "empty"), ExitCode.NOT_FOUND, "empty"),
        (("--layouts", "bad.toml"), ExitCode.NOT_FOUND, "bad.toml:"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_what_cannot_be_judged_is_refused_by_name_before_a_model_is_loaded(
    arguments: tuple[object, ...], code: ExitCode, said: str, run: Callable[..., Ran]
) -> None:
    Path("empty").mkdir()
    Path("bad.toml").write_text(SCENE.replace("<dog>", "<dgo>"))
    ran = run(*arguments)
    assert ran.code == code, ran.err
    assert said in ran.error
    assert not Path("out").exists()
