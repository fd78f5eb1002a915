"""Heavy libraries: a command that needs one says so first, and one that refuses early needs none."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cidm_cli.models.identity import identify
from cidm_cli.shell.heavy import LIBRARIES, heralded
from cidm_registry import Registry
from registry_support import add, make_draft, make_weights

STOP = """
import os, sys
print("imports " + __name__, file=sys.stderr, flush=True)
os._exit(7)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry on `mini` with <dog> and <ink>, a picture, and stand-ins for the libraries that end the process."""
    folder = tmp_path_factory.mktemp("shop")
    for name in LIBRARIES:
        (folder / "stops").mkdir(exist_ok=True)
        (folder / "stops" / f"{name}.py").write_text(STOP)
    registry = Registry.create(folder / "registry", identify("mini"))
    add(registry, "dog", 1)
    ink = replace(make_draft("ink"), style=True)
    registry.commit(ink, make_weights(2), expected_head=registry.head())
    Image.new("RGB", (64, 64), "tan").save(folder / "0.png")
    return folder


def ran(shop: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code, and lines on stderr, of a program that ends where it imports one of the libraries."""
    path = os.pathsep.join([str(shop / "stops"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "cidm_cli", "--registry", "registry", *arguments],
        cwd=shop, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    "command",
    [
        "learn toy 0.png --class toy",
        "learn toy 0.png --class toy --dry-run --json",
        "generate -p dog",
        "stylize 0.png --style ink -o out.png",
        "edit 0.png --concept dog --box 0,0,1,1 -o out.png",
        "explain <dog>",
        "merge -o m.safetensors",
        "eval -o judged",
        "export dog -o k",
    ],
)
def test_the_base_is_named_before_anything_heavy_is_imported(command: str, shop: Path) -> None:
    code, lines = ran(shop, *command.split())
    assert code == 7
    assert lines[-2] == "loading the base mini …"
    assert lines[-1].startswith("imports ")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("learn DOG 0.png", 1, "--update"),
        ("learn dogg 0.png --update", 3, "did you mean 'dog'"),
        ("learn toy nowhere", 3, "nowhere"),
        ("learn toy stop", 3, "did you mean 'stops'"),
        ("learn toy 1.png", 3, "did you mean '0.png'"),
        ("learn toy stops", 4, "no usable image"),
        ("learn ./0.png toy", 2, "cidm learn toy ./0.png"),
        ("learn stops toy", 2, "cidm learn toy stops"),
        ("learn toy 0.png --steps 0", 2, "--steps"),
        ("learn toy 0.png --precision fp8", 2, "--precision"),
        ("learn toy 0.png --vram 10", 2, "--vram"),
        ("learn toy 0.png --method best", 2, "--method"),
        ("learn toy 0.png --optimizer adamw8bit", 2, "bitsandbytes"),
        ("learn toy 0.png --preview a_<dgo>_and_<toy>", 3, "<dog>"),
        ("learn toy 0.png --preview a_dog", 2, "<toy>"),
        ("learn toy 0.png --base sd15", 2, "cidm init --base"),
        ("learn bello 0.png", 2, "--class"),
        ("learn rex 0.png --class a_photo_of_a_man", 2, "--class man"),
    ],
)
def test_what_cannot_be_learned_is_refused_without_anything_heavy(
    command: str, code: int, words: str, shop: Path
) -> None:
    found, lines = ran(shop, *(word.replace("_", " ") for word in command.split()))
    assert found == code
    assert words in lines[-1]
    assert not [line for line in lines if line.startswith(("imports", "loading"))]


def test_what_loads_no_base_says_what_it_waits_for(shop: Path) -> None:
    assert ran(shop, "doctor")[1][-2:] == ["loading torch …", "imports torch"]


def test_quiet_is_quiet(shop: Path) -> None:
    _, lines = ran(shop, "generate", "-p", "dog", "-q")
    assert [line for line in lines if "loading" in line] == []


def test_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIBRARIES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = [*sys.meta_path]
    with heralded(lambda: None):
        assert sys.meta_path != before
    assert sys.meta_path == before


@pytest.mark.parametrize(
    "command",
    [
        ("learn", "rex", "photo.png", "--class", "dog"),
        ("stylize", "photo.png", "--style", "ink", "-o", "out.png"),
        ("edit", "photo.png", "--concept", "dog", "--box", "0,0,1,1", "-o", "out.png"),
    ],
)
def test_photographs_on_the_embedded_base_are_told_to_be_beyond_it(
    command: tuple[str, ...], shop: Path
) -> None:
    Image.new("RGB", (600, 400), "tan").save(shop / "photo.png")
    warned = [line for line in ran(shop, *command)[1] if "--base sd15" in line]
    assert len(warned) == 1
    small = [argument.replace("photo", "0") for argument in command]
    assert not [line for line in ran(shop, *small)[1] if "--base sd15" in line]
