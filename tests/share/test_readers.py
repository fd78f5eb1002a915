"""What `export` and `merge` write loads in other programs, unchanged: their names, and what stock diffusers draws."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load, load_file

import tiny
from cidm_cli.errors import ExitCode
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base, outline
from cidm_cli.models.identity import identify, settings_folder
from cidm_cli.models.sampling import initial_noise, make_scheduler
from cidm_cli.share import export
from cidm_registry import Registry
from command import Cidm
from exports import pairs
from learning import learn_direct, task
from readers import PROGRAMS, known, strangers

STEPS, SEED = 3, 5
FAMILIES = {"sd15": 192, "sdxl": 722}
"""Layers of each that a LoRA may change, as many as kohya's trainer makes modules for."""


# Names, at full size


@pytest.fixture(scope="module", params=FAMILIES)
def full_size(request: pytest.FixtureRequest) -> Base:
    """A published base without its weights."""
    return outline(settings_folder(request.param))


@pytest.mark.parametrize("what", ["merged", "export"])
@pytest.mark.parametrize("layers", ["all", "learned"])
def test_other_programs_know_every_key_of_a_full_size_file(
    what: str, layers: str, full_size: Base, tiny_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_apart", lambda *_: 0.0)  # of gigabytes of products
    shapes = full_size.shapes
    sites = list(shapes) if layers == "all" else lora_sites(full_size.denoiser)
    given = {site: (torch.ones(shapes[site][0], 1), torch.ones(1, shapes[site][1])) for site in sites}
    item = export.merged_item(tiny_registry, "all", given, {"concepts": [{"name": "dog"}, {"name": "cat"}]})
    if what == "export":
        item = export.merged_item(tiny_registry, "dog", given, {"name": "dog"})
    keys = set(load(export.lora(full_size, "kohya", full_size.family.name, item).files[""]))
    assert len(keys) == 3 * len(sites)
    for program in PROGRAMS:
        assert not strangers(program, full_size.family.name, keys), program


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_tables_of_names_are_those_of_whole_models(program: str, family: str) -> None:
    namings = len(known(program, family)) / FAMILIES[family]
    assert namings in (1, 2)
    assert strangers(program, family, {"unet.down_blocks.1.attentions.0.proj_in.lora_A.weight"})


# Pictures


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Registries that <dog> and <cat> are learned in, the second with one set of tokens for all layers, by family."""
    return {}


@pytest.fixture(params=FAMILIES)
def scene(
    request: pytest.FixtureRequest, taught: dict[str, Path], tmp_path: Path, tmp_path_factory: Any
) -> tuple[Registry, Base, Path]:
    """A copy of such a registry to change, its base, and the base's folder."""
    family = request.param
    base = request.getfixturevalue("base" if family == "sd15" else "sdxl")
    place = request.getfixturevalue("tiny_base" if family == "sd15" else "tiny_sdxl")
    if family not in taught:
        folder = tmp_path_factory.mktemp(family)
        registry = Registry.create(folder / "registry", identify(str(place)))
        learn_direct(registry, base, task(tiny.save_pictures(folder / "dog"), rank=2, scale=0.3))
        cats = tiny.save_pictures(folder / "cat", ("a photo of a cat",) * 3, seed=2)
        learn_direct(registry, base, task(cats, name="cat", noun="cat", portable=True, rank=3))
        taught[family] = registry.root
    return Registry.open(shutil.copytree(taught[family], tmp_path / "mine")), base, place


def run(cidm: Cidm, *arguments: object) -> Any:
    ran = cidm(*arguments)
    assert ran.code == 0, ran.err
    return ran


def drawn(cidm: Cidm, registry: Registry, prompt: str, *options: object) -> np.ndarray:
    run(
        cidm, "generate", "-p", prompt, *options, "--steps", STEPS, "--seed", SEED, "--sampler", "dpm++",
        "--guidance", 7.5, "--precision", "fp32", "-o", "ours.png", "--registry", registry.root,
    )  # fmt: skip
    return np.asarray(Image.open("ours.png"), np.float64)


def stock(place: Path, base: Base) -> Any:
    """An unchanged pipeline of diffusers."""
    sdxl = base.family.name == "sdxl"
    of_family = StableDiffusionXLPipeline if sdxl else StableDiffusionPipeline
    more = {"add_watermarker": False} if sdxl else {}
    pipe = of_family.from_pretrained(place, use_safetensors=True, **more)
    pipe.scheduler = make_scheduler(base, "dpm++")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(pipe: Any, base: Base, prompt: str, summed_up: str = "") -> np.ndarray:
    """What it draws; on SDXL of another prompt's embedding as a whole, where that is given."""
    said: dict[str, Any] = {"prompt": prompt}
    if summed_up and base.family.name == "sdxl":
        each, none, _, no_whole = pipe.encode_prompt(prompt)
        _, _, whole, _ = pipe.encode_prompt(summed_up)
        said = {
            "prompt_embeds": each, "negative_prompt_embeds": none, "pooled_prompt_embeds": whole,
            "negative_pooled_prompt_embeds": no_whole,
        }  # fmt: skip
    noise = initial_noise(base, [SEED], (tiny.PIXELS, tiny.PIXELS))
    made = pipe(**said, latents=noise, num_inference_steps=STEPS, guidance_scale=7.5)
    return np.asarray(made.images[0], np.float64)


@pytest.mark.parametrize("method", ["sum", "svd"])
def test_stock_diffusers_draws_a_merged_file_as_generate_does(
    method: str, cidm: Cidm, scene: tuple[Registry, Base, Path]
) -> None:
    registry, base, place = scene
    run(cidm, "merge", "--method", method, "-o", "all.safetensors", "--registry", registry.root)
    prompt = "a photo of a dog on the beach"
    ours = drawn(cidm, registry, prompt, "--merged", "all.safetensors")
    pipe = stock(place, base)
    plain = theirs(pipe, base, prompt)
    pipe.load_lora_weights(".", weight_name="all.safetensors", use_safetensors=True)
    assert np.abs(theirs(pipe, base, prompt) - ours).max() <= 1
    assert np.abs(plain - ours).max() > 1, "the file is heard"


def test_the_tokens_beside_a_merged_file_are_read_by_stock_diffusers(
    cidm: Cidm, scene: tuple[Registry, Base, Path]
) -> None:
    registry, base, place = scene
    answer = run(
        cidm, "merge", "--method", "sum", "-o", "all.safetensors", "--registry", registry.root, "--json"
    ).answer
    assert [(one["path"], one["sets"] > 1, one["lost"] > 0) for one in answer["embeddings"]] == [
        ("all-embeddings/dog.safetensors", True, True), ("all-embeddings/cat.safetensors", False, False),
    ]  # fmt: skip
    exported = run(cidm, "export", "--to", "embedding", "-o", "own", "--registry", registry.root, "--json")
    for one in exported.answer["exported"]:
        assert Path(one["path"]).read_bytes() == Path("all-embeddings", Path(one["path"]).name).read_bytes()
    ours = drawn(cidm, registry, "a red <cat>", "--merged", "all.safetensors")
    pipe = stock(place, base)
    pipe.load_lora_weights(".", weight_name="all.safetensors", use_safetensors=True)
    tokens = load_file("all-embeddings/cat.safetensors")
    parts = [("clip_l", pipe.text_encoder, pipe.tokenizer)]
    if base.family.name == "sdxl":
        parts.append(("clip_g", pipe.text_encoder_2, pipe.tokenizer_2))
    else:
        tokens = {"clip_l": tokens["emb_params"]}
    for name, encoder, tokenizer in parts:
        pipe.load_textual_inversion(
            {"my-cat": tokens[name]}, token="my-cat", text_encoder=encoder, tokenizer=tokenizer
        )
    # SDXL's readers sum up the prompt as a whole with their own tokens, this program with the class noun.
    assert np.abs(theirs(pipe, base, "a red my-cat", summed_up="a red cat") - ours).max() <= 1
    assert np.abs(theirs(pipe, base, "a red cat") - ours).max() > 1, "the tokens are heard"


def test_a_merged_file_is_imported_and_exported_again(cidm: Cidm, scene: tuple[Registry, Base, Path]) -> None:
    registry, *_ = scene
    where = ("--registry", registry.root)
    run(cidm, "merge", "--method", "sum", "-o", "all.safetensors", *where)
    run(cidm, "export", "--merged", "all.safetensors", "-o", "again.safetensors", *where)
    one, two = load_file("all.safetensors"), load_file("again.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    run(cidm, "import", "all.safetensors", "--class", "dog", *where)
    prompt = "a photo of a dog"
    merged = drawn(cidm, registry, prompt, "--merged", "all.safetensors")
    assert np.abs(drawn(cidm, registry, "a photo of a <all>") - merged).max() <= 1


# What a merged file holds


@pytest.fixture
def both(scene: tuple[Registry, Base, Path], cidm: Cidm) -> Registry:
    registry, base, _ = scene
    run(cidm, "merge", "--method", "sum", "-o", "both.safetensors", "--registry", registry.root)
    toys = tiny.save_pictures(Path("toys"), ("a photo of a toy",) * 3, seed=5)
    learn_direct(registry, base, task(toys, name="toy", noun="toy", rank=2))
    return registry


@pytest.mark.parametrize("scene", ["sd15"], indirect=True)
def test_concepts_that_a_merged_file_does_not_hold_are_not_drawn_with_it(
    both: Registry, cidm: Cidm, no_model: None
) -> None:
    where = ("--merged", "both.safetensors", "--registry", both.root)
    for prompt in ("a <toy>", "a <dog> and a <toy>"):
        ran = cidm("generate", "-p", prompt, *where)
        assert ran.code == ExitCode.NOT_FOUND
        assert "both.safetensors: holds <dog>, <cat>, and not <toy>" in ran.error
    both.rename("toy", "toy2")
    both.rename("dog", "toy")
    assert "and not <toy2>" in cidm("generate", "-p", "a <toy2>", *where).error
    text = 'version = 1\n[[region]]\nprompt = "a <toy2>"\nbox = [0.0, 0.0, 0.5, 1.0]\n[base]\nprompt = "a beach"\n'
    Path("layout.toml").write_text(text)
    assert "and not <toy2>" in cidm("generate", "layout.toml", *where).error


@pytest.mark.parametrize("scene", ["sd15"], indirect=True)
def test_a_renamed_concept_is_known_by_its_weights(both: Registry, cidm: Cidm) -> None:
    before = drawn(cidm, both, "a <dog>", "--merged", "both.safetensors")
    both.rename("dog", "rex")
    assert np.array_equal(drawn(cidm, both, "a <rex>", "--merged", "both.safetensors"), before)


@pytest.mark.parametrize("scene", ["sd15"], indirect=True)
def test_a_file_that_names_no_concept_is_drawn_with_none(both: Registry, cidm: Cidm, base: Base) -> None:
    from safetensors.torch import save_file

    from exports import kohya_tensors

    save_file(kohya_tensors(pairs(base.shapes, lora_sites(base.denoiser))), "other.safetensors")
    assert drawn(cidm, both, "a dog", "--merged", "other.safetensors").any()
    ran = cidm("generate", "-p", "a <dog>", "--merged", "other.safetensors", "--registry", both.root)
    assert ran.code == ExitCode.NOT_FOUND
    assert "holds no concept that it names, and not <dog>" in ran.error
