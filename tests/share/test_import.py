"""`cidm import`: LoRA files of other programs as concepts that everything else works with."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

import tiny
from cidm_cli.draw.again import redraw
from cidm_cli.draw.images import draw, read_static
from cidm_cli.draw.jobs import Job
from cidm_cli.errors import ExitCode
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.features import feature_source
from cidm_cli.models.opening import concept_weights
from cidm_cli.models.sampling import initial_noise, make_scheduler
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Against, Registry
from command import Cidm
from exports import kohya_tensors, pairs, products, worst
from learning import files_of, learn_direct, task


@pytest.fixture
def file(base: Base, elsewhere: Path) -> Path:
    """A LoRA as kohya's trainer makes it: on every linear layer and 1x1 convolution, alpha half the rank."""
    given = {site: (0.2 * up, down) for site, (up, down) in pairs(base.shapes).items()}
    save_file(kohya_tensors(given, alpha=1.0), "toy.safetensors")
    return Path("toy.safetensors")


def run(cidm: Cidm, *arguments: object) -> Any:
    ran = cidm(*arguments)
    assert ran.code == 0, ran.err
    return ran


def test_a_lora_on_every_layer_draws_what_stock_diffusers_draws_with_it(
    cidm: Cidm, tiny_registry: Registry, base: Base, tiny_base: Path, file: Path
) -> None:
    run(cidm, "import", file, "--registry", tiny_registry.root)
    record = tiny_registry.get("toy")
    assert (record.class_noun, record.scale, record.tokens) == ("toy", 0.5, ("toy",))
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, use_safetensors=True)
    pipe.load_lora_weights(".", weight_name=file.name, use_safetensors=True)
    pipe.scheduler = make_scheduler(base, "dpm++")
    pipe.set_progress_bar_config(disable=True)
    noise = initial_noise(base, [5], (tiny.PIXELS, tiny.PIXELS))
    theirs = pipe("a red toy", latents=noise, num_inference_steps=3, guidance_scale=7.5).images[0]
    options = resolve_draw(dict(steps=3, seed=5), "sd15", base.pixels)
    named, words = draw(
        tiny_registry, base, [Job(prompt, options) for prompt in ("a red <toy>", "a red toy")]
    )
    apart = np.abs(np.asarray(named.image, np.float64) - np.asarray(theirs)).mean()
    assert apart < 0.01
    assert np.abs(np.asarray(named.image, np.float64) - np.asarray(words.image)).mean() > 1


def test_what_was_imported_is_merged_explained_and_learned_beside(
    cidm: Cidm, tiny_registry: Registry, base: Base, tiny_base: Path, pictures: Path, file: Path
) -> None:
    where = ("--registry", tiny_registry.root)
    run(cidm, "import", file, *where)
    learn_direct(tiny_registry, base, task(pictures))
    assert tiny_registry.get("dog").against == Against.of([tiny_registry.get("toy")], 1)
    weights = run(cidm, "explain", "a <toy> and a <dog>", *where, "--json").answer
    assert weights["named"] == ["toy", "dog"]
    fused = ("--steps", 2, "--drawings", 1, "--templates", 2)
    run(cidm, "merge", "-o", "all.safetensors", *fused, *where)
    assert all(delta.isfinite().all() for delta in read_static(Path("all.safetensors"), base).deltas.values())
    run(cidm, "merge", "toy", "--method", "sum", "-o", "toy-only.safetensors", *where)
    sums = read_static(Path("toy-only.safetensors"), base).deltas
    record = tiny_registry.get("toy")
    own = concept_weights(tiny_registry, base, record)
    assert worst(sums, products({s: (own.up[s], own.down[s]) for s in own.up}, record.scale)) < 1e-6
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, use_safetensors=True)
    pipe.load_lora_weights(".", weight_name="toy-only.safetensors", use_safetensors=True)
    assert len(pipe.unet.peft_config) == 1, "with its convolutions as convolutions"


def test_what_was_imported_is_drawn_in_a_region(cidm: Cidm, tiny_registry: Registry, file: Path) -> None:
    run(cidm, "import", file, "--registry", tiny_registry.root)
    region = '[[region]]\nprompt = "{}"\nbox = [0.0, 0.0, 0.5, 1.0]\n'
    drawn = []
    for words in ("a red <toy>", "a red toy"):
        text = 'version = 1\n[image]\nsteps = 2\n[base]\nprompt = "a beach"\n' + region.format(words)
        Path("layout.toml").write_text(text)
        ran = run(cidm, "generate", "layout.toml", "-o", "out", "-q", "--registry", tiny_registry.root)
        drawn.append(np.asarray(Image.open(ran.out.strip()), np.float64))
    assert np.abs(drawn[0] - drawn[1])[:, :32].mean() > 1


def test_one_file_imported_as_two_things_stays_two_things(
    cidm: Cidm, tiny_registry: Registry, base: Base, file: Path
) -> None:
    where = ("--registry", tiny_registry.root)
    run(cidm, "import", file, "--as", "la", "--class", "dog", *where)
    run(cidm, "import", file, "--as", "lb", "--class", "cat", *where)
    assert tiny_registry.get("la").blob == tiny_registry.get("lb").blob
    options = resolve_draw(dict(steps=2, seed=5, batch=2), "sd15", base.pixels)
    first, second = (Job(f"a red <{name}>", options) for name in ("la", "lb"))
    both = list(draw(tiny_registry, base, [first, second]))
    (alone,) = draw(tiny_registry, base, [second], mixed=False)
    apart = np.abs(np.asarray(both[1].image, np.float64) - np.asarray(alone.image))
    assert apart.max() <= 1, "the other's class noun was drawn"
    assert both[0].image.tobytes() != both[1].image.tobytes()
    tiny_registry.rename("la", "lc")
    for picture in both:
        assert redraw(tiny_registry, base, picture.facts).image.tobytes() == picture.image.tobytes()


def test_show_tells_two_imports_of_one_file_apart(
    cidm: Cidm, tiny_registry: Registry, base: Base, pictures: Path, file: Path
) -> None:
    where = ("--registry", tiny_registry.root)
    for name in ("la", "lb"):
        run(cidm, "import", file, "--as", name, "--class", "dog", *where)
    learn_direct(tiny_registry, base, task(pictures))
    assert "against    la, lb\n" in run(cidm, "show", "dog", *where).out
    told = run(cidm, "show", "lb", *where).out
    assert "it came from a file" in told
    assert "it was the first" not in told


def test_layers_that_fuse_looks_at_are_those_that_are_fed(base: Base) -> None:
    others = set(base.shapes) - set(lora_sites(base.denoiser, "attn1+attn2"))
    assert others
    assert all(feature_source(site) == site for site in others)


def test_each_module_keeps_its_scale_where_they_differ(
    cidm: Cidm, tiny_registry: Registry, base: Base, elsewhere: Path
) -> None:
    shapes = base.shapes
    one, *rest = lora_sites(base.denoiser)
    small, large = pairs(shapes, rest, rank=2), pairs(shapes, [one], rank=4, seed=1)
    save_file(kohya_tensors(small, alpha=1.0) | kohya_tensors(large, alpha=8.0), "toy.safetensors")
    run(cidm, "import", "toy.safetensors", "--registry", tiny_registry.root)
    record = tiny_registry.get("toy")
    assert (record.rank, record.scale) == (4, 1.0)
    assert record.config == {"alphas": [1.0, 8.0], "format": "kohya", "left_out": 0, "ranks": [2, 4]}
    own = concept_weights(tiny_registry, base, record)
    wanted = products(small, 0.5) | products(large, 2.0)
    assert worst({s: own.up[s] @ own.down[s] for s in own.up}, wanted) < 1e-6


@pytest.mark.parametrize("change", ["alpha", "lora_up.weight"])
def test_a_lora_that_changes_nothing_is_imported_with_a_warning(
    change: str, cidm: Cidm, tiny_registry: Registry, base: Base, elsewhere: Path
) -> None:
    given = kohya_tensors(pairs(base.shapes, lora_sites(base.denoiser)), alpha=1.0)
    save_file({n: 0 * t if n.endswith(change) else t for n, t in given.items()}, "toy.safetensors")
    ran = run(cidm, "import", "toy.safetensors", "--registry", tiny_registry.root)
    assert "toy.safetensors: changes nothing at 28 of its 28 layers" in ran.err
    assert "warning" in ran.err


def test_a_header_of_megabytes_of_tags_is_no_hindrance(
    cidm: Cidm, tiny_registry: Registry, base: Base, elsewhere: Path
) -> None:
    given = kohya_tensors(pairs(base.shapes, lora_sites(base.denoiser)), alpha=1.0)
    tags = {f"tag number {n} of the set": n for n in range(40_000)}
    save_file(given, "toy.safetensors", {"ss_tag_frequency": json.dumps({"10_toy": tags})})
    ran = run(cidm, "import", "toy.safetensors", "--registry", tiny_registry.root)
    assert "warning" not in ran.err


def test_what_is_left_out_is_said(cidm: Cidm, tiny_registry: Registry, base: Base, elsewhere: Path) -> None:
    given = kohya_tensors(pairs(base.shapes, lora_sites(base.denoiser)))
    given |= {f"lora_te_text_model_x{n}.lora_up.weight": torch.ones(2, 2) for n in range(3)}
    save_file(given, "My LoRA v1.2.safetensors")
    ran = run(cidm, "import", "My LoRA v1.2.safetensors", "--class", "toy", "--registry", tiny_registry.root)
    assert "left out 3 parts" in ran.err
    assert "lora_te_text_model_x0" in ran.err
    assert tiny_registry.get("My_LoRA_v1_2").class_noun == "toy"


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("none.safetensors", ExitCode.NOT_FOUND, "no such file"),
        ("empty", ExitCode.NOT_FOUND, "pytorch_lora_weights"),
        ("pipe", ExitCode.INVALID, "not a regular file"),
        ("pickle.safetensors", ExitCode.INVALID, "pickle"),
        ("zip.safetensors", ExitCode.INVALID, "zip archive"),
        ("embedding.safetensors", ExitCode.INVALID, "embedding"),
        ("flux.safetensors", ExitCode.INVALID, "is a LoRA of Flux, which the registry's base is not"),
        ("pointer.safetensors", ExitCode.INVALID, "git lfs pull"),
        ("page.safetensors", ExitCode.INVALID, "web page"),
        ("sparse.safetensors", ExitCode.INVALID, "not a safetensors file"),
        ("huge.safetensors", ExitCode.INVALID, "no low-rank weights"),
        ("model.safetensors", ExitCode.INVALID, "whole model"),
        ("blob.safetensors", ExitCode.INVALID, "bundle"),
        ("peft.safetensors", ExitCode.INVALID, "PEFT"),
        ("stranger.safetensors", ExitCode.INVALID, "no low-rank weights"),
    ],
)
def test_what_is_no_lora_is_refused_before_the_model_loads(
    name: str,
    code: ExitCode,
    words: str,
    cidm: Cidm,
    tiny_registry: Registry,
    elsewhere: Path,
    no_model: None,
) -> None:
    one = torch.ones(2, 2)
    Path("empty").mkdir()
    os.mkfifo("pipe")
    Path("pointer.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    Path("page.safetensors").write_text("<!DOCTYPE html>\n<html><body>Log in</body></html>")
    entry = {"dtype": "U8", "shape": [3_000_000_000], "data_offsets": [0, 3_000_000_000]}
    for name_of, raw in (("sparse", b""), ("huge", json.dumps({"x": entry}).encode())):
        Path(f"{name_of}.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw)
        os.truncate(f"{name_of}.safetensors", 8 + len(raw) + 3_000_000_000)
    Path("pickle.safetensors").write_bytes(b"\x80\x02}q\x00.")
    Path("zip.safetensors").write_bytes(b"PK\x03\x04" + bytes(60))
    for stem, key in {
        "embedding": "emb_params",
        "flux": "transformer.single_blocks.0.lora_A.weight",
        "model": "model.diffusion_model.x",
        "blob": "tokens.text_encoder",
        "peft": "base_model.model.x.lora_A.weight",
        "stranger": "x",
    }.items():
        save_file({key: one}, f"{stem}.safetensors")
    before = files_of(tiny_registry.root)
    started = time.process_time()
    ran = cidm("import", name, "--registry", tiny_registry.root)
    assert time.process_time() - started < 1, "it was read"
    assert ran.code == code
    assert words in ran.error
    assert files_of(tiny_registry.root) == before


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--as", "a/b"), ExitCode.USAGE, "a/b"),
        (("--as", "DOG"), ExitCode.FAILED, "already"),
        (("--as", "ok", "--class", "<x>"), ExitCode.USAGE, "class noun"),
        (("--as", "ok", "--class", " "), ExitCode.USAGE, "'' is not a class noun"),
        (("--concept", "dog"), ExitCode.NOT_FOUND, "--concept"),
    ],
)
def test_names_that_cannot_be_are_refused(
    options: tuple[str, ...], code: ExitCode, words: str, cidm: Cidm, tiny_registry: Registry, file: Path
) -> None:
    run(cidm, "import", file, "--as", "dog", "--registry", tiny_registry.root)
    before = files_of(tiny_registry.root)
    ran = cidm("import", file, *options, "--registry", tiny_registry.root)
    assert ran.code == code
    assert words in ran.error
    assert files_of(tiny_registry.root) == before


def test_a_lora_of_another_width_is_refused_with_the_layers_name(
    cidm: Cidm, tiny_registry: Registry, base: Base, elsewhere: Path
) -> None:
    (site, (up, down)), *_ = pairs(base.shapes).items()
    save_file(kohya_tensors({site: (up, torch.cat([down, down], 1))}), "toy.safetensors")
    ran = cidm("import", "toy.safetensors", "--registry", tiny_registry.root)
    assert ran.code == ExitCode.INVALID
    assert site in ran.error
    assert tiny_registry.records() == []


def test_a_class_noun_too_long_for_a_prompt_is_refused(
    cidm: Cidm, tiny_registry: Registry, file: Path
) -> None:
    ran = cidm("import", file, "--class", "q" * 40, "--registry", tiny_registry.root)
    assert ran.code == ExitCode.USAGE
    assert "--class" in ran.error
