"""Parts that wait in main memory: which are on the device when, and that nothing else is different."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from cidm_cli.draw import over
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.over_jobs import plan_style
from cidm_cli.draw.structure import Followed
from cidm_cli.files.given import read_given
from cidm_cli.layout import Layout, Structure
from cidm_cli.models import offload, structure
from cidm_cli.models.base import Base, load
from cidm_cli.models.control_files import ControlFiles
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import DrawOptions, resolve_draw
from cidm_cli.options.over import StylizeOptions
from cidm_registry import Registry
from command import Cidm
from learning import FAST, files_of, learn_direct, task
from shelf import Shelf

PROMPT = "a photo of a <dog>"
ENCODED = {"sd15": ("text1",), "sdxl": ("text1", "text2")}


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def bound(
    request: pytest.FixtureRequest, tiny_base: Path, tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Base, Registry]:
    """A base of each family and a registry that knows <dog>, in self-attention, too. Do not change."""
    place = tiny_base if request.param == "sd15" else tiny_sdxl
    base = load(place, device=torch.device("cpu"), compute=torch.float32)
    folder = tmp_path_factory.mktemp("bound")
    registry = Registry.create(folder / "registry", identify(str(place)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog"), targets="attn1+attn2"))
    return base, registry


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Shelf]]:
    made: list[Shelf] = []

    def make(base: Base, **more: Any) -> Shelf:
        made.append(Shelf(monkeypatch, base, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert one.there == [], "everything waits again in the end"


def coming(*parts: str) -> list[str]:
    return [f"+{part}" for part in parts] + [f"-{part}" for part in reversed(parts)]


def settings(base: Base, **said: Any) -> DrawOptions:
    return resolve_draw({"steps": 2, **said}, "sd15", base.pixels)


def pixels(base: Base, registry: Registry, job: Job) -> list[bytes]:
    return [np.asarray(picture.image).tobytes() for picture in draw(registry, base, [job])]


def test_drawing_has_encoders_then_unet_then_vae_on_the_device(
    bound: tuple[Base, Registry], shelf: Callable[..., Shelf]
) -> None:
    base, registry = bound
    job = Job(PROMPT, settings(base, count=3, batch=2))
    expected = pixels(base, registry, job)
    seen = shelf(base)
    assert pixels(base, registry, job) == expected
    batch = [*coming("unet"), *coming("vae")]
    assert seen.moves == [*coming(*ENCODED[base.family.name]), *batch, *batch]
    assert seen.asked == seen.parts.keys(), "the double hears every part"


@pytest.mark.parametrize("method", ["sharp", "lora-switch"])
def test_other_ways_to_put_concepts_together_draw_the_same(
    method: str, bound: tuple[Base, Registry], shelf: Callable[..., Shelf]
) -> None:
    base, registry = bound
    job = Job(PROMPT, settings(base, method=method))
    expected = pixels(base, registry, job)
    seen = shelf(base)
    assert pixels(base, registry, job) == expected
    alone(seen, base)


def test_a_layout_brings_one_phase_after_another(
    bound: tuple[Base, Registry], shelf: Callable[..., Shelf]
) -> None:
    base, registry = bound
    table = {"prompt": PROMPT, "box": [0.0, 0.0, 0.5, 1.0]}
    told = Layout.model_validate({"base": {"prompt": "a photo of the beach"}, "region": [table]})
    job = Job(told.base.prompt, settings(base), told)
    expected = pixels(base, registry, job)
    seen = shelf(base)
    assert pixels(base, registry, job) == expected
    texts = coming(*ENCODED[base.family.name])
    # The UNet is there a first time for the keys and values of all texts.
    assert seen.moves == [*texts, *coming("unet"), *coming("unet"), *coming("vae")]


@pytest.mark.parametrize("kind", ["controlnet", "t2i-adapter"])
def test_a_model_that_follows_a_structure_is_there_with_the_unet_alone(
    kind: str, bound: tuple[Base, Registry], shelf: Callable[..., Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, registry = bound
    model = tiny.controlnet(base.denoiser) if kind == "controlnet" else tiny.adapter(base.family.name)
    files = ControlFiles("here", Path(), kind, None, "0" * 64)
    control = structure.Control(model, files)
    monkeypatch.setattr("cidm_cli.draw.mixtures.load_control", lambda *_: control)
    picture = Image.new("RGB", (base.pixels, base.pixels), "white")
    picture.paste("black", (20, 20, 40, 24))
    how = Structure.model_validate({"image": "lines.png", "kind": "scribble"})
    followed = Followed(Path("/lines.png"), "0" * 64, picture, how, files)
    job = Job(PROMPT, settings(base), structure=followed)
    expected = pixels(base, registry, job)
    seen = shelf(base, control=model)
    assert pixels(base, registry, job) == expected
    alone(seen, base)
    assert "control" in seen.asked


def test_a_style_is_given_part_by_part(
    bound: tuple[Base, Registry], shelf: Callable[..., Shelf], tmp_path: Path
) -> None:
    base, registry = bound
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "house.png")
    given = [read_given(tmp_path / "house.png")]

    def painted() -> list[bytes]:
        work = plan_style(registry, given, "dog", None, StylizeOptions(draw={"steps": 3}))
        pictures = draw(registry, base, over.jobs(registry, base, work))
        return [np.asarray(picture.image).tobytes() for picture in pictures]

    expected = painted()
    seen = shelf(base)
    assert painted() == expected
    rest = [*coming("vae"), *coming("unet"), *coming("unet"), *coming("vae")]
    assert seen.moves == [*coming(*ENCODED[base.family.name]), *rest]


def test_learning_has_the_vae_first_and_then_all_but_it(
    bound: tuple[Base, Registry], shelf: Callable[..., Shelf], tmp_path: Path
) -> None:
    base, _ = bound
    pictures = tiny.save_pictures(tmp_path / "dog")
    plain, other = (Registry.create(tmp_path / name, identify_of(bound)) for name in ("plain", "other"))
    expected = learn_direct(plain, base, task(pictures, checkpointing=True)).blob
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    seen = shelf(base)
    assert learn_direct(other, base, task(pictures, checkpointing=True)).blob == expected
    encoded = coming("vae") * 3 + (coming("text2") if base.family.name == "sdxl" else [])
    assert seen.moves == [*encoded, *coming("unet", *ENCODED[base.family.name])]
    after = base.denoiser.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("method", ["cidm", "ewc", "lwf", "c-lora"])
def test_every_method_learns_the_same_part_by_part(
    method: str, base: Base, tiny_base: Path, shelf: Callable[..., Shelf], tmp_path: Path
) -> None:
    folders = {
        name: tiny.save_pictures(tmp_path / name, (f"a photo of a {name}",) * 3) for name in ("dog", "cat")
    }

    def learned(root: Path) -> list[str]:
        registry = Registry.create(root, identify(str(tiny_base)))
        return [
            learn_direct(
                registry, base, task(folder, name=name, noun=name, method=method, steps=2, ewc_draws=2)
            ).blob
            for name, folder in folders.items()
        ]

    expected = learned(tmp_path / "plain")
    seen = shelf(base)
    assert learned(tmp_path / "other") == expected
    assert {frozenset({"vae"}), frozenset({"unet", "text1"})} <= set(seen.together)
    assert not [some for some in seen.together if {"vae", "unet"} <= some]


def test_weights_come_back_as_they_were_and_what_was_put_into_the_copies_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emptied: list[torch.device] = []

    class Module:
        @staticmethod
        def empty_cache() -> None:
            emptied.append(torch.device("cpu"))

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    part = torch.nn.BatchNorm1d(3)
    pointers = [tensor.data_ptr() for tensor in (*part.parameters(), *part.buffers())]

    def fail() -> None:
        with offload._moved(part, torch.device("cpu")):
            part.weight.data = torch.full((3,), 7.0)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [tensor.data_ptr() for tensor in (*part.parameters(), *part.buffers())] == pointers
    assert part.weight.tolist() == [1, 1, 1]
    assert emptied


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
def test_on_a_gpu_the_same_picture_and_most_of_its_memory_free(tiny_base: Path, tmp_path: Path) -> None:
    pictures = tiny.save_pictures(tmp_path / "dog")
    blobs, drawn = [], []
    for offloaded in (False, True):
        base = load(tiny_base, device=torch.device("cuda"), compute=torch.float32, offload=offloaded)
        registry = Registry.create(tmp_path / f"registry-{offloaded}", identify(str(tiny_base)))
        blobs.append(learn_direct(registry, base, task(pictures)).blob)
        drawn.append(pixels(base, registry, Job(PROMPT, settings(base))))
        where = {part.device.type for part in (base.denoiser, base.vae, base.encoders[0])}
        assert where == {"cpu" if offloaded else "cuda"}
    assert drawn[0] == drawn[1]
    assert blobs[0] == blobs[1]


def test_where_there_is_one_memory_the_command_says_so_and_does_the_same(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    at = ("--registry", tiny_registry.root, "--device", "cpu")
    ran = cidm("learn", "dog", pictures, *at, *FAST, "--offload")
    assert ran.code == 0, ran.err
    assert "--offload: cpu computes in main memory" in ran.err
    draws = ("generate", "-p", PROMPT, *at, "--steps", 1, "--precision", "fp32")
    for out, flags in (("plain", ()), ("offload", ("--offload",))):
        assert cidm(*draws, "-o", out, *flags).code == 0
    assert files_of(Path("plain")) == files_of(Path("offload"))


def identify_of(bound: tuple[Base, Registry]) -> Any:
    return bound[1].base


def alone(seen: Shelf, base: Base) -> None:
    """Nothing is on the device with anything but its own phase."""
    phases = [set(ENCODED[base.family.name]), {"unet", "control"}, {"vae"}]
    assert seen.moves
    for some in seen.together:
        assert any(some <= phase for phase in phases), some
