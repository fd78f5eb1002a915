"""`cidm generate` as a command: layouts, settings, files, and what it refuses before a model is loaded."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

import tiny
from cidm_cli.draw import png
from cidm_cli.errors import ExitCode
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_registry import Registry
from command import Cidm
from learning import files_of, learn_direct, task
from registry_support import make_draft

DOG = "a photo of a <dog>"
DRAW = ("generate", "--steps", 1)
LAYOUT = """
version = 1
[image]
seed = 3
steps = 1
count = 2
[base]
prompt = "a <dog> on the beach"
negative = "snow"
"""


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows <dog>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog"), steps=1))
    return registry.root


@pytest.fixture
def scene(elsewhere: Path) -> Path:
    path = elsewhere / "scene.toml"
    path.write_text(LAYOUT)
    return path


# Layouts


def test_a_layout_without_regions_is_drawn(cidm: Cidm, taught: Path, scene: Path) -> None:
    answer = cidm("generate", scene, "--registry", taught, "-o", "out", "--json").answer
    assert [image["seed"] for image in answer["images"]] == [3, 4]
    for image in answer["images"]:
        assert image["prompt"] == "a <dog> on the beach"
        assert image["options"]["negative"] == "snow"
        assert image["options"]["steps"] == 1
        assert "a <dog> on the beach" in image["layout"]
        assert image["options"]["guidance"] == 7.5, "what it leaves out is the base's own"


def test_several_layouts_and_prompts_are_drawn_in_order(cidm: Cidm, taught: Path, scene: Path) -> None:
    other = scene.with_name("other.toml")
    other.write_text(LAYOUT.replace("beach", "snow").replace("count = 2", "count = 1"))
    answer = cidm(
        "generate", scene, other, "-p", DOG, "--steps", 1, "--registry", taught, "-o", "out", "--json"
    ).answer
    assert [(image["prompt"], image["seed"]) for image in answer["images"]] == [
        ("a <dog> on the beach", 3),
        ("a <dog> on the beach", 4),
        ("a <dog> on the snow", 3),
        (DOG, 0),
    ]
    assert len({image["path"] for image in answer["images"]}) == 4


def test_set_overrides_a_key_of_the_layout(cidm: Cidm, taught: Path, scene: Path) -> None:
    answer = cidm(
        "generate", scene, "--set", "image.seed=9", "--set", "image.count=1", "--set", "base.prompt=a red <dog>",
        "--registry", taught, "-o", "out", "--json",
    ).answer  # fmt: skip
    (image,) = answer["images"]
    assert (image["seed"], image["prompt"]) == (9, "a red <dog>")
    assert "a red <dog>" in image["layout"], "what is kept is the layout as it was drawn"


def test_a_layout_is_read_from_stdin(
    cidm: Cidm, taught: Path, monkeypatch: pytest.MonkeyPatch, scene: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LAYOUT.encode())))
    answer = cidm("generate", "-", "--registry", taught, "-o", "piped", "--json").answer
    assert [image["seed"] for image in answer["images"]] == [3, 4]
    assert cidm("generate", scene, "--registry", taught, "-o", "file").code == 0
    assert files_of(Path("file")) == files_of(Path("piped"))


def test_flags_win_over_the_layout_and_the_layout_over_settings(
    cidm: Cidm, taught: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("cidm.toml").write_text("[draw]\nseed = 100\nguidance = 2.5\n")
    monkeypatch.setenv("CIDM_DRAW_STEPS", "9")
    answer = cidm("generate", scene, "-n", 1, "--registry", taught, "-o", "out", "--json").answer
    (image,) = answer["images"]
    assert image["seed"] == 3, "the layout's, not cidm.toml's"
    assert image["options"]["steps"] == 1, "the layout's, not the environment's"
    assert image["options"]["guidance"] == 2.5, "nobody said otherwise"
    answer = cidm("generate", scene, "-n", 1, "--seed", 5, "--registry", taught, "-o", "out", "--json").answer
    assert answer["images"][0]["seed"] == 5


# Files


def test_o_names_a_file_for_one_picture_and_a_folder_for_more(cidm: Cidm, taught: Path) -> None:
    where = ("--registry", taught, "-q", "-o")
    one = cidm(*DRAW, "-p", DOG, *where, "deep/one.PNG")
    assert (one.code, one.out) == (0, "deep/one.PNG\n")
    assert Image.open("deep/one.PNG").size == (64, 64)
    more = cidm(*DRAW, "-p", DOG, "-n", 2, *where, "more")
    assert more.code == 0
    assert sorted(more.out.split()) == sorted(str(path) for path in Path("more").iterdir())
    assert [png.read_facts(Path(path))["seed"] for path in more.out.split()] == [0, 1]


def test_one_file_for_several_pictures_is_refused_before_the_model_loads(
    cidm: Cidm, taught: Path, no_model: None
) -> None:
    for several in (("-n", 2), ("-p", "a dog")):
        ran = cidm(*DRAW, "-p", DOG, *several, "--registry", taught, "-o", "one.png")
        assert ran.code == ExitCode.USAGE
        assert "one.png" in ran.error


@pytest.mark.parametrize("name", ["photo.png", "notes.txt", "new.jpg"])
def test_o_takes_the_place_of_no_file_that_was_not_drawn_here(
    name: str, cidm: Cidm, taught: Path, no_model: None
) -> None:
    Image.new("RGB", (8, 8)).save("photo.png")
    Path("notes.txt").write_text("mine")
    before = files_of(Path())
    ran = cidm(*DRAW, "-p", DOG, "--registry", taught, "-o", name)
    assert ran.code == ExitCode.USAGE
    assert name in ran.error
    assert files_of(Path()) == before


def test_o_takes_the_place_of_a_picture_that_was_drawn_here(cidm: Cidm, taught: Path) -> None:
    where = ("--registry", taught, "-o", "dog.png")
    drawn = []
    for seed in (1, 2):
        assert cidm(*DRAW, "-p", DOG, "--seed", seed, *where).code == 0
        drawn.append(Path("dog.png").read_bytes())
    assert drawn[0] != drawn[1]


def test_the_last_seed_there_is_can_be_drawn(cidm: Cidm, taught: Path) -> None:
    last = ("--seed", 2**63 - 1, "--registry", taught, "-o", "out")
    assert cidm(*DRAW, "-p", DOG, *last).code == 0
    assert cidm(*DRAW, "-p", DOG, *last, "-n", 2).code == ExitCode.USAGE


def test_a_different_picture_of_the_same_name_is_kept(cidm: Cidm, taught: Path) -> None:
    where = ("--registry", taught, "-q", "-o", "out")
    (first,) = cidm(*DRAW, "-p", DOG, *where).out.split()
    old = Path(first).read_bytes()
    (second,) = cidm(*DRAW, "-p", DOG, "--steps", 2, *where).out.split()
    assert second != first
    assert Path(first).read_bytes() == old
    (third,) = cidm(*DRAW, "-p", DOG, *where).out.split()
    assert third == first, "an equal picture needs no second file"
    assert len(list(Path("out").iterdir())) == 2


@pytest.mark.parametrize(
    "prompt", ["../../etc/passwd a <dog>", "\\<|> \x00 ?*:", "狐の写真", "." * 20, "a " * 400, "CON"]
)
def test_no_prompt_makes_a_dangerous_file_name(prompt: str, cidm: Cidm, taught: Path) -> None:
    ran = cidm(*DRAW, "-p", prompt, "--registry", taught, "-o", "out", "-q")
    assert ran.code == 0, ran.err
    (path,) = Path("out").iterdir()
    assert len(path.name.encode()) < 200
    assert path.name == Path(ran.out.rstrip("\n")).name
    assert not set(path.stem) & set('/\\:*?"<>|.\0')
    assert png.read_facts(path)["prompt"] == prompt


@pytest.mark.parametrize("out", ["file/out", "file/one.png", "folder.png"])
def test_a_place_that_cannot_be_written_is_refused_before_the_model_loads(
    out: str, cidm: Cidm, taught: Path, no_model: None
) -> None:
    Path("file").write_text("in the way")
    Path("folder.png").mkdir()
    ran = cidm(*DRAW, "-p", DOG, "--registry", taught, "-o", out)
    assert ran.code == ExitCode.FAILED
    assert out in ran.error
    assert "choose another -o" in ran.error
    assert sorted(path.name for path in Path().iterdir()) == ["file", "folder.png"]


# The three forms


def test_json_is_one_object_and_quiet_one_path_a_line(cidm: Cidm, taught: Path) -> None:
    arguments = (*DRAW, "-p", DOG, "-n", 2, "--registry", taught, "-o", "out")
    answer = cidm(*arguments, "--json").answer
    assert answer["ok"] is True
    paths = [image["path"] for image in answer["images"]]
    quiet = cidm(*arguments, "-q")
    assert quiet.out.splitlines() == paths
    assert quiet.err == ""
    for image in answer["images"]:
        assert {"path": image["path"], **png.read_facts(Path(image["path"]))} == image


# Refused before a model is loaded


def test_an_unknown_concept_is_refused_with_a_suggestion(cidm: Cidm, taught: Path, no_model: None) -> None:
    ran = cidm(*DRAW, "-p", "a <dgo>", "--registry", taught)
    assert ran.code == ExitCode.NOT_FOUND
    assert "<dgo>" in ran.error
    assert "<dog>" in ran.error


def test_an_unknown_concept_of_a_layout_is_refused_with_its_place(
    cidm: Cidm, taught: Path, scene: Path, no_model: None
) -> None:
    scene.write_text(LAYOUT.replace("<dog>", "<dgo>"))
    ran = cidm("generate", scene, "--registry", taught)
    assert ran.code == ExitCode.NOT_FOUND
    assert "scene.toml:8" in ran.error
    assert "<dog>" in ran.error


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), ExitCode.USAGE, "--prompt"),
        (("-p", "a <dog"), ExitCode.USAGE, "<dog"),
        (("-p", DOG, "--set", "image.seed=1"), ExitCode.USAGE, "--set"),
        (("-p", DOG, "--size", "64"), ExitCode.USAGE, "--size"),
        (("none.toml",), ExitCode.NOT_FOUND, "none.toml"),
        (("--from", "none.png"), ExitCode.NOT_FOUND, "none.png"),
    ],
)
def test_a_command_that_cannot_be_drawn_is_refused(
    arguments: tuple[str, ...], code: ExitCode, said: str, cidm: Cidm, taught: Path, no_model: None
) -> None:
    ran = cidm("generate", *arguments, "--registry", taught)
    assert ran.code == code
    assert said in ran.error


def test_a_layouts_size_that_the_base_cannot_draw_is_refused_by_its_place_before_the_base_loads(
    cidm: Cidm, taught: Path, no_model: None
) -> None:
    Path("scene.toml").write_text('[image]\nsize = [136, 72]\n[base]\nprompt = "a <dog>"\n')
    ran = cidm(*DRAW, "scene.toml", "--registry", taught)
    assert ran.code == ExitCode.INVALID
    assert "scene.toml:2: image.size is 136 x 72" in ran.error
    ran = cidm(*DRAW, "scene.toml", "--set", "image.size=[136, 64]", "--registry", taught)
    assert ran.code == ExitCode.USAGE
    assert "--set image.size" in ran.error


@pytest.mark.parametrize("size", ["64x65", "16x64", "0x64", "8192x64"])
def test_a_size_the_base_cannot_draw_is_refused(size: str, cidm: Cidm, taught: Path) -> None:
    ran = cidm(*DRAW, "-p", DOG, "--size", size, "--registry", taught, "-o", "out")
    assert ran.code == ExitCode.USAGE
    assert size in ran.error
    assert not Path("out").exists()


@pytest.mark.parametrize("option", [("--sampler", "best"), ("-n", 0), ("--guidance", "nan"), ("--seed", -1)])
def test_an_impossible_option_is_refused(option: tuple[str, object], cidm: Cidm, taught: Path) -> None:
    ran = cidm(*DRAW, "-p", DOG, *option, "--registry", taught, "-o", "out")
    assert ran.code == ExitCode.USAGE
    assert not Path("out").exists()


def test_a_picture_need_not_be_square(cidm: Cidm, taught: Path) -> None:
    ran = cidm(*DRAW, "-p", DOG, "--size", "96x64", "--registry", taught, "-o", "wide.png")
    assert ran.code == 0, ran.err
    assert Image.open("wide.png").size == (96, 64)


def test_a_prompt_of_any_length_is_drawn_and_its_concept_wherever_it_stands(cidm: Cidm, taught: Path) -> None:
    long = "a photo " * 15
    pictures = []
    for prompt in (long, f"{long} <dog>", f"{long} BREAK <dog>"):
        ran = cidm(*DRAW, "-p", prompt, "--registry", taught, "-o", "out.png")
        assert ran.code == 0, ran.err
        assert "too long" not in ran.err
        pictures.append(Image.open("out.png").tobytes())
    assert len(set(pictures)) == 3


# Only reading


def test_drawing_writes_nothing_to_the_registry(
    cidm: Cidm, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry on a read-only medium is as good as any."""
    before = files_of(taught)

    def refuse(*_args: Any) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("create", "write", "mkdir", "replace", "unlink", "lock"):
        monkeypatch.setattr(f"cidm_registry.disk.Disk.{name}", refuse)
    ran = cidm(*DRAW, "-p", DOG, "--registry", taught, "-o", "out")
    assert ran.code == 0, ran.err
    assert files_of(taught) == before


def test_a_damaged_concept_is_not_drawn(cidm: Cidm, taught: Path, tmp_path: Path) -> None:
    mine = Registry.open(shutil.copytree(taught, tmp_path / "mine"))
    blob = mine.blob_path(mine.get("dog").blob)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    ran = cidm(*DRAW, "-p", DOG, "--registry", mine.root, "-o", "out")
    assert ran.code == ExitCode.REGISTRY
    assert blob.name in ran.error
    assert cidm(*DRAW, "-p", "a dog", "--registry", mine.root, "-o", "out").code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens.text_encoder": torch.zeros(7, 2, 16)}, "16 wide"),
        ({"tokens.text_encoder": torch.zeros(6, 2, 32)}, "tokens of shape (6, 2, 32)"),
        ({"unet.mid_block.to_q.lora_A.weight": torch.zeros(4, 32)}, "unet.mid_block.to_q.lora_A.weight"),
    ],
)
def test_a_concept_that_does_not_fit_the_base_is_refused(
    change: dict[str, torch.Tensor], said: str, cidm: Cidm, taught: Path, tmp_path: Path
) -> None:
    mine = Registry.open(shutil.copytree(taught, tmp_path / "mine"))
    sound = load(mine.read_blob(mine.get("dog").blob))
    mine.commit(make_draft("odd"), save({**sound, **change}), expected_head=mine.head())
    ran = cidm(*DRAW, "-p", "a <odd>", "--registry", mine.root, "-o", "out")
    assert ran.code == ExitCode.INVALID
    assert "odd" in ran.error
    assert said in ran.error
    assert not Path("out").exists()
