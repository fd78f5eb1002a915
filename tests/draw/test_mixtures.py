"""How learned concepts are put together for a prompt: the forms of Eq. 3, the baselines, a merged file."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from cidm_cli.draw import mixtures, png
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Job, choose_method
from cidm_cli.draw.mixtures import Loader, Mixture, applied, deltas, mixture
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.diffusers_lora import pack_diffusers
from cidm_cli.method.lowrank import delta
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import DRAW_METHODS, DrawOptions, resolve_draw
from cidm_registry import Record, Registry
from command import Cidm
from learning import learn_direct, task

NAMES = ("dog", "cat", "duck")
PROMPT = "a <dog> on a <cat>"


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that knows <dog>, <cat> and <duck>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    for number, name in enumerate(NAMES):
        pictures = tiny.save_pictures(folder / name, (f"a photo of a {name}",) * 3, seed=number)
        learn_direct(registry, base, task(pictures, name=name, noun=name))
    return registry


def options(base: Base, **said: object) -> DrawOptions:
    return resolve_draw(dict(steps=2, **said), "sd15", base.pixels)  # type: ignore[arg-type]


def mixed(base: Base, registry: Registry, prompt: str, **said: object) -> Mixture:
    return mixture(base, Loader(registry, base), registry.records(), prompt, options(base, **said))


def pixels(base: Base, registry: Registry, prompt: str = PROMPT, **said: object) -> bytes:
    (picture,) = draw(registry, base, [Job(prompt, options(base, **said))])
    return picture.image.tobytes()


# Which concepts, how strongly


def test_named_uses_the_named_ones_fully_and_no_other(base: Base, taught: Registry) -> None:
    found = mixed(base, taught, PROMPT)
    assert [record.key for record in found.used] == ["dog", "cat"]
    assert set(found.weights) == {(1.0,) * 7}
    assert mixed(base, taught, "a dog").used == ()


def test_mean_and_sum_use_every_concept_whatever_the_prompt_names(base: Base, taught: Registry) -> None:
    for method, weight in (("mean", 1 / 3), ("sum", 1.0)):
        found = mixed(base, taught, "a <dog>", method=method)
        assert [record.key for record in found.used] == list(NAMES)
        assert found.weights == ((weight,) * 7,) * 3
        assert [record.key for record in found.named] == ["dog"]


def test_latest_uses_the_newest_weights_with_the_named_tokens(base: Base, taught: Registry) -> None:
    found = mixed(base, taught, "a <dog>", method="latest")
    assert [record.key for record in found.used] == ["duck"]
    assert [record.key for record in found.named] == ["dog"]


def test_sharp_keeps_named_concepts_at_one_and_shares_at_most_one_more(base: Base, taught: Registry) -> None:
    shares = mixtures.similarity_weights(
        base, Loader(taught, base), taught.records(), taught.records()[:1], "a <dog>", "sharp", 2.0
    )
    assert torch.equal(shares[:, 0], torch.ones(7))
    assert (shares[:, 1:] > 0).any()
    assert (shares[:, 1:].sum(1) <= 1).all()


def test_official_weights_sum_to_one_at_each_layer(base: Base, taught: Registry) -> None:
    found = mixed(base, taught, PROMPT, method="official")
    assert torch.tensor(found.weights).sum(0) == pytest.approx(torch.ones(7))


def test_the_similarity_of_a_concept_to_itself_is_the_largest(base: Base, taught: Registry) -> None:
    for name in NAMES:
        found = mixed(base, taught, f"a photo of a <{name}>", method="official")
        strongest = max(zip(found.weights, found.used, strict=True), key=lambda pair: sum(pair[0]))
        assert strongest[1].key == name


def test_learning_more_changes_no_similarity(base: Base, taught: Registry) -> None:
    """Row 8 of the readings: each concept is encoded by itself, so neither order nor number matters."""
    load, records = Loader(taught, base), taught.records()
    few = mixtures.similarity_weights(base, load, records[:2], (), "a dog on a cat", "sharp", 1.0)
    backwards = mixtures.similarity_weights(base, load, records[1::-1], (), "a dog on a cat", "sharp", 1.0)
    assert torch.equal(few.flip(1), backwards)


@pytest.mark.parametrize("method", ["sharp", "official", "paper", "mean", "sum", "latest", "lora-c"])
def test_a_registry_without_concepts_draws_what_the_base_draws(
    method: str, base: Base, tiny_registry: Registry
) -> None:
    assert pixels(base, tiny_registry, "a dog", method=method) == pixels(base, tiny_registry, "a dog")


def test_an_empty_prompt_has_no_similarity_to_anything(base: Base, taught: Registry) -> None:
    for method in ("sharp", "official", "paper"):
        assert mixed(base, taught, "", method=method).used == ()


# Ways of drawing that the concepts were learned for


def as_if(record: Record, method: str) -> Record:
    return replace(record, method=method)


@pytest.mark.parametrize(
    ("learned", "drawn"),
    [("cidm", "named"), ("plain", "named"), ("ewc", "latest"), ("lwf", "latest"), ("c-lora", "sum")],
)
def test_auto_draws_concepts_as_they_were_learned(learned: str, drawn: str, taught: Registry) -> None:
    records = [as_if(record, learned) for record in taught.records()]
    assert choose_method("auto", records) == drawn
    assert choose_method("mean", records) == "mean"


def test_concepts_that_no_one_method_draws_are_refused(taught: Registry) -> None:
    first, second, _ = taught.records()
    with pytest.raises(CidmError, match=r"<dog>, <cat>.*cidm, ewc"):
        choose_method("auto", [as_if(first, "cidm"), as_if(second, "ewc")])


# What is merged


def test_weights_differ_from_layer_to_layer_in_the_merged_sum(base: Base, taught: Registry) -> None:
    load = Loader(taught, base)
    dog, cat, _ = taught.records()
    weights = (tuple(0.1 * k for k in range(7)), tuple(1 - 0.1 * k for k in range(7)))
    found = deltas(base, Mixture("official", (), (dog, cat), weights), load)
    layer_of = base.site_layers
    assert sorted(found) == sorted(lora_sites(base.denoiser))
    for site, matrix in found.items():
        parts = [
            w[layer_of[site]] * delta(load(r).up[site], load(r).down[site], r.scale)
            for r, w in zip((dog, cat), weights, strict=True)
        ]
        assert torch.allclose(matrix, parts[0] + parts[1], atol=1e-6)


def test_each_site_belongs_to_the_layer_of_its_block(base: Base) -> None:
    layers = base.layers
    for site, layer in base.site_layers.items():
        block = layers[layer].removesuffix(".attn2")
        assert site.startswith(block) or site.startswith(block.split(".transformer_blocks")[0] + ".proj_"), (
            site
        )
    leaves = {
        site.split("transformer_blocks.0.")[-1].split(".attentions.0.")[-1] for site in base.site_layers
    }
    assert {"attn1.to_q", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"} < leaves


@pytest.mark.parametrize("told", [{}, {"method": "sum"}, {"method": "sharp", "power": 1.0}], ids=str)
def test_factors_multiply_to_the_deltas(base: Base, taught: Registry, told: dict[str, object]) -> None:
    load = Loader(taught, base)
    mix = mixed(base, taught, PROMPT, **told)
    products = deltas(base, mix, load)
    for strength in (1.0, 0.5):
        factors = mixtures.factors(base, mix, load, strength)
        assert factors.keys() == products.keys()
        for site, (up, down) in factors.items():
            torch.testing.assert_close(up @ down, strength * products[site], rtol=1e-4, atol=1e-6)
            assert up.shape[1] == len(down) <= down.shape[1]


def test_factors_of_more_concepts_than_the_layer_is_wide_are_the_product(
    base: Base, taught: Registry
) -> None:
    """A hundred concepts must not cost more than a full matrix."""
    mix = mixed(base, taught, PROMPT)
    many = replace(mix, used=mix.used * 5, weights=mix.weights * 5)
    for site, (up, down) in mixtures.factors(base, many, Loader(taught, base)).items():
        assert len(down) <= down.shape[1]
        wanted = 5 * deltas(base, mix, Loader(taught, base))[site]
        torch.testing.assert_close(up @ down, wanted, rtol=1e-4, atol=1e-6)


# One at a time


def test_composite_of_one_concept_is_that_concept(base: Base, taught: Registry) -> None:
    (only,) = taught.records()[:1]
    job = [Job("a <dog>", options(base, method="lora-c"))]
    (picture,) = draw(taught, base, job, records=[only])
    assert picture.image.tobytes() == pixels(base, taught, "a <dog>")


def test_composite_averages_the_predictions_of_each_alone(base: Base, taught: Registry) -> None:
    load = Loader(taught, base)
    chosen = mixed(base, taught, "a <dog>", method="lora-c")
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    context = torch.randn(1, tiny.TOKENS, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(1))

    def predict() -> torch.Tensor:
        with torch.no_grad():
            return base.denoiser(x, 5, context).sample

    each = []
    for record in chosen.used:
        one = Mixture("named", (), (record,), ((1.0,) * 7,))
        with applied(base, one, load).merged(base):
            each.append(predict())
    assert not torch.equal(each[0], each[1])
    mean = applied(base, chosen, load).evaluate(base, 0, predict)
    assert torch.allclose(mean, torch.stack(each).mean(0), atol=1e-6)


def test_switch_takes_the_concepts_in_turn(base: Base, taught: Registry) -> None:
    load = Loader(taught, base)
    chosen = mixed(base, taught, "a <dog>", method="lora-switch")
    ready = applied(base, chosen, load)
    site = lora_sites(base.denoiser)[0]
    before = base.denoiser.get_submodule(site).weight.clone()
    turns = []
    for number in range(20):
        change = ready.evaluate(base, number, lambda: base.denoiser.get_submodule(site).weight - before)
        turns.append(
            [
                torch.allclose(change, deltas(base, one, load)[site], atol=1e-6)
                for one in mixtures.alone(chosen)
            ]
        )
    assert [row.index(True) for row in turns] == [0] * 5 + [1] * 5 + [2] * 5 + [0] * 5
    assert torch.equal(base.denoiser.get_submodule(site).weight, before)


# Promises


def test_a_deleted_concept_leaves_the_others_pictures_as_they_were(
    base: Base, taught: Registry, tmp_path: Path
) -> None:
    mine = Registry.open(shutil.copytree(taught.root, tmp_path / "mine"))
    before = pixels(base, mine, "a <dog> on a <cat>")
    mine.remove("duck")
    assert pixels(base, mine, "a <dog> on a <cat>") == before


def test_an_older_state_of_the_registry_can_be_drawn(base: Base, taught: Registry) -> None:
    job = Job("a <dog>", options(base, method="sum"))
    (then,) = draw(taught, base, [job], records=taught.records()[:1])
    (now,) = draw(taught, base, [job])
    assert then.image.tobytes() == pixels(base, taught, "a <dog>")
    assert then.image.tobytes() != now.image.tobytes()


@pytest.mark.parametrize("method", DRAW_METHODS)
def test_every_method_can_be_drawn_again_from_its_picture(method: str, cidm: Cidm, taught: Registry) -> None:
    where = ("--registry", taught.root, "-o")
    drawing = ("generate", "--steps", 2, "--precision", "fp32", "--method", method, "-p", PROMPT)
    assert cidm(*drawing, *where, "one.png").code == 0
    ran = cidm("generate", "--from", "one.png", *where, "two.png")
    assert ran.code == 0, ran.err
    assert Path("two.png").read_bytes() == Path("one.png").read_bytes()
    assert png.read_facts(Path("one.png"))["method"] == ("named" if method == "auto" else method)


@pytest.mark.parametrize(
    "change",
    [{"method": "magic"}, {"method": "merged"}, {"merged": {"path": "x", "sha256": "0"}}, {"concepts": None}],
)
def test_edited_weights_and_methods_are_refused(
    change: dict[str, object], base: Base, taught: Registry, tmp_path: Path
) -> None:
    from cidm_cli.draw.again import redraw

    (picture,) = draw(taught, base, [Job(PROMPT, options(base))])
    if change == {"concepts": None}:
        change = {"concepts": [{**c, "weights": [1.0]} for c in picture.facts["concepts"]]}
    with pytest.raises(CidmError) as caught:
        redraw(taught, base, {**picture.facts, **change})
    assert caught.value.code is ExitCode.INVALID


# A merged file


@pytest.fixture
def static_file(base: Base, taught: Registry, tmp_path: Path) -> Path:
    """<dog>'s weights as a file, at full weight."""
    (dog, *_) = taught.records()
    weights = Loader(taught, base)(dog)
    path = tmp_path / "dog.safetensors"
    factors = {site: (weights.up[site], weights.down[site]) for site in weights.up}
    path.write_bytes(
        pack_diffusers(factors, dog.scale, frozenset(), "unet.", {"name": dog.name, "blob": dog.blob})
    )
    return path


def test_a_merged_file_of_one_concept_draws_what_the_concept_draws(
    cidm: Cidm, taught: Registry, static_file: Path
) -> None:
    drawing = ("generate", "--steps", 2, "--precision", "fp32", "-p", "a <dog>", "--registry", taught.root)
    assert cidm(*drawing, "-o", "own.png").code == 0
    assert cidm(*drawing, "--merged", static_file, "-o", "static.png").code == 0
    from PIL import Image

    assert Image.open("static.png").tobytes() == Image.open("own.png").tobytes()
    again = ("generate", "--registry", taught.root, "--from", "static.png", "-o", "again.png")
    assert cidm(*again).code == ExitCode.NOT_FOUND, (
        "an image does not tell where on the maker's disk a file lies"
    )
    beside = Path(static_file.name)
    beside.write_bytes(static_file.read_bytes())
    assert cidm(*again).code == 0
    assert Path("again.png").read_bytes() == Path("static.png").read_bytes()
    beside.write_bytes(b"changed")
    assert cidm(*again).code in (ExitCode.NOT_FOUND, ExitCode.INVALID)


def test_a_merged_file_and_a_method_exclude_each_other(
    cidm: Cidm, taught: Registry, static_file: Path
) -> None:
    ran = cidm("generate", "-p", "a", "--merged", static_file, "--method", "sum", "--registry", taught.root)
    assert ran.code == ExitCode.USAGE
    assert "--merged" in ran.error


# cidm explain


def test_explain_shows_the_weights_that_drawing_uses(cidm: Cidm, base: Base, taught: Registry) -> None:
    ran = cidm(
        "explain", PROMPT, "--method", "official", "--registry", taught.root, "--json", "--precision", "fp32"
    )
    assert ran.code == 0, ran.err
    expected = mixed(base, taught, PROMPT, method="official")
    for record, weights in zip(expected.used, expected.weights, strict=True):
        assert ran.answer["weights"][record.name] == pytest.approx(weights, abs=1e-6)
    assert ran.answer["named"] == ["dog", "cat"]
    assert len(ran.answer["layers"]) == 7


def test_explain_writes_the_heat_map_and_leaves_out_what_is_not_used(cidm: Cidm, taught: Registry) -> None:
    ran = cidm("explain", "a <dog>", "--registry", taught.root, "-o", "map.png")
    assert ran.code == 0, ran.err
    assert "<dog>" in ran.out
    assert "<cat>" not in ran.out
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")


def test_explain_refuses_unknown_concepts_and_empty_registries(
    cidm: Cidm, taught: Registry, tiny_registry: Registry, no_model: None
) -> None:
    assert cidm("explain", "a <dgo>", "--registry", taught.root).code == ExitCode.NOT_FOUND
    assert cidm("explain", "a dog", "--registry", tiny_registry.root).code == ExitCode.NOT_FOUND
    Path("file").touch()
    assert cidm("explain", "a <dog>", "--registry", taught.root, "-o", "file/map.png").code == ExitCode.FAILED
    assert cidm("explain", "a", "--method", "x", "--registry", taught.root).code == ExitCode.USAGE
