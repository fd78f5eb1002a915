"""The door for Python programs does what docs/python.md says, and costs nothing until it is used."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from cidm_cli import CidmError, Workspace, bases
from cidm_cli.errors import ExitCode
from cidm_cli.judge.tasks import tasks_folder
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_registry import Registry
from command import Cidm
from learning import learn_direct, task

PAGE = Path(__file__).parent.parent / "docs" / "python.md"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded base learns and draws in a few steps."""
    quick = {"steps": 3, "batch": 2}
    mini = bases.family("mini")
    hasty = replace(mini, learn={**mini.learn, **quick}, draw={"steps": 2, "guidance": 3.0})
    monkeypatch.setitem(bases._known, "mini", hasty)


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows <cat>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "pictures"), name="cat", noun="cat"))
    return registry.root


@pytest.mark.usefixtures("short")
def test_the_pages_programs_run_in_order(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(tasks_folder() / "concepts" / "backpack", "cidm-demo/backpack")
    space: dict[str, object] = {}
    for program in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(program, space)  # noqa: S102 - our own page
    assert {path.name for path in Path().glob("*.png")} == {"beach-0.png", "beach-1.png", "beside.png"}
    assert Image.open("beside.png").size == (128, 64)
    assert "stopped at step 2" in capsys.readouterr().out
    assert isinstance(space["image"], Image.Image)


def test_importing_it_loads_neither_torch_nor_the_libraries_on_it() -> None:
    code = (
        "import sys; import cidm_cli; cidm_cli.Workspace, cidm_cli.CidmError, cidm_cli.Layout;"
        "print(sorted({'torch', 'diffusers', 'transformers', 'peft'} & {*sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    import cidm_cli

    with pytest.raises(AttributeError, match="Workplace"):
        cidm_cli.Workplace  # noqa: B018


def test_it_draws_the_bytes_of_the_command_line_and_prints_nothing(
    cidm: Cidm, taught: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "a photo of a <cat>"
    ran = cidm(
        "generate",
        "-p",
        prompt,
        "--seed",
        5,
        "--steps",
        3,
        "--size",
        "64x64",
        "-o",
        "theirs.png",
        "--registry",
        taught,
    )
    assert ran.code == 0, ran.err
    (image,) = Workspace.open(taught).generate(prompt, seed=5, steps=3, size=(64, 64))
    image.save("ours.png")
    assert Path("ours.png").read_bytes() == Path("theirs.png").read_bytes()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_what_is_told_reaches_the_functions_that_were_given(taught: Path) -> None:
    notes: list[str] = []
    steps: list[tuple[str, int, int]] = []
    workspace = Workspace.open(
        taught, on_note=notes.append,
        on_progress=lambda label, done, total, numbers: steps.append((label, done, total)),
    )  # fmt: skip
    workspace.generate("a cat", steps=2, count=2, batch=1)
    assert any("<cat> would be the learned one" in note for note in notes)
    assert steps == [("drawing", done, 4) for done in (1, 2, 3, 4)]


@pytest.mark.usefixtures("no_model")
def test_what_cannot_be_drawn_is_refused_before_a_model_is_loaded(taught: Path) -> None:
    workspace = Workspace.open(taught)
    with pytest.raises(CidmError, match="<bird>") as refused:
        workspace.drawing(["a photo of a <bird>"])
    assert refused.value.code == ExitCode.NOT_FOUND
    with pytest.raises(TypeError, match="colour"):
        Workspace.open(taught, colour="red")


def test_a_stock_pipeline_draws_a_portable_concept_as_generate_does(
    tiny_base: Path, pictures: Path, tmp_path: Path
) -> None:
    import torch

    from cidm_cli.models.sampling import initial_noise

    workspace = Workspace.create(tmp_path / "registry", str(tiny_base), device="cpu", precision="fp32")
    workspace.learn(
        "cat",
        pictures,
        noun="dog",
        steps=2,
        rank=2,
        portable=True,
        cache=False,
        watch=workspace.watching("cat", preview_image=False),
    )
    prompt = "a photo of a <cat>"
    (own,) = workspace.generate(prompt, steps=3, seed=4, guidance=7.5)
    noise = initial_noise(workspace.session.base(), [4], own.image.size)
    pipe = workspace.pipeline(prompt)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        drawn = pipe(prompt, latents=noise, num_inference_steps=3, guidance_scale=7.5).images[0]
    difference = np.abs(np.asarray(own.image, float) - np.asarray(drawn, float))
    assert difference.max() <= 1
    assert [*pipe.get_list_adapters()] == ["unet"]


def test_what_there_is_to_note_of_the_machine_is_noted_once(elsewhere: Path) -> None:
    notes: list[str] = []
    session = Workspace.create("registry", vram=8, on_note=notes.append).session
    assert session.machine("draw") is session.machine("draw")
    assert [note for note in notes if "fits anywhere" in note] == notes[:1] == notes


def test_registries_of_one_base_share_it_whichever_asks_first(tiny_base: Path, tmp_path: Path) -> None:
    first, second = (Workspace.create(tmp_path / name, str(tiny_base)).session for name in "ab")
    other = first.on(second.registry)
    assert other.base() is first.base()
    given = first.release()
    assert other.base() is not given
