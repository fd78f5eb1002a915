"""`cidm export`, and back again: what other programs load is what was learned, and what is lost is said."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file

import tiny
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Job
from cidm_cli.errors import ExitCode
from cidm_cli.method.lowrank import delta
from cidm_cli.models import text
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.opening import concept_weights
from cidm_cli.models.sampling import initial_noise, make_scheduler
from cidm_cli.options.draw import resolve_draw
from cidm_cli.share.features import OBJECT_TEMPLATES
from cidm_registry import Registry
from command import Cidm
from exports import worst
from learning import files_of, learn_direct, task
from registry_support import make_draft, make_weights

STEPS, SEED = 3, 5


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows <dog>, with tokens for each layer, and <cat>, with one set for all. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog"), rank=2, scale=0.3))
    cats = tiny.save_pictures(folder / "cat", ("a photo of a cat",) * 3, seed=2)
    learn_direct(registry, base, task(cats, name="cat", noun="cat", portable=True))
    return registry.root


@pytest.fixture
def registry(taught: Path) -> Registry:
    return Registry.open(taught)


@pytest.fixture
def mine(taught: Path, tmp_path: Path) -> Registry:
    """A copy to change."""
    return Registry.open(shutil.copytree(taught, tmp_path / "mine"))


@pytest.fixture
def second(tiny_base: Path, tmp_path: Path) -> Registry:
    """An empty registry on the same base."""
    return Registry.create(tmp_path / "second", identify(str(tiny_base)))


def own(registry: Registry, base: Base, name: str) -> dict[str, torch.Tensor]:
    """ΔW of each site of a concept."""
    record = registry.get(name)
    weights = concept_weights(registry, base, record)
    return {site: delta(up, weights.down[site], record.scale) for site, up in weights.up.items()}


def ours(registry: Registry, base: Base, prompt: str) -> np.ndarray:
    options = resolve_draw(dict(steps=STEPS, seed=SEED), "sd15", base.pixels)
    (picture,) = draw(registry, base, [Job(prompt, options)])
    return np.asarray(picture.image, np.float64)


def theirs(pipe: StableDiffusionPipeline | StableDiffusionXLPipeline, base: Base, prompt: str) -> np.ndarray:
    """What stock diffusers draws from the same noise."""
    pipe.scheduler = make_scheduler(base, "dpm++")
    pipe.set_progress_bar_config(disable=True)
    noise = initial_noise(base, [SEED], (tiny.PIXELS, tiny.PIXELS))
    drawn = pipe(prompt, latents=noise, num_inference_steps=STEPS, guidance_scale=7.5)
    return np.asarray(drawn.images[0], np.float64)


def run(cidm: Cidm, *arguments: object) -> Any:
    ran = cidm(*arguments)
    assert ran.code == 0, ran.err
    return ran


# There and back


@pytest.mark.parametrize("kind", ["kohya", "diffusers", "peft"])
def test_weights_survive_the_way_out_and_back_without_loading_the_base(
    kind: str, cidm: Cidm, mine: Registry, base: Base, no_model: None
) -> None:
    told = run(cidm, "export", "dog", "--to", kind, "-o", "out", "--registry", mine.root, "--json").answer
    (one,) = told["exported"]
    assert one["layers"] == 28
    assert one["of"] == 84
    assert one["difference"] < 1e-6
    path = Path("out/dog.safetensors") if kind == "kohya" else Path("out")
    assert [Path(p).parent for p in one["paths"]] == [Path("out")] * len(one["paths"])
    ran = run(cidm, "import", path, "--as", "back", "--registry", mine.root, "--json").answer
    record = mine.get("back")
    assert (ran["layers"], ran["kind"]) == (28, kind)
    assert (record.class_noun, record.method, record.rank, record.against.count) == ("dog", "import", 2, 0)
    assert worst(own(mine, base, "back"), own(mine, base, "dog")) < 1e-6
    assert mine.verify() == []


def test_stock_diffusers_draws_the_same_picture_with_file_and_embedding(
    cidm: Cidm, registry: Registry, base: Base, tiny_base: Path
) -> None:
    run(cidm, "export", "cat", "--to", "kohya", "-o", "loras", "--registry", registry.root)
    run(cidm, "export", "cat", "--to", "embedding", "-o", "embeddings", "--registry", registry.root)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, use_safetensors=True)
    plain = theirs(pipe, base, "a photo of a cat on the beach")
    pipe.load_lora_weights("loras", weight_name="cat.safetensors", use_safetensors=True)
    pipe.load_textual_inversion("embeddings/cat.safetensors", token="own-cat", use_safetensors=True)
    drawn = theirs(pipe, base, "a photo of a own-cat on the beach")
    wanted = ours(registry, base, "a photo of a <cat> on the beach")
    assert np.abs(wanted - plain).mean() > 1
    assert np.abs(drawn - wanted).mean() < 0.01, "of 255: nothing but roundings"


def test_a_concept_without_tokens_is_its_class_noun_with_the_weights_added(
    cidm: Cidm, mine: Registry, base: Base, tiny_base: Path
) -> None:
    run(cidm, "export", "dog", "--to", "diffusers", "-o", "out", "--registry", mine.root)
    run(cidm, "import", "out", "--as", "back", "--registry", mine.root)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, use_safetensors=True)
    pipe.load_lora_weights("out", use_safetensors=True)
    drawn = theirs(pipe, base, "a photo of a dog on the beach")
    assert np.abs(drawn - ours(mine, base, "a photo of a <back> on the beach")).mean() < 0.01
    assert np.abs(drawn - ours(mine, base, "a photo of a <dog> on the beach")).mean() > 1


def test_a_merged_file_is_exported_with_the_names_in_it(cidm: Cidm, registry: Registry, base: Base) -> None:
    run(cidm, "merge", "--method", "sum", "-o", "both.safetensors", "--registry", registry.root)
    ran = run(
        cidm, "export", "--merged", "both.safetensors", "--to", "kohya", "-o", "k.safetensors",
        "--registry", registry.root, "--json",
    )  # fmt: skip
    assert ran.answer["exported"][0]["difference"] < 1e-6
    with safe_open("k.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.merged_from"] == "dog, cat"
    assert metadata["ss_network_dim"] == "6"
    up, down, alpha = (
        load_file("k.safetensors")[f"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q.{part}"]
        for part in ("lora_up.weight", "lora_down.weight", "alpha")
    )
    site = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    whole = own(registry, base, "dog")[site] + own(registry, base, "cat")[site]
    torch.testing.assert_close(alpha / 6 * up @ down, whole, atol=1e-6, rtol=0)


# Tokens


def test_shared_tokens_are_exported_to_the_bit(cidm: Cidm, registry: Registry, base: Base) -> None:
    args = ("export", "cat", "--to", "embedding", "-o", "cat.safetensors", "--registry", registry.root)
    (one,) = run(cidm, *args, "--json").answer["exported"]
    tokens = concept_weights(registry, base, registry.get("cat")).tokens
    assert tokens.shape[0] == 1
    assert torch.equal(load_file("cat.safetensors")["emb_params"], tokens[0])
    assert (one["sets"], one["lost"]) == (1, 0)
    assert "nothing is lost" in run(cidm, *args, "--force").out


def test_averaging_the_layers_tokens_says_what_it_costs(cidm: Cidm, registry: Registry, base: Base) -> None:
    ran = run(
        cidm,
        "export",
        "dog",
        "--to",
        "embedding",
        "-o",
        "d.safetensors",
        "--registry",
        registry.root,
        "--json",
    )
    (one,) = ran.answer["exported"]
    tokens = concept_weights(registry, base, registry.get("dog")).tokens
    mean = tokens.mean(0, keepdim=True)
    torch.testing.assert_close(load_file("d.safetensors")["emb_params"], mean[0])
    assert one["sets"] == 7
    # By brute force, over one prompt after another.
    far, size = 0.0, 0.0
    for template in OBJECT_TEMPLATES[:6]:
        before, after = (words.strip() for words in template.split("{}"))
        parts = [part for part in (before, text.Slot("dog", tokens.shape[1]), after) if part]
        prompt = text.tokenize(base, parts)
        first = prompt.slots[0][0]
        with torch.no_grad():
            pair = [text.encode(base, [prompt], {"dog": v}, layers=7) for v in (tokens, mean)]
        for exact, moved in zip(*pair, strict=True):
            far += float((exact[0, first:] - moved[0, first:]).square().sum())
            size += float(exact[0, first:].square().sum())
    assert one["lost"] == pytest.approx((far / size) ** 0.5, rel=1e-4)
    assert 0 < one["lost"] < one["noun"]


# SDXL


def test_an_sdxl_concept_is_written_in_the_original_codes_naming_and_in_two_embeddings(
    cidm: Cidm, sdxl: Base, tiny_sdxl: Path, tmp_path: Path
) -> None:
    registry = Registry.create(tmp_path / "xl", identify(str(tiny_sdxl)))
    dogs = tiny.save_pictures(tmp_path / "dogs")
    learn_direct(registry, sdxl, task(dogs, rank=2, scale=0.3, portable=True))
    where = ("--registry", registry.root)
    (one,) = run(cidm, "export", "dog", "-o", "dog.safetensors", *where, "--json").answer["exported"]
    assert one["difference"] < 1e-6
    file = load_file("dog.safetensors")
    assert "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_q.lora_up.weight" in file
    assert not any("down_blocks" in name for name in file)
    with safe_open("dog.safetensors", "pt") as opened:
        assert opened.metadata()["ss_base_model_version"] == "sdxl_base_v1-0"
    run(cidm, "import", "dog.safetensors", "--as", "back", *where)
    assert worst(own(registry, sdxl, "back"), own(registry, sdxl, "dog")) < 1e-6
    run(cidm, "export", "dog", "--to", "embedding", "-o", "words.safetensors", *where)
    words, tokens = (
        load_file("words.safetensors"),
        concept_weights(registry, sdxl, registry.get("dog")).tokens[0],
    )
    assert torch.equal(words["clip_l"], tokens[:, : tiny.TEXT_WIDTH])
    assert torch.equal(words["clip_g"], tokens[:, tiny.TEXT_WIDTH :])
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl, use_safetensors=True, add_watermarker=False)
    pipe.load_lora_weights(".", weight_name="dog.safetensors", use_safetensors=True)
    drawn = theirs(pipe, sdxl, "a photo of a dog on the beach")
    wanted = ours(registry, sdxl, "a photo of a <back> on the beach")
    assert np.abs(drawn - wanted).mean() < 0.01
    assert np.abs(drawn - ours(registry, sdxl, "a photo of a dog on the beach")).mean() > 1


# Bundles


def test_no_backup_and_no_file_of_all_concepts_lacks_one_in_silence(
    cidm: Cidm, mine: Registry, pictures: Path
) -> None:
    where = ("--registry", mine.root)
    damaged = mine.root / "concepts" / "000001.json"
    damaged.write_bytes(b"")
    run(cidm, "export", "cat", "-o", "other.safetensors", *where)
    before = files_of(mine.root)
    for command in (
        ("export", "--to", "bundle", "-o", "all.safetensors"),
        ("export", "-o", "all"),
        ("merge", "-o", "all.safetensors"),
        ("merge", "--analyze"),
        ("rename", "cat", "dog"),
        ("import", "other.safetensors", "--as", "dog"),
        ("learn", "dog", pictures),
    ):
        ran = cidm(*command, *where)
        assert ran.code == ExitCode.REGISTRY, command
        assert str(damaged) in ran.error, command
    assert not Path("all.safetensors").exists()
    ran = cidm("export", "cat", "--to", "bundle", "-o", "cat.safetensors", *where)
    assert ran.code == 0
    assert f"warning: {damaged}: the record of 'dog' cannot be read" in ran.err
    assert files_of(mine.root) == before


def test_a_bundle_that_lacks_older_concepts_says_so(cidm: Cidm, registry: Registry, second: Registry) -> None:
    where = ("--registry", registry.root)
    run(cidm, "export", "--to", "bundle", "-o", "all.safetensors", *where)
    run(cidm, "export", "cat", "--to", "bundle", "-o", "cat.safetensors", *where)
    ran = run(cidm, "import", "cat.safetensors", "--registry", second.root)
    assert "1 of these were learned against older concepts" in ran.err
    ran = run(cidm, "show", "cat", "--registry", second.root)
    assert "1 of the registry it comes from" in ran.out
    second.remove("cat")
    assert "older concepts" not in run(cidm, "import", "all.safetensors", "--registry", second.root).err


def test_a_bundle_moves_concepts_byte_for_byte_and_draws_the_same(
    cidm: Cidm, registry: Registry, second: Registry, base: Base
) -> None:
    run(cidm, "export", "--to", "bundle", "-o", "all.safetensors", "--registry", registry.root)
    before = Path("all.safetensors").read_bytes()
    run(cidm, "export", "--to", "bundle", "-o", "all.safetensors", "--registry", registry.root, "--force")
    assert Path("all.safetensors").read_bytes() == before, "the same concepts give the same bytes"
    assert run(cidm, "import", "all.safetensors", "--registry", second.root, "-q").out == "dog\ncat\n"
    for old, new in zip(registry.records(), second.records(), strict=True):
        assert second.read_blob(new.blob) == registry.read_blob(old.blob)
        assert hashlib.sha256(second.blob_path(new.blob).read_bytes()).hexdigest() == old.blob
        kept = (
            "name",
            "class_noun",
            "tokens",
            "rank",
            "scale",
            "method",
            "config",
            "data_hash",
            "losses",
        )
        assert all(getattr(new, field) == getattr(old, field) for field in kept)
        assert new.against == replace(old.against, sequence=0), "the numbers are the other registry's"
        assert new.extra["bundled"]["created"] == old.created
    assert second.verify() == []
    prompt = "a <dog> and a <cat>"
    assert np.array_equal(ours(second, base, prompt), ours(registry, base, prompt))


def test_one_concept_of_a_bundle_may_be_taken_under_another_name(
    cidm: Cidm, mine: Registry, tmp_path: Path
) -> None:
    where = ("--registry", mine.root)
    run(cidm, "export", "--to", "bundle", "-o", "all.safetensors", *where)
    before = files_of(mine.root)
    taken = cidm("import", "all.safetensors", *where)
    assert taken.code == ExitCode.FAILED
    assert "--as" in taken.error
    assert cidm("import", "all.safetensors", "--as", "x", *where).code == ExitCode.USAGE
    assert cidm("import", "all.safetensors", "--concept", "duck", *where).code == ExitCode.NOT_FOUND
    assert cidm("import", "all.safetensors", "--class", "dog", *where).code == ExitCode.USAGE
    assert files_of(mine.root) == before
    answer = run(
        cidm, "import", "all.safetensors", "--concept", "Dog", "--as", "rex", *where, "--json"
    ).answer
    assert answer["concepts"][0]["blob"] == mine.get("dog").blob == mine.get("rex").blob


def test_a_bundle_of_another_base_is_refused_before_the_model_loads(
    cidm: Cidm, registry: Registry, second: Registry, no_model: None
) -> None:
    run(cidm, "export", "dog", "--to", "bundle", "-o", "dog.safetensors", "--registry", registry.root)
    head = second.root / "registry.json"
    content = json.loads(head.read_text())
    content["base"]["fingerprint"] = "0" * 64
    head.write_text(json.dumps(content))
    ran = cidm("import", "dog.safetensors", "--registry", second.root)
    assert ran.code == ExitCode.INVALID
    assert "another base" in ran.error
    assert registry.base.fingerprint[:12] in ran.error
    assert Registry.open(second.root).records() == []


# What is refused


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("dog", "--to", "comfy", "-o", "x"), ExitCode.USAGE, "--to comfy"),
        (("dog",), ExitCode.USAGE, "nowhere to write"),
        (("duck", "-o", "x"), ExitCode.NOT_FOUND, "duck"),
        (("-o", "x.safetensors"), ExitCode.USAGE, "2 files"),
        (("dog", "--to", "peft", "-o", "x.safetensors"), ExitCode.USAGE, "folder"),
        (("dog", "--to", "bundle", "-o", "x"), ExitCode.USAGE, "one .safetensors"),
        (("dog", "-o", "there.safetensors"), ExitCode.FAILED, "--force"),
        (("dog", "-o", "there.safetensors/sub"), ExitCode.FAILED, "cannot be written"),
        (
            ("dog", "--to", "bundle", "-o", "there.safetensors/b.safetensors"),
            ExitCode.FAILED,
            "cannot be written",
        ),
        (("dog", "--merged", "there.safetensors", "-o", "x"), ExitCode.USAGE, "--merged"),
        (("--merged", "there.safetensors", "--to", "embedding", "-o", "x"), ExitCode.USAGE, "--merged"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_the_model_loads(
    arguments: tuple[str, ...], code: ExitCode, words: str, cidm: Cidm, registry: Registry, no_model: None
) -> None:
    Path("there.safetensors").write_bytes(b"somebody's")
    ran = cidm("export", *arguments, "--registry", registry.root)
    assert ran.code == code
    assert words in ran.error
    assert Path("there.safetensors").read_bytes() == b"somebody's"
    assert not Path("x").exists()


@pytest.mark.parametrize(("method", "hint"), [("ewc", "export cat"), ("c-lora", "merge --method sum")])
def test_weights_that_other_concepts_have_a_share_in_are_not_exported_alone(
    method: str, hint: str, cidm: Cidm, second: Registry, no_model: None
) -> None:
    for number, name in enumerate(("dog", "cat")):
        draft = make_draft(name, method=method)
        second.commit(draft, make_weights(number), expected_head=second.head())
    ran = cidm("export", "dog", "-o", "x", "--registry", second.root)
    assert ran.code == ExitCode.FAILED
    assert hint in ran.error


def test_tokens_that_are_not_there_cannot_be_exported(cidm: Cidm, mine: Registry, base: Base) -> None:
    run(cidm, "export", "dog", "-o", "dog.safetensors", "--registry", mine.root)
    run(cidm, "import", "dog.safetensors", "--as", "back", "--registry", mine.root)
    ran = cidm("export", "back", "--to", "embedding", "-o", "x.safetensors", "--registry", mine.root)
    assert ran.code == ExitCode.FAILED
    assert "its trigger word is dog" in ran.error


def test_a_portable_concept_trains_one_set_of_tokens(registry: Registry, base: Base) -> None:
    dog, cat = (concept_weights(registry, base, registry.get(name)).tokens for name in ("dog", "cat"))
    assert (dog.shape[0], cat.shape[0]) == (7, 1)
    start = text.noun_vectors(base, "cat")
    assert not torch.equal(cat[0, 1:], start), "they were trained"
    assert registry.get("cat").config["options"]["portable"] is True
