"""FLUX.2 klein and Z-Image from end to end on small models: learned, resumed, drawn, judged, merged, exported, back."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import judging
import learning
import tiny_flux2
import tiny_zimage
from cidm_cli.draw.jobs import Job
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.concept import ConceptWeights
from cidm_cli.learn.run import Events
from cidm_cli.models import sampling
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.lora import merged
from cidm_cli.models.opening import open_base
from cidm_cli.models.skeleton import skeleton
from cidm_cli.options.draw import resolve_draw
from cidm_cli.plan import estimate_draw, estimate_learn
from cidm_registry import Registry
from command import Cidm
from learning import learn_direct, task, weights

FAMILIES = {"flux2-klein": tiny_flux2, "z-image": tiny_zimage}
FUSED = {"flux2-klein": "double_blocks_0_img_attn_qkv", "z-image": "layers_0_attention_qkv"}
"""Of each, a layer of the original code that is three in diffusers'."""
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
STRONG = {"lr": 0.1, "token_lr": 0.5, "steps": 3, "variants": 1}
"""Few steps that change what is drawn."""


@pytest.fixture(scope="module", params=FAMILIES)
def kind(request: pytest.FixtureRequest) -> str:
    torch.set_num_threads(1)
    return str(request.param)


@pytest.fixture(scope="module")
def small(kind: str) -> ModuleType:
    return FAMILIES[kind]


@pytest.fixture(scope="module")
def taught(kind: str, small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that knows <dog> and <cat>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    return learning.taught(small.save(folder / "base"), folder, **STRONG)


@pytest.fixture(scope="module")
def pictures(taught: Registry) -> Path:
    """Of <dog> and of <cat>, a folder each."""
    return taught.root.parent / "pictures"


@pytest.fixture(scope="module")
def base(taught: Registry) -> Base:
    return open_base(taught, device="cpu", precision="fp32")


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def products(found: ConceptWeights) -> dict[str, torch.Tensor]:
    return {site: up @ found.down[site] for site, up in found.up.items()}


def ran(cidm: Cidm, *words: object) -> None:
    done = cidm(*words)
    assert done.code == 0, done.err


def test_a_concept_is_rows_of_the_encoder_and_weights_of_every_attention(
    taught: Registry, base: Base, small: ModuleType
) -> None:
    found = weights(taught, base, "cat")
    assert found.tokens.shape == (1, 2, small.NUMBERS), "one set, as text enters once"
    assert found.up.keys() == set(base.sites("attn"))
    # What the words of one block become goes on into the next: every weight has a part in the picture.
    assert all(up.any() for up in found.up.values())
    cat = taught.get("cat")
    assert cat.method == "cidm"
    assert cat.losses["r1"] > 0, "kept apart from the first"


def test_a_training_that_was_stopped_ends_in_the_same_bytes(
    taught: Registry, pictures: Path, tmp_path: Path
) -> None:
    registry = Registry.create(tmp_path / "registry", taught.base)
    base = open_base(registry, device="cpu", precision="fp32")
    done, kind = [0], taught.base.kind
    events = Events(on_step=lambda n, loss: done.__setitem__(0, n), stop=lambda: done[0] >= 2)
    with pytest.raises(CidmError) as caught:
        learn_direct(registry, base, task(pictures / "dog", kind=kind, **STRONG), events)
    assert caught.value.code == ExitCode.INTERRUPTED
    fresh = open_base(registry, device="cpu", precision="fp32")
    learn_direct(registry, fresh, task(pictures / "dog", kind=kind, resume=True, **STRONG))
    assert registry.get("dog").blob == taught.get("dog").blob


def test_prompts_draw_what_they_name_and_a_batch_draws_what_single_pictures_are(
    cidm: Cidm, taught: Registry, tmp_path: Path
) -> None:
    where = ("--registry", taught.root, "--steps", 3)
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
    cidm: Cidm, taught: Registry, tmp_path: Path, mode: str
) -> None:
    def drawn(name: str, layout: str) -> np.ndarray:
        file = tmp_path / f"{name}.toml"
        file.write_text(layout.replace("[image]", f'[image]\nmode = "{mode}"'))
        ran(cidm, "generate", file, "-o", tmp_path / f"{name}.png", "--registry", taught.root)
        return picture(tmp_path / f"{name}.png")

    both, other = drawn("both", LAYOUT), drawn("other", LAYOUT.replace("<cat>", "<dog> in snow"))
    change = np.abs(both - other)
    left, right = change[:, :SIDE].mean(), change[:, SIDE:].mean()
    assert right > 1
    assert right > 1.5 * left, "the other region stays what it was, as far as one picture lets it"


@pytest.mark.parametrize("method", ["sum", "fuse"])
def test_merged_concepts_draw(cidm: Cidm, taught: Registry, tmp_path: Path, method: str) -> None:
    file = tmp_path / "both.safetensors"
    fewer = ("--steps", 2, "--drawings", 1) if method == "fuse" else ()
    ran(cidm, "merge", "dog", "cat", "--method", method, *fewer, "-o", file, "--registry", taught.root)
    drawing = ("generate", "-p", "a <dog>", "--steps", 2, "--registry", taught.root)
    ran(cidm, *drawing, "--merged", file, "-o", tmp_path / "merged.png")
    assert any(FUSED[taught.base.kind] in name for name in load_file(file))


@pytest.mark.parametrize("form", ["kohya", "comfyui", "diffusers", "peft", "bundle"])
def test_what_is_exported_comes_back(
    cidm: Cidm, taught: Registry, base: Base, tmp_path: Path, form: str
) -> None:
    file = tmp_path / ("dog" if form in ("diffusers", "peft") else "dog.safetensors")
    ran(cidm, "export", "dog", "--to", form, "-o", file, "--registry", taught.root)
    shutil.copytree(taught.root, tmp_path / "other")
    other = Registry.open(tmp_path / "other")
    noun = () if form == "bundle" else ("--class", "dog")
    ran(cidm, "import", file, "--as", "back", *noun, "--registry", other.root)
    own, back = (weights(other, base, name) for name in ("dog", "back"))
    assert own.up.keys() == back.up.keys()
    for site, product in products(own).items():
        torch.testing.assert_close(other.get("back").scale * products(back)[site], product)


@torch.no_grad()
@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_stock_diffusers_draws_the_same_with_what_is_exported(
    cidm: Cidm, taught: Registry, tmp_path: Path, small: ModuleType, form: str
) -> None:
    file = tmp_path / ("dog" if form == "diffusers" else "dog.safetensors")
    ran(cidm, "export", "dog", "--to", form, "-o", file, "--registry", taught.root)
    base = open_base(taught, device="cpu", precision="fp32")
    latents = sampling.initial_noise(base, [0], (SIDE, SIDE))
    words = torch.randn(1, 5, small.NUMBERS, generator=torch.Generator().manual_seed(1))
    asked = (latents, torch.tensor(500.0), [words])
    plain = base.predict(*asked)
    with merged(base.denoiser, products(weights(taught, base, "dog"))):
        ours = base.predict(*asked)
    pipe = base.architecture.pipeline(base)
    pipe.load_lora_weights(
        load_file(file / "pytorch_lora_weights.safetensors" if form == "diffusers" else file)
    )
    assert (ours - plain).abs().max() > 1e-3
    torch.testing.assert_close(base.predict(*asked), ours, rtol=1e-4, atol=1e-4)


def test_a_distilled_base_draws_what_was_learned_on_another_without_a_negative_prompt(
    cidm: Cidm, taught: Registry, tmp_path: Path, small: ModuleType
) -> None:
    place, bundle = small.save(tmp_path / "distilled", distilled=True), tmp_path / "all.safetensors"
    fast = Registry.create(tmp_path / "fast", identify(str(place)))
    assert fast.base.kind in ("flux2-klein-distilled", "z-image-turbo")
    ran(cidm, "export", "--to", "bundle", "-o", bundle, "--registry", taught.root)
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
    cidm: Cidm, taught: Registry, pictures: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    given = tmp_path / "given.png"
    Image.open(next((pictures / "dog").glob("*.png"))).convert("RGB").resize((SIDE, SIDE)).save(given)
    verb, *how = command
    ran(cidm, verb, given, *how, "--steps", 4, "-o", tmp_path / "over.png", "--registry", taught.root)
    change = np.abs(picture(tmp_path / "over.png") - picture(given))
    assert change[:, : SIDE // 2].mean() > 2
    if verb == "edit":
        assert not change[:, SIDE // 2 :].any(), "outside the box nothing changes"


def test_concepts_are_judged(cidm: Cidm, taught: Registry, tmp_path: Path) -> None:
    data = judging.save_data(tmp_path / "data", dog="dog", cat="cat")
    judges = (
        "--clip",
        judging.save_clip(tmp_path / "clip", with_tokenizer=True),
        "--dino",
        judging.save_resnet(tmp_path / "dino"),
    )
    registry = shutil.copytree(taught.root, tmp_path / "registry")
    done = cidm(
        "eval",
        "--registry",
        registry,
        "--data",
        data,
        *judges,
        "--steps",
        1,
        "-n",
        1,
        "--json",
        "-o",
        tmp_path / "out",
    )
    assert done.code == 0, done.err
    told = done.answer["evaluation"]
    assert [concept["name"] for concept in told["concepts"]] == ["dog", "cat"]
    assert set(told["means"]["ia"]) == {"clip", "dino"}


def test_what_it_takes_is_counted_without_weights_and_the_encoder_waits_elsewhere(
    kind: str, taught: Registry, pictures: Path
) -> None:
    hollow = skeleton(Path(taught.base.source), hardware="cuda", compute=torch.bfloat16, offload=True)
    work = task(pictures / "dog", kind=kind, checkpointing=True, **STRONG)
    encoding, step = estimate_learn.learning(None, (), hollow, work)
    assert "transformer" in step.memory
    assert not {"text encoder", "VAE"} & step.memory.keys(), (
        "with --offload a step needs the transformer alone"
    )
    assert encoding.memory.keys() > {"VAE"}
    options = resolve_draw({"steps": 3}, kind, hollow.pixels)
    records = estimate_draw.made_up(["dog"])
    phases = estimate_draw.drawing(None, records, hollow, Job("a <dog>", options))
    assert [phase.times for phase in phases] == [1, 3, 1]
    assert all(phase.flops for phase in phases)


def test_a_lora_of_another_family_is_refused(
    cidm: Cidm, kind: str, taught: Registry, tiny_base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "dog.safetensors"
    ran(cidm, "export", "dog", "--to", "comfyui", "-o", file, "--registry", taught.root)
    sd = Registry.create(tmp_path / "sd", identify(str(tiny_base)))
    refused = cidm("import", file, "--class", "dog", "--registry", sd.root)
    assert refused.code == ExitCode.INVALID
    what = {"flux2-klein": "Flux", "z-image": "a model that is a transformer"}[kind]
    assert f"is a LoRA of {what}, which the registry's base is not" in refused.error
