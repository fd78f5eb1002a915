"""Reference pictures in other shapes than ours: CustomConcept101's list, folders of concepts; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cidm_cli.data import load_examples
from cidm_cli.demo import tasks_folder
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge.benchmarks import load_benchmark
from cidm_cli.judge.tasks import CONCEPT_MARK, load_tasks, read_prompts

ENTRY = {
    "instance_prompt": "photo of a <new1> action figure",
    "class_prompt": "action figure",
    "instance_data_dir": "./benchmark_dataset/actionfigure_1",
    "class_data_dir": "./regularization/actionfigure",
    "prompt_filename": "prompts/actionfigure.txt",
}


def custom101(folder: Path, entries: Any = (ENTRY,), *, pictures: bool = True) -> Path:
    """A folder laid out as CustomConcept101 is."""
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "actionfigure.txt").write_text(
        "photo of a {}.\n\n{} in the snow.\n{} beside a {}\n"
    )
    if pictures:
        (folder / "benchmark_dataset" / "actionfigure_1").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(entries if isinstance(entries, dict) else list(entries)))
    return folder


def refused(path: Path) -> CidmError:
    with pytest.raises(CidmError) as caught:
        load_benchmark(path)
    assert "\n" not in caught.value.message
    return caught.value


# What is read


def test_custom_concept_101_is_read_as_tasks(tmp_path: Path) -> None:
    folder = custom101(tmp_path / "cc101")
    (task,) = load_benchmark(folder).tasks
    assert (task.name, task.class_noun, task.style) == ("actionfigure_1", "action figure", False)
    assert task.images == folder / "benchmark_dataset" / "actionfigure_1"
    assert task.prompts == ("photo of a <TOK>.", "<TOK> in the snow.", "<TOK> beside a <TOK>")
    assert load_benchmark(folder / "dataset.json").tasks == (task,)


def test_concepts_whose_pictures_were_not_unpacked_are_left_out_with_a_note(tmp_path: Path) -> None:
    other = {**ENTRY, "instance_data_dir": "./benchmark_dataset/pet_dog1", "class_prompt": "dog"}
    benchmark = load_benchmark(custom101(tmp_path / "cc101", [ENTRY, other]))
    assert [task.name for task in benchmark.tasks] == ["actionfigure_1"]
    (note,) = benchmark.notes
    assert "pet_dog1" in note


def test_a_folder_of_folders_is_a_concept_each(tmp_path: Path) -> None:
    for name in ("n01440764", "dog", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").write_text("read me")
    tasks = load_benchmark(tmp_path).tasks
    assert [(task.name, task.images) for task in tasks] == [
        ("dog", tmp_path / "dog"),
        ("n01440764", tmp_path / "n01440764"),
    ]
    assert {(task.class_noun, task.prompts) for task in tasks} == {("", ())}, "the data does not say"


def test_a_tasks_file_wins_and_is_read_as_ever() -> None:
    folder = tasks_folder()
    assert load_benchmark(folder).tasks == load_tasks(folder) == load_benchmark(folder / "tasks.toml").tasks


def test_every_shipped_task_has_pictures_and_marked_prompts() -> None:
    for task in load_benchmark(tasks_folder()).tasks:
        assert load_examples(task.images, class_noun=task.class_noun).examples
        assert all(CONCEPT_MARK in prompt for prompt in task.prompts)


# What is refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "64 deep"),
        ("{}", "not a list"),
        ("[]", "not a list"),
        ("[3]", "entry 1 is not a concept"),
        (json.dumps([[ENTRY, ENTRY]]), "several concepts"),
    ],
)
def test_a_list_that_is_none_is_refused_by_name(content: str, said: str, tmp_path: Path) -> None:
    folder = custom101(tmp_path / "cc101")
    (folder / "dataset.json").write_text(content)
    error = refused(folder)
    assert error.code == ExitCode.INVALID
    assert "dataset.json" in error.message
    assert said in error.message


@pytest.mark.parametrize("key", ["class_prompt", "instance_data_dir", "prompt_filename"])
@pytest.mark.parametrize("value", [None, 7, "", " ", ["dog"]])
def test_an_entry_that_lacks_something_is_refused_by_number_and_key(
    key: str, value: object, tmp_path: Path
) -> None:
    error = refused(custom101(tmp_path / "cc101", [ENTRY, {**ENTRY, key: value}]))
    assert error.code == ExitCode.INVALID
    assert "entry 2" in error.message
    assert key in error.message


@pytest.mark.parametrize(
    "place", ["/etc", "../other", "a/../../b", "C:\\pictures", "\\\\host\\share", ".", "./", "a\0b"]
)
@pytest.mark.parametrize("key", ["instance_data_dir", "prompt_filename"])
def test_no_entry_leads_out_of_its_folder(key: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    error = refused(custom101(tmp_path / "cc101", [{**ENTRY, key: place}]))
    assert error.code == ExitCode.INVALID
    assert key in error.message


def test_two_entries_of_one_folder_are_refused(tmp_path: Path) -> None:
    assert "actionfigure_1" in refused(custom101(tmp_path / "cc101", [ENTRY, ENTRY])).message


def test_a_list_without_any_pictures_says_to_unpack_them(tmp_path: Path) -> None:
    error = refused(custom101(tmp_path / "cc101", pictures=False))
    assert error.code == ExitCode.NOT_FOUND
    assert "actionfigure_1" in error.message
    assert "unpack" in str(error.hint)


def test_a_missing_file_of_prompts_is_named(tmp_path: Path) -> None:
    error = refused(custom101(tmp_path / "cc101", [{**ENTRY, "prompt_filename": "prompts/none.txt"}]))
    assert error.code == ExitCode.NOT_FOUND
    assert "none.txt" in error.message


@pytest.mark.parametrize("content", ["a dog\n", "\n \n", "a {}\na <TOK>\n"])
def test_prompts_without_the_mark_are_refused(content: str, tmp_path: Path) -> None:
    folder = custom101(tmp_path / "cc101")
    (folder / "prompts" / "actionfigure.txt").write_text(content)
    assert "actionfigure.txt" in refused(folder).message


def test_prompts_of_either_mark_read_the_same(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("a <TOK>, {}\n")
    (tmp_path / "two").write_text("a {}, <TOK>\n")
    assert read_prompts(tmp_path / "one") == ("a <TOK>, {}",)
    assert read_prompts(tmp_path / "two", mark="{}") == ("a <TOK>, <TOK>",)


@pytest.mark.parametrize("place", ["nowhere", "nowhere/dataset.json", "nowhere/tasks.toml"])
def test_data_that_is_not_there_is_named(place: str, tmp_path: Path) -> None:
    error = refused(tmp_path / place)
    assert error.code == ExitCode.NOT_FOUND
    assert "nowhere" in error.message


def test_a_folder_without_folders_says_how_it_should_look(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.code == ExitCode.INVALID
    assert "dog" in str(error.hint)
