"""FLUX.2 klein and Z-Image from end to end on small models: learned, resumed, drawn, laid out, drawn over."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn.run import Events
from cidm_cli.models.identity import identify
from cidm_cli.models.opening import open_base
from cidm_registry import Registry
from command import Cidm, ran
from learning import STRONG, learn_direct, pictures, task, weights

SIDE = 32
LAYOUT = f"""version = 1
[image]
size = [{2 * SIDE}, {SIDE}]
steps = 3
[base]
prompt = "a photo"
[[region]]
prompt = "a <dog>"
box = [0.0, 0.0, 0.5, 1.0]
[[region]]
prompt = "a <cat>"
box = [0.5, 0.0, 1.0, 1.0]
"""


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_a_concept_is_rows_of_the_encoder_and_weights_of_every_attention(
    joint_registry: Registry, joint_small: ModuleType
) -> None:
    base = open_base(joint_registry, device="cpu", precision="fp32")
    found = weights(joint_registry, base, "cat")
    assert found.tokens.shape == (1, 2, joint_small.NUMBERS), "one set, as text enters once"
    assert found.up.keys() == set(base.sites("attn"))
    # What the words of one block become goes on into the next: every weight has a part in the picture.
    assert all(up.any() for up in found.up.values())
    cat = joint_registry.get("cat")
    assert cat.method == "cidm"
    assert cat.losses["r1"] > 0, "kept apart from the first"


def test_a_training_that_was_stopped_ends_in_the_same_bytes(joint_registry: Registry, tmp_path: Path) -> None:
    registry = Registry.create(tmp_path / "registry", joint_registry.base)
    base = open_base(registry, device="cpu", precision="fp32")
    done, work = [0], {**STRONG, "kind": joint_registry.base.kind}
    events = Events(on_step=lambda n, loss: done.__setitem__(0, n), stop=lambda: done[0] >= 2)
    with pytest.raises(CidmError) as caught:
        learn_direct(registry, base, task(pictures(joint_registry, "dog"), **work), events)
    assert caught.value.code == ExitCode.INTERRUPTED
    fresh = open_base(registry, device="cpu", precision="fp32")
    learn_direct(registry, fresh, task(pictures(joint_registry, "dog"), resume=True, **work))
    assert registry.get("dog").blob == joint_registry.get("dog").blob


def test_prompts_draw_what_they_name_and_a_batch_draws_what_single_pictures_are(
    cidm: Cidm, joint_registry: Registry, tmp_path: Path
) -> None:
    where = ("--registry", joint_registry.root, "--steps", 3)
    ran(cidm, "generate", "-p", "a <dog> in snow", "-n", 2, "-o", tmp_path / "two", *where)
    ran(cidm, "generate", "-p", "a dog in snow", "-o", tmp_path / "plain.png", *where)
    both = sorted((tmp_path / "two").glob("*.png"))
    for seed, path in enumerate(both):
        single = tmp_path / f"{seed}.png"
        ran(cidm, "generate", "-p", "a <dog> in snow", "--seed", seed, "-o", single, *where)
        assert np.abs(picture(path) - picture(single)).max() <= 1
    assert np.abs(picture(both[0]) - picture(tmp_path / "plain.png")).mean() > 2


@pytest.mark.parametrize("mode", ["full", "fast"])
def test_a_layout_draws_each_region_by_its_own_concept(
    cidm: Cidm, joint_registry: Registry, tmp_path: Path, mode: str
) -> None:
    def drawn(name: str, layout: str) -> np.ndarray:
        file = tmp_path / f"{name}.toml"
        file.write_text(layout.replace("[image]", f'[image]\nmode = "{mode}"'))
        ran(cidm, "generate", file, "-o", tmp_path / f"{name}.png", "--registry", joint_registry.root)
        return picture(tmp_path / f"{name}.png")

    both, other = drawn("both", LAYOUT), drawn("other", LAYOUT.replace("<cat>", "<dog> in snow"))
    change = np.abs(both - other)
    left, right = change[:, :SIDE].mean(), change[:, SIDE:].mean()
    assert right > 1
    assert right > 1.5 * left, "the other region stays what it was, as far as one picture lets it"


def test_a_distilled_base_draws_what_was_learned_on_another_without_a_negative_prompt(
    cidm: Cidm, joint_registry: Registry, tmp_path: Path, joint_small: ModuleType
) -> None:
    place, bundle = joint_small.save(tmp_path / "distilled", distilled=True), tmp_path / "all.safetensors"
    fast = Registry.create(tmp_path / "fast", identify(str(place)))
    assert fast.base.kind in ("flux2-klein-distilled", "z-image-turbo")
    ran(cidm, "export", "--to", "bundle", "-o", bundle, "--registry", joint_registry.root)
    done = cidm("import", bundle, "--registry", fast.root)
    assert done.code == 0, done.err
    assert "learned on another base" in done.err
    (tmp_path / "scene.toml").write_text(LAYOUT)
    ran(cidm, "generate", tmp_path / "scene.toml", "-o", tmp_path / "scene.png", "--registry", fast.root)
    drawing = ("generate", "-p", "a <dog>", "-o", tmp_path / "dog.png", "--registry", fast.root)
    ran(cidm, *drawing)
    refused = cidm(*drawing, "--negative", "rain")
    assert refused.code == ExitCode.USAGE
    assert "knows no guidance" in refused.error


@pytest.mark.parametrize(
    "command",
    [("stylize", "--style", "cat", "--no-invert"), ("edit", "--concept", "cat", "--box", "0,0,16,32")],
)
def test_a_picture_that_is_there_is_drawn_over(
    cidm: Cidm, joint_registry: Registry, tmp_path: Path, command: tuple[str, ...]
) -> None:
    given = tmp_path / "given.png"
    Image.open(next(pictures(joint_registry, "dog").glob("*.png"))).convert("RGB").resize((SIDE, SIDE)).save(
        given
    )
    verb, *how = command
    ran(cidm, verb, given, *how, "--steps", 4, "-o", tmp_path / "over.png", "--registry", joint_registry.root)
    change = np.abs(picture(tmp_path / "over.png") - picture(given))
    assert change[:, : SIDE // 2].mean() > 2
    if verb == "edit":
        assert not change[:, SIDE // 2 :].any(), "outside the box nothing changes"
