"""`cidm eval` as a command: what it prints and writes, where settings come from, and what it refuses early."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cidm_cli.draw import images as generate
from cidm_cli.errors import ExitCode
from cidm_cli.models.identity import identify
from cidm_registry import Registry
from command import Cidm, Ran
from learning import files_of

FILES = {"results.json", "heatmap.png", "forgetting.png", "confusion.png", "report.html"}


@pytest.fixture
def run(cidm: Cidm, place: Path, tmp_path: Path) -> Callable[..., Ran]:
    """Runs `cidm eval` on a copy of the registry, quickly."""
    registry = shutil.copytree(place / "registry", tmp_path / "registry")

    def evaluate(*arguments: object, data: object = place / "data", judges: bool = True) -> Ran:
        said = ["--clip", place / "clip", "--dino", place / "dino"] if judges else []
        given = ["--data", data] if data else []
        return cidm("eval", "--registry", registry, *given, "--steps", 1, "-n", 2, *said, *arguments)

    return evaluate


def test_json_files_and_records_tell_the_same(run: Callable[..., Ran], cidm: Cidm, tmp_path: Path) -> None:
    ran = run("--json", "-o", "out")
    assert ran.code == 0, ran.err
    answer = ran.answer
    assert {Path(path).name for path in answer["files"].values()} == FILES
    told = answer["evaluation"]
    assert json.loads(Path("out/results.json").read_text()) == told
    assert [(c["name"], c["learned"]) for c in told["concepts"]] == [("dog", 1), ("cat", 2)]
    assert told["draw"]["steps"] == 1
    assert set(told["judges"]) == {"clip", "dino"} == set(told["means"]["ia"])
    assert set(told["concepts"][0]["states"]) == {"1", "2"}
    records = cidm("list", "--json", "--registry", tmp_path / "registry").answer["concepts"]
    for record, concept in zip(records, told["concepts"], strict=True):
        assert record["scores"]["eval"]["ia"] == concept["states"]["2"]["ia"]
    for name in ("heatmap", "forgetting", "confusion"):
        with Image.open(f"out/{name}.png") as plot:
            assert min(plot.size) > 200
    shown = [name for concept in told["concepts"] for name in concept["base"]["shown"]]
    assert shown
    assert all((Path("out/samples") / name).is_file() for name in shown)


def test_people_see_a_table_and_a_page_of_images(run: Callable[..., Ran], place: Path) -> None:
    ran = run("-o", "out")
    assert ran.code == 0, ran.err
    head, dog, cat, mean, base, told = ran.out.splitlines()
    assert head.split()[:6] == ["CONCEPT", "#", "IA", "CLIP", "DINO", "FORGOT"]
    assert dog.split()[:2] == ["dog", "1"]
    assert cat.split()[:2] == ["cat", "2"]
    assert mean.startswith("mean")
    assert base.startswith("class noun, no concept")
    assert "out" in told
    page = Path("out/report.html").read_text()
    # Plots, light and dark; for dog references, base, just learned, at the end; for cat the same without an end.
    assert page.count("data:image/png;base64,") == 2 * 3 + (3 + 2 + 2 + 2) + (3 + 2 + 2)
    assert "<th>Image alignment ↑ CLIP</th>" in page
    assert 'src="http' not in page
    assert str(place) not in page, "no path of the machine"


def test_quiet_prints_the_files_and_nothing_else(run: Callable[..., Ran]) -> None:
    ran = run("-q", "-o", "out", "--no-save")
    assert {Path(line).name for line in ran.out.splitlines()} == FILES
    assert ran.err == ""


def test_no_save_leaves_the_registry_as_it_was(run: Callable[..., Ran], place: Path, tmp_path: Path) -> None:
    assert run("--no-save", "-o", "out").code == 0
    assert files_of(tmp_path / "registry") == files_of(place / "registry")


def test_every_task_fills_the_matrix_and_the_default_its_ends(run: Callable[..., Ran]) -> None:
    whole = run("--json", "--every-task", "--method", "mean", "-o", "out").answer["evaluation"]
    assert [[value is None for value in row] for row in whole["ia_matrix"]["clip"]] == [
        [False, True],
        [False, False],
    ]
    assert whole["method"] == "mean"
    assert [state for state, _ in whole["states"]] == [1, 2]


def test_concepts_prompts_and_noun_are_what_was_asked_for(run: Callable[..., Ran], tmp_path: Path) -> None:
    Path("mine.txt").write_text("a {}\na {} in the snow\na red {}\n")
    ran = run(
        "--json", "--concepts", "CAT", "--prompts", "mine.txt", "--limit-prompts", 2, "--class-noun", "toy",
        "--dino", "none", "-o", "out",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    told = ran.answer["evaluation"]
    (concept,) = told["concepts"]
    assert (concept["name"], concept["class_noun"], concept["prompts"]) == ("cat", "toy", 2)
    assert told["rivals"] == ["dog", "cat"], "confusion is among all concepts with pictures"
    assert list(told["judges"]) == ["clip"]


def test_a_plain_folder_of_folders_will_do_and_what_it_lacks_is_said(
    run: Callable[..., Ran], place: Path
) -> None:
    shutil.copytree(place / "data" / "pictures" / "dog", "mine/dog")
    ran = run("--json", "--limit-prompts", 1, "-o", "out", data="mine")
    assert ran.code == 0, ran.err
    told = ran.answer["evaluation"]
    assert [c["name"] for c in told["concepts"]] == ["dog"]
    assert [name for name, _ in told["skipped"]] == ["cat"]
    assert "cat" in ran.err


def test_settings_are_read_from_files_and_the_environment(
    run: Callable[..., Ran], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("cidm.toml").write_text(f'[eval]\nclip = "{place / "clip"}"\nseed = 7\nsave = false\n')
    monkeypatch.setenv("CIDM_EVAL_DINO", "none")
    told = run("--json", "--limit-prompts", 1, "-o", "out", judges=False).answer["evaluation"]
    assert told["draw"]["seed"] == 7
    assert list(told["judges"]) == ["clip"]


def test_stopped_by_ctrl_c_it_says_how_to_go_on_and_goes_on(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generate.draw

    def stop(*args: Any, **options: Any) -> Iterator[Any]:
        for number, picture in enumerate(real(*args, **options)):
            if number == 3:
                raise KeyboardInterrupt
            yield picture

    monkeypatch.setattr(generate, "draw", stop)
    ran = run("--json", "-o", "out")
    assert ran.code == ExitCode.INTERRUPTED
    assert ran.answer["ok"] is False
    assert "same command" in ran.error
    kept = files_of(Path("out"))
    assert len(kept) == 3
    monkeypatch.setattr(generate, "draw", real)
    assert run("--json", "-o", "out").code == 0
    assert files_of(Path("out")).items() >= kept.items()


# Refused before a model is loaded


@pytest.mark.usefixtures("no_model")
def test_a_place_that_cannot_be_written_is_told_before_hours_of_judging(run: Callable[..., Ran]) -> None:
    Path("file").write_text("mine")
    ran = run("-o", "file/judged")
    assert ran.code == ExitCode.FAILED
    assert "file/judged" in ran.error
    assert "cannot be written" in ran.error


@pytest.mark.usefixtures("no_model")
def test_a_base_without_data_of_its_own_needs_some(run: Callable[..., Ran]) -> None:
    ran = run(data=None)
    assert ran.code == ExitCode.USAGE
    assert "--data" in ran.error


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--concepts", "dgo"), ExitCode.NOT_FOUND, "dog"),
        (("--concepts", ","), ExitCode.USAGE, "--concepts"),
        (("--prompts", "pets"), ExitCode.NOT_FOUND, "--prompts pets"),
        (("-n", 0), ExitCode.USAGE, "--samples 0"),
        (("--limit-prompts", 0), ExitCode.USAGE, "--limit-prompts 0"),
        (("--clip", "none"), ExitCode.USAGE, "--clip"),
        (("--clip", "nothing/here"), ExitCode.NOT_FOUND, "nothing/here"),
        (("--method", "best"), ExitCode.USAGE, "--method best"),
        (("--steps", 0), ExitCode.USAGE, "--steps 0"),
        (("--data", "nowhere"), ExitCode.NOT_FOUND, "nowhere"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_what_cannot_be_judged_is_refused_by_name(
    arguments: tuple[object, ...],
    code: ExitCode,
    said: str,
    run: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ran = run(*arguments, "-o", "out")
    assert ran.code == code, ran.err
    assert said in ran.error
    assert not Path("out").exists()


@pytest.mark.usefixtures("no_model")
def test_data_of_none_of_the_concepts_says_what_it_has(run: Callable[..., Ran], place: Path) -> None:
    shutil.copytree(place / "data" / "pictures" / "dog", "mine/horse")
    ran = run(data="mine")
    assert ran.code == ExitCode.NOT_FOUND
    assert "horse" in ran.error


def test_an_empty_registry_has_nothing_to_judge(
    cidm: Cidm, place: Path, tiny_base: Path, tmp_path: Path
) -> None:
    registry = Registry.create(tmp_path / "empty", identify(str(tiny_base)))
    ran = cidm("eval", "--registry", registry.root, "--data", place / "data")
    assert ran.code == ExitCode.NOT_FOUND
