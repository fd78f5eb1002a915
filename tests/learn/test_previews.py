"""Watching a training, with pictures and TensorBoard: what is shown is true, and the training does not notice."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from cidm_cli.draw.png import read_facts
from cidm_cli.errors import ExitCode
from cidm_cli.learn import watching
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_registry import Registry
from command import Cidm
from learning import FAST, learn_direct, task

PROMPT = "a photo of a <dog>"
WATCHED = ("--preview", PROMPT, "--preview", "<dog> on the beach", "--preview-every", 2)


@pytest.fixture(autouse=True)
def few_steps(cidm: Cidm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures in three steps instead of fifty, in float32."""
    monkeypatch.setenv("CIDM_DRAW_STEPS", "3")
    monkeypatch.setenv("CIDM_PRECISION", "fp32")


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_previews_are_drawn_now_and_then_and_change_no_byte_of_the_concept(
    family: str, cidm: Cidm, tmp_path: Path, pictures: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue({"sd15": "tiny_base", "sdxl": "tiny_sdxl"}[family])
    watched, plain = (Registry.create(tmp_path / name, identify(str(folder))) for name in ("one", "two"))
    learn_it = ("learn", "dog", pictures, *FAST, "--steps", 5, "--checkpointing", "--registry")
    ran = cidm(*learn_it, watched.root, *WATCHED)
    assert ran.code == 0, ran.err
    assert cidm(*learn_it, plain.root).code == 0
    assert watched.get("dog").blob == plain.get("dog").blob
    assert watched.get("dog").config == plain.get("dog").config
    files = sorted(path.name for path in Path("dog-preview").iterdir())
    names = ("1-a-photo-of-a-dog", "2-dog-on-the-beach")
    assert files == [f"{name}-{step:06d}.png" for name in names for step in (2, 4, 5)]
    first, second = (pixels(Path("dog-preview") / file) for file in files[:2])
    assert np.abs(first - second).max() > 2, "it changes while it is learned"
    facts = read_facts(Path("dog-preview") / files[1])
    assert (facts["prompt"], facts["step"], facts["options"]["steps"]) == (PROMPT, 4, 3)
    again = cidm("generate", "--from", Path("dog-preview") / files[0], "--registry", plain.root)
    assert "in training" in again.error


@pytest.mark.parametrize(
    ("method", "negative"),
    [("cidm", "snow"), ("cidm", "a <cat> beside a <Dog>"), ("finetune", "snow"), ("c-lora", "snow")],
)
def test_the_last_preview_is_what_generate_draws_with_older_concepts_too(
    method: str, negative: str, cidm: Cidm, base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("CIDM_DRAW_NEGATIVE", negative)
    where = ("--registry", tiny_registry.root)
    cats = tiny.save_pictures(tmp_path / "cats", ("a photo of a cat",) * 3, seed=1)
    learn_direct(tiny_registry, base, task(cats, name="cat", noun="cat", method=method, lr=0.2))
    prompts = [PROMPT, "a <dog> on a <Cat>"]
    asked = [word for prompt in prompts for word in ("--preview", prompt)]
    ran = cidm("learn", "dog", pictures, *where, *FAST, "--method", method, *asked, "--preview-to", "seen")
    assert ran.code == 0, ran.err
    shown = sorted(Path("seen").iterdir())
    drawn = cidm("generate", *where, "-p", prompts[0], "-p", prompts[1], "-q", "-o", "out").out.splitlines()
    plain = cidm("generate", *where, "-p", "a dog on a cat", "-q", "-o", "out").out.splitlines()
    assert len(shown) == len(drawn) == 2
    for one, other in zip(shown, drawn, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 2
    assert np.abs(pixels(shown[1]) - pixels(plain[0])).max() > 8


def test_a_resumed_training_may_be_watched_otherwise(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    learn_it = ("learn", "dog", pictures, *FAST, "--registry", tiny_registry.root)
    Path("in-the-way").write_text("no folder")
    ran = cidm(*learn_it, *WATCHED, "--preview-to", "in-the-way", "--checkpoint-every", 2)
    assert ran.code == ExitCode.FAILED
    assert "in-the-way" in ran.error
    ran = cidm(*learn_it, "--preview", PROMPT, "--checkpoint-every", 2, "--resume")
    assert ran.code == 0, ran.err
    assert "going on from step 2" in ran.err
    other = Registry.create(tiny_registry.root.with_name("other"), tiny_registry.base)
    assert cidm(*learn_it[:-1], other.root).code == 0
    assert other.get("dog").blob == tiny_registry.get("dog").blob


@pytest.mark.parametrize(
    ("said", "code", "named"),
    [
        (("--preview", "a photo of a dog"), ExitCode.USAGE, "does not name <dog>"),
        (("--preview", "<dog> on <cta>"), ExitCode.NOT_FOUND, "<cta>"),
        (("--preview", "a <dog"), ExitCode.USAGE, "closed"),
        (("--preview-every", 5), ExitCode.USAGE, "no preview"),
        (("--preview-to", "x"), ExitCode.USAGE, "no preview"),
        (("--preview", PROMPT, "--preview-every", 0), ExitCode.USAGE, "preview-every"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_the_model_loads(
    said: tuple[object, ...],
    code: int,
    named: str,
    cidm: Cidm,
    tiny_registry: Registry,
    pictures: Path,
    no_model: None,
) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, *said)
    assert ran.code == code
    assert named in ran.error


# TensorBoard


def test_tensorboard_gets_every_step_and_the_previews(
    cidm: Cidm, base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    learn_direct(tiny_registry, base, task(pictures, name="cat", steps=1))
    other = Registry.create(tmp_path / "other", tiny_registry.base)
    learn_direct(other, base, task(pictures, name="cat", steps=1))
    learn_it = ("learn", "dog", pictures, *FAST, "--registry")
    ran = cidm(*learn_it, tiny_registry.root, *WATCHED, "--tensorboard", "runs")
    assert ran.code == 0, ran.err
    assert cidm(*learn_it, other.root).code == 0
    record = tiny_registry.get("dog")
    assert record.blob == other.get("dog").blob
    told = EventAccumulator(str(Path("runs") / "dog")).Reload()
    tags = told.Tags()
    assert sorted(tags["scalars"]) == ["loss", "rate/tokens", "rate/weights", "terms/r1"]
    losses = told.Scalars("loss")
    assert [one.step for one in losses] == [1, 2, 3, 4]
    assert losses[0].value == pytest.approx(record.losses["first"])
    assert losses[3].value == pytest.approx(record.losses["last_tenth"])
    assert [one.value for one in told.Scalars("rate/weights")] == pytest.approx([0.02, 0.015, 0.01, 0.005])
    assert told.Scalars("terms/r1")[3].value == pytest.approx(record.losses["r1"])
    assert [one.step for one in told.Images(f"1 {PROMPT}")] == [2, 4]
    again = cidm(*learn_it, tiny_registry.root, "--update", "--tensorboard", "runs")
    assert again.code == 0
    told = EventAccumulator(str(Path("runs") / "dog")).Reload()
    assert [one.step for one in told.Scalars("loss")] == [1, 2, 3, 4], "what is done anew is struck out"


def test_tensorboard_that_is_not_installed_is_refused_with_what_to_install(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(watching, "find_spec", lambda name: None if name == "tensorboard" else real(name))
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--tensorboard", "runs")
    assert ran.code == ExitCode.USAGE
    assert "pip install" in ran.error
    assert not Path("runs").exists()
