"""`cidm merge`: what each method makes of the concepts, and what it refuses before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from transformers import CLIPConfig, CLIPModel

import tiny
from cidm_cli.draw.mixtures import Loader, mixture
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.merged import read_merged
from cidm_cli.method.lowrank import delta
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.features import feature_source, sees_text
from cidm_cli.models.identity import identify
from cidm_cli.models.opening import lora_fit
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.merge import MERGE_METHODS, MergeOptions
from cidm_cli.share import features, interference
from cidm_cli.share.merge import Merge, merge, work
from cidm_cli.share.selection import to_merge
from cidm_registry import Registry
from command import Cidm
from learning import files_of, learn_direct, task
from registry_support import make_draft

QUICK = {"steps": 2, "drawings": 2, "templates": 3}
FLAGS = ("--steps", 2, "--drawings", 2, "--templates", 3)
Deltas = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that knows <dog> (rank 2), <cat> (rank 3, self-attention too) and <toy> (rank 2). Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    dogs = tiny.save_pictures(folder / "dog")
    learn_direct(registry, base, task(dogs, rank=2, scale=0.5))
    cats = tiny.save_pictures(folder / "cat", ("a photo of a cat",) * 3, seed=2)
    learn_direct(registry, base, task(cats, name="cat", noun="cat", rank=3, targets="attn1+attn2"))
    toys = tiny.save_pictures(folder / "toy", ("a photo of a toy",) * 3, seed=5)
    learn_direct(registry, base, task(toys, name="toy", noun="toy", rank=2))
    return registry.root


@pytest.fixture
def registry(taught: Path) -> Registry:
    return Registry.open(taught)


def merged(
    registry: Registry,
    base: Base,
    *names: str,
    factors: dict[str, float] | None = None,
    prompt: str | None = None,
    **options: Any,
) -> Merge:
    chosen = to_merge(registry, names, factors or {}, prompt, MergeOptions(**{**QUICK, **options}))
    return merge(registry, base, chosen)


def products(found: Merge) -> Deltas:
    return {site: up @ down for site, (up, down) in found.factors.items()}


def own(registry: Registry, base: Base, name: str) -> Deltas:
    """ΔW of one concept at each of its sites."""
    record = registry.get(name)
    weights = Loader(registry, base)(record)
    return {site: delta(up, weights.down[site], record.scale) for site, up in weights.up.items()}


def total(parts: list[tuple[float, Deltas]]) -> Deltas:
    out: Deltas = {}
    for weight, part in parts:
        for site, value in part.items():
            out[site] = out.get(site, torch.zeros_like(value)) + weight * value
    return out


def assert_same(found: Deltas, wanted: Deltas) -> None:
    assert found.keys() == wanted.keys()
    for site, value in wanted.items():
        torch.testing.assert_close(found[site], value, rtol=1e-4, atol=1e-6)


# Sums


def test_a_sum_is_the_sum_at_every_site_that_any_concept_has(registry: Registry, base: Base) -> None:
    found = merged(registry, base, "dog", "cat", method="sum")
    assert_same(products(found), total([(1, own(registry, base, "dog")), (1, own(registry, base, "cat"))]))
    assert set(found.factors) == set(lora_sites(base.denoiser, "attn1+attn2"))
    assert found.facts["rank"] == 5
    assert found.difference is not None
    assert found.difference < 1e-6
    assert found.lost == 0


def test_one_concept_alone_is_its_own_weights_to_the_bit(registry: Registry, base: Base) -> None:
    for method in ("sum", "mean", "svd"):
        found = merged(registry, base, "cat", method=method)
        weights = Loader(registry, base)(registry.get("cat"))
        assert found.factors.keys() == weights.up.keys()
        for site, (up, down) in found.factors.items():
            assert torch.equal(up, weights.up[site])
            assert torch.equal(down, weights.down[site])


def test_a_mean_divides_by_the_number_of_concepts_and_weights_multiply(
    registry: Registry, base: Base
) -> None:
    found = merged(registry, base, "dog", "cat", method="mean", factors={"DOG": 0.25})
    assert_same(
        products(found), total([(0.125, own(registry, base, "dog")), (0.5, own(registry, base, "cat"))])
    )
    assert [set(c["weights"]) for c in found.facts["concepts"]] == [{0.125}, {0.5}]


def test_without_names_all_concepts_are_merged_in_the_order_learned(registry: Registry, base: Base) -> None:
    found = merged(registry, base, method="sum")
    assert [c["key"] for c in found.facts["concepts"]] == ["dog", "cat", "toy"]
    other = merged(registry, base, "toy", "cat", "dog", method="sum")
    assert other.facts == found.facts
    assert all(torch.equal(other.factors[s][0], found.factors[s][0]) for s in found.factors)


@pytest.mark.parametrize("aggregation", ["named", "sharp", "official", "paper"])
def test_ewa_takes_the_weights_that_drawing_the_prompt_would(
    aggregation: str, registry: Registry, base: Base
) -> None:
    prompt = "a <dog> on the beach"
    found = merged(registry, base, method="ewa", prompt=prompt, aggregation=aggregation)
    load = Loader(registry, base)
    drawn = mixture(
        base, load, registry.records(), prompt, resolve_draw({"method": aggregation}, "sd15", base.pixels)
    )
    layer_of = base.site_layers
    parts = [
        {site: value * weights[layer_of[site]] for site, value in own(registry, base, record.name).items()}
        for record, weights in zip(drawn.used, drawn.weights, strict=True)
    ]
    assert_same(products(found), total([(1, part) for part in parts]))
    assert found.facts["prompt"] == prompt
    if aggregation == "named":
        assert set(found.factors) == set(own(registry, base, "dog"))
        assert found.facts["rank"] == 2


def test_a_concept_of_weight_0_is_left_out_as_if_it_were_not_there(registry: Registry, base: Base) -> None:
    for method in ("fuse", "mean"):
        chosen = to_merge(registry, ["dog", "cat"], {"cat": 0.0}, None, MergeOptions(method=method, **QUICK))
        assert [record.name for record in chosen.records] == ["dog"]
    with pytest.raises(CidmError, match="every concept has weight 0"):
        to_merge(registry, ["dog", "cat"], {"cat": 0.0, "dog": 0.0}, None, MergeOptions())


def test_ewa_of_a_prompt_that_draws_on_nothing_is_refused(registry: Registry, base: Base) -> None:
    with pytest.raises(CidmError, match="no concept has any weight"):
        merged(registry, base, method="ewa", prompt="a beach", aggregation="named")


# Shorter, pruned


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_rank_is_kept_and_its_loss_told(rank: int, registry: Registry, base: Base) -> None:
    found = merged(registry, base, "dog", "cat", method="sum", rank=rank)
    whole = total([(1, own(registry, base, "dog")), (1, own(registry, base, "cat"))])
    lost = kept = 0.0
    for site, (up, down) in found.factors.items():
        assert up.shape[1] <= rank
        values = torch.linalg.svdvals(whole[site].double())
        left = torch.linalg.svdvals((whole[site] - up @ down).double())
        torch.testing.assert_close(
            left[: -rank or None][: len(values) - rank], values[rank:], rtol=1e-3, atol=1e-6
        )
        lost, kept = lost + float(values[rank:].square().sum()), kept + float(values.square().sum())
    assert found.lost == pytest.approx(lost / kept, rel=1e-3)
    assert found.facts["rank"] == rank
    assert found.difference is not None
    assert found.difference > 1e-5, "no longer exact, and says so"


def test_svd_has_the_rank_of_one_concept(registry: Registry, base: Base) -> None:
    found = merged(registry, base, "dog", "cat", method="svd")
    short = merged(registry, base, "dog", "cat", method="sum", rank=3)
    assert found.facts["rank"] == 3
    assert found.difference is None
    assert_same(products(found), products(short))


def test_ties_keeps_the_largest_entries_of_the_sign_that_prevails(registry: Registry, base: Base) -> None:
    found = merged(registry, base, "dog", "toy", method="ties", density=0.4, rank=32)
    parts = [own(registry, base, name) for name in ("dog", "toy")]
    for site, value in products(found).items():
        pruned = []
        for part in parts:
            keep = int(0.4 * part[site].numel())
            floor = part[site].abs().flatten().sort(descending=True).values[keep - 1]
            pruned.append(torch.where(part[site].abs() >= floor, part[site], 0.0))
        sign = torch.where(pruned[0] + pruned[1] >= 0, 1, -1)
        agreeing = [torch.where(p.sign() == sign, p, 0.0) for p in pruned]
        count = sum((p != 0).int() for p in agreeing)
        wanted = sum(agreeing) / count.clamp_min(1)
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-6)


def test_dare_drops_entries_at_random_and_the_seed_decides_which(registry: Registry, base: Base) -> None:
    state = torch.random.get_rng_state()
    found, again, other = (
        merged(registry, base, "dog", method="dare", density=0.5, rank=32, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's draws are disturbed"
    whole = own(registry, base, "dog")
    shares = []
    for site, value in products(found).items():
        kept = value.abs() > 1e-7
        torch.testing.assert_close(value[kept], 2 * whole[site][kept], rtol=1e-3, atol=1e-6)
        shares.append(float(kept.float().mean()))
        assert torch.equal(value, products(again)[site])
    assert 0.45 < sum(shares) / len(shares) < 0.55
    assert any(not torch.equal(value, products(other)[site]) for site, value in products(found).items())


def test_pruned_merges_have_the_rank_of_all_concepts_together(registry: Registry, base: Base) -> None:
    for method in ("ties", "dare"):
        found = merged(registry, base, "dog", "toy", method=method)
        assert found.facts["rank"] == 4
        assert 0 < found.lost < 1


# Fused


def test_one_concept_fused_acts_on_its_own_prompts_as_it_does_by_itself(
    registry: Registry, base: Base
) -> None:
    found = merged(registry, base, "dog", method="fuse", preserve=0.0)
    assert found.strayed is not None
    assert found.strayed["text"] < 1e-4
    assert found.strayed["image"] < 1e-4
    # Not so where other prompts are to be left alone as well.
    held = merged(registry, base, "dog", method="fuse", preserve=10.0)
    assert held.strayed is not None
    assert held.strayed["text"] > 10 * found.strayed["text"]


def test_fused_weights_serve_each_concepts_features_better_than_any_sum(
    registry: Registry, base: Base
) -> None:
    load = Loader(registry, base)
    records = [registry.get(name) for name in ("dog", "cat", "toy")]
    options = MergeOptions(**QUICK)  # type: ignore[arg-type]
    gathered = features.gather(base, load, records, (1.0, 1.0, 1.0), options, "sd15", lambda: None)
    found = merged(registry, base, method="fuse", preserve=0.0)
    parts = [own(registry, base, record.name) for record in records]
    worse = 0
    for site, (up, down) in found.factors.items():
        gram = gathered.grams[feature_source(site)]
        seen = [(u.double() @ s) for u, s in zip(gathered.ups[site], gathered.seen[site], strict=True)]

        def far(D: torch.Tensor, gram: torch.Tensor = gram, seen: list[torch.Tensor] = seen) -> float:
            """Σ ‖ΔW_i X_i - D X_i‖² but for a constant."""
            return float((D @ gram * D).sum() - 2 * (sum(seen) * D).sum())

        best = far((up @ down).double())
        for share in (1.0, 1 / 3):
            summed = sum(
                (share * part[site] for part in parts if site in part),
                torch.zeros(up.shape[0], down.shape[1]),
            )
            assert best <= far(summed.double()) + 1e-9
            worse += best < 0.999 * far(summed.double())
    assert worse, "else there was nothing to do"


@pytest.mark.parametrize("preserve", [0.0, 0.3])
def test_rank_space_is_the_best_of_what_the_concepts_rows_can_express(
    preserve: float, registry: Registry, base: Base
) -> None:
    """By dense matrices: what is recorded along the concepts' rows alone is enough."""
    records = [registry.get(name) for name in ("dog", "toy")]
    load, options = Loader(registry, base), MergeOptions(**QUICK)  # type: ignore[arg-type]
    gathered = features.gather(base, load, records, (1.0, 1.0), options, "sd15", lambda: None)
    found = merged(registry, base, "dog", "toy", method="rank-space", preserve=preserve)
    for site, (up, down) in found.factors.items():
        source = feature_source(site)
        M = gathered.grams[source] + 2 * preserve * gathered.regular[source]
        wanted = sum(u.double() @ s for u, s in zip(gathered.ups[site], gathered.seen[site], strict=True))
        Q = torch.linalg.qr(torch.cat(gathered.downs[site]).double().T).Q
        M = Q.T @ M @ Q
        M += 1e-6 * M.trace() / len(M) * torch.eye(len(M))
        torch.testing.assert_close(
            (up @ down).double(), wanted @ Q @ torch.linalg.inv(M) @ Q.T, rtol=1e-3, atol=1e-6
        )


def test_rank_space_loses_no_less_than_the_merge_that_may_do_as_it_likes(
    registry: Registry, base: Base
) -> None:
    narrow, dense = (
        merged(registry, base, "dog", "toy", method=method, preserve=0.0).strayed
        for method in ("rank-space", "fuse")
    )
    assert narrow is not None
    assert dense is not None
    assert all(narrow[kind] >= dense[kind] - 1e-6 for kind in dense)


def test_text_features_are_those_of_the_concepts_own_prompts_at_each_layer(
    registry: Registry, base: Base
) -> None:
    load = Loader(registry, base)
    record = registry.get("dog")
    subject = features.concept_subject(load, record)
    prompts = subject.prompts(base, 3)
    vectors = {record.key: load(record).tokens}
    sites = lora_sites(base.denoiser)
    grams = features.text_features(base, prompts, vectors, dict.fromkeys(map(feature_source, sites)))
    assert set(grams) == {feature_source(site) for site in sites if sees_text(site)}
    rows = features.text.encode(base, prompts, vectors, layers=7)
    for source, gram in grams.items():
        flat = rows[base.site_layers[source]].flatten(0, 1).double()
        torch.testing.assert_close(gram, flat.T @ flat / len(flat))
    assert len({float(gram.sum()) for gram in grams.values()}) == 7, "each layer has its own tokens"


def test_templates_hold_the_concept_and_those_too_long_are_left_out(registry: Registry, base: Base) -> None:
    load = Loader(registry, base)
    record = registry.get("dog")
    count = load(record).tokens.shape[1]
    for style in (False, True):
        subject = features.Subject(features.text.Slot("dog", count), style)
        prompts = subject.prompts(base, 12)
        assert all(len(prompt.slots) == count for prompt in prompts)
        assert len(set(prompts)) == len(prompts) > 3
    huge = features.Subject(features.text.Slot("dog", tiny.TOKENS - 2), False)
    (only,) = huge.prompts(base, 12)
    assert len(only.slots) == tiny.TOKENS - 2


def test_the_prompts_looked_at_share_no_scene_and_no_subject_with_those_that_concepts_are_judged_by() -> None:
    from cidm_templates import CONCEPT_MARK, prompt_set, prompt_sets

    def words(prompts: Sequence[str]) -> set[str]:
        plain = {"a", "an", "and", "at", "by", "in", "of", "on", "the", "photo"}
        return {word for prompt in prompts for word in prompt.split()} - plain - {"{}", CONCEPT_MARK}

    judged = words([line for name in prompt_sets() for line in prompt_set(name)])
    assert {"beach", "snow", "night", "lion"} <= judged
    for templates in (features.OBJECT_TEMPLATES, features.STYLE_TEMPLATES):
        assert len(set(templates)) == 12
        assert all(template.count("{}") == 1 for template in templates)
        assert not words(templates) & judged


def test_progress_is_told_step_by_step(registry: Registry, base: Base) -> None:
    chosen = to_merge(registry, [], {}, None, MergeOptions(**QUICK))  # type: ignore[arg-type]
    calls: list[int] = []
    merge(registry, base, chosen, on_step=lambda: calls.append(1))
    assert len(calls) == work(chosen) == 2 * (3 + 3)


@pytest.mark.parametrize("method", MERGE_METHODS)
def test_the_base_is_left_as_it_was(method: str, registry: Registry, base: Base) -> None:
    before = {name: value.clone() for name, value in base.denoiser.state_dict().items()}
    merged(registry, base, "dog", "toy", method=method, prompt="a <dog>" if method == "ewa" else None)
    assert all(torch.equal(value, before[name]) for name, value in base.denoiser.state_dict().items())
    assert not any(module._forward_pre_hooks for module in base.denoiser.modules())


# The command


@pytest.mark.parametrize("method", ["fuse", "rank-space", "dare"])
def test_the_same_command_writes_the_same_bytes(method: str, cidm: Cidm, taught: Path, base: Base) -> None:
    for name in ("one", "two"):
        ran = cidm(
            "merge", "dog", "cat", *FLAGS, "--method", method, "--registry", taught, "--precision", "fp32",
            "-o", f"{name}/all.safetensors",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        assert ran.out.splitlines()[0] == f"{name}/all.safetensors"
    assert files_of(Path("one")) == files_of(Path("two"))
    names = ["all-embeddings/cat.safetensors", "all-embeddings/dog.safetensors", "all.safetensors"]
    assert sorted(files_of(Path("one"))) == names, "no temporary file is left"


def test_the_file_says_what_is_in_it(cidm: Cidm, taught: Path, base: Base) -> None:
    answer = cidm(
        "merge",
        "cat",
        "dog",
        *FLAGS,
        "-w",
        "dog=0.5",
        "--registry",
        taught,
        "-o",
        "all.safetensors",
        "--json",
    ).answer
    with safe_open("all.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["cidm"])
    found, _ = read_merged(Path("all.safetensors"), lora_fit(base))
    registry = Registry.open(taught)
    assert [(c["name"], c["key"], c["blob"]) for c in facts["concepts"]] == [
        (r.name, r.key, r.blob) for r in registry.records()[:2]
    ]
    assert [c["weights"] for c in facts["concepts"]] == [[0.5] * 7, [1.0] * 7]
    assert facts["method"] == "fuse"
    assert facts["base"] == registry.base.fingerprint
    assert facts["rank"] == 5 == max(m.up.shape[1] for m in found.modules.values())
    assert facts["options"] == asdict(MergeOptions(steps=2, drawings=2, templates=3))
    assert facts.items() <= answer.items()
    assert set(answer["strayed"]) == {"text", "image"}
    assert answer["path"] == "all.safetensors"


def test_people_are_told_what_was_lost(cidm: Cidm, taught: Path) -> None:
    where = ("--registry", taught, "-o", "all.safetensors")
    exact = cidm("merge", "--method", "sum", *where).out.splitlines()
    assert exact[1].startswith("sum of dog, cat, toy: rank 7 at 56 layers")
    assert exact[2].startswith("largest difference to the exact sum: ")
    assert float(exact[2].rsplit(" ", 1)[1]) < 1e-5
    short = cidm("merge", "--method", "sum", "--rank", 2, *where).out
    assert "by shortening to this rank: " in short
    assert "text features: " in cidm("merge", *FLAGS, *where).out
    assert cidm("merge", "--method", "mean", *where, "-q").out == "all.safetensors\n"


def test_settings_come_from_files_too(cidm: Cidm, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("cidm.toml").write_text('[merge]\nmethod = "mean"\nrank = 4\n')
    monkeypatch.setenv("CIDM_MERGE_RANK", "3")
    answer = cidm("merge", "--registry", taught, "-o", "all.safetensors", "--json").answer
    assert (answer["method"], answer["rank"]) == ("mean", 3)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), ExitCode.USAGE, "-o FILE"),
        (("-o", "all.ckpt"), ExitCode.USAGE, "all.ckpt"),
        (("-o", "a.safetensors", "--method", "magic"), ExitCode.USAGE, "magic"),
        (("-o", "a.safetensors", "--rank", "0"), ExitCode.USAGE, "--rank"),
        (("-o", "a.safetensors", "--density", "1"), ExitCode.USAGE, "--density"),
        (("-o", "a.safetensors", "--preserve", "-1"), ExitCode.USAGE, "--preserve"),
        (("-o", "a.safetensors", "--templates", "13"), ExitCode.USAGE, "--templates"),
        (("-o", "a.safetensors", "--power", "nan"), ExitCode.USAGE, "--power"),
        (("-o", "a.safetensors", "--seed", "-1"), ExitCode.USAGE, "--seed"),
        (("-o", "a.safetensors", "--aggregation", "x"), ExitCode.USAGE, "--aggregation"),
        (("-o", "a.safetensors", "--method", "ewa"), ExitCode.USAGE, "--prompt"),
        (("-o", "a.safetensors", "--prompt", "a <dog>"), ExitCode.USAGE, "--method ewa"),
        (("-o", "a.safetensors", "--method", "ewa", "-p", "a <dgo>"), ExitCode.NOT_FOUND, "<dog>"),
        (("cat", "-o", "a.safetensors", "--method", "ewa", "-p", "a <dog>"), ExitCode.NOT_FOUND, "<dog>"),
        (("dgo", "-o", "a.safetensors"), ExitCode.NOT_FOUND, "dog"),
        (("-o", "a.safetensors", "-w", "dog"), ExitCode.USAGE, "NAME=W"),
        (("-o", "a.safetensors", "-w", "dog=nan"), ExitCode.USAGE, "NAME=W"),
        (("-o", "a.safetensors", "-w", "dog=1", "-w", "dog=2"), ExitCode.USAGE, "NAME=W"),
        (("cat", "-o", "a.safetensors", "-w", "dog=1"), ExitCode.USAGE, "dog"),
        (("--analyze", "-o", "a.safetensors"), ExitCode.USAGE, "--analyze"),
        (("--analyze", "dog"), ExitCode.NOT_FOUND, "two"),
        (("-o", "/dev/null/a.safetensors"), ExitCode.FAILED, "/dev/null/a.safetensors: cannot be written"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused_before_a_model_is_loaded(
    arguments: tuple[str, ...], code: ExitCode, said: str, cidm: Cidm, taught: Path, no_model: None
) -> None:
    ran = cidm("merge", *arguments, "--registry", taught)
    assert ran.code == code, ran.err
    assert said in ran.error
    assert not list(Path().iterdir())


@pytest.mark.parametrize("foreign", ["text", "weights", "exported"])
def test_o_takes_the_place_of_no_file_that_was_not_merged_here(
    foreign: str, cidm: Cidm, taught: Path, no_model: None
) -> None:
    if foreign == "exported":
        to = ("--to", "kohya", "-o", "mine.safetensors")
        assert cidm("export", "dog", *to, "--registry", taught).code == 0
    else:
        content = (
            b"mine" if foreign == "text" else save({"unet.x.lora_A.weight": torch.ones(1)}, {"cidm": "1"})
        )
        Path("mine.safetensors").write_bytes(content)
    before = files_of(Path())
    ran = cidm("merge", "--method", "sum", "-o", "mine.safetensors", "--registry", taught)
    assert ran.code == ExitCode.USAGE
    assert "mine.safetensors" in ran.error
    assert files_of(Path()) == before


def test_no_file_beside_it_is_written_over_that_is_no_embedding_of_ours(
    cidm: Cidm, taught: Path, no_model: None
) -> None:
    Path("all-embeddings").mkdir()
    Path("all-embeddings/cat.safetensors").write_bytes(save({"emb_params": torch.ones(1, 2)}))
    before = files_of(Path())
    ran = cidm("merge", "--method", "sum", "-o", "all.safetensors", "--registry", taught)
    assert ran.code == ExitCode.USAGE
    assert "all-embeddings/cat.safetensors" in ran.error
    assert files_of(Path()) == before


def test_o_takes_the_place_of_a_file_that_was_merged_here(cidm: Cidm, taught: Path) -> None:
    where = ("-o", "all.safetensors", "--registry", taught)
    made = []
    for method in ("sum", "mean"):
        assert cidm("merge", "--method", method, *where).code == 0
        made.append(Path("all.safetensors").read_bytes())
    assert made[0] != made[1]


def test_an_empty_registry_has_nothing_to_merge(cidm: Cidm, tiny_registry: Registry, no_model: None) -> None:
    ran = cidm("merge", "-o", "a.safetensors", "--registry", tiny_registry.root)
    assert ran.code == ExitCode.NOT_FOUND
    assert "cidm learn" in ran.error


@pytest.mark.parametrize(
    ("learned", "method", "fine"),
    [("finetune", "sum", False), ("ewc", "fuse", False), ("c-lora", "fuse", False), ("c-lora", "sum", True)],
)
def test_concepts_that_stand_on_each_other_are_not_added_up_twice(
    learned: str, method: str, fine: bool, taught: Path, tiny_base: Path, tmp_path: Path
) -> None:
    blob = Registry.open(taught).read_blob(Registry.open(taught).get("dog").blob)
    registry = Registry.create(tmp_path / "carried", identify(str(tiny_base)))
    for name in ("one", "two"):
        registry.commit(make_draft(name, method=learned), blob, expected_head=registry.head())

    def choose(*names: str) -> Any:
        return to_merge(registry, names, {}, None, MergeOptions(method=method))

    if fine:
        assert len(choose().records) == 2
    else:
        with pytest.raises(CidmError, match=learned):
            choose()
    assert len(choose("two").records) == 1


# Interference


def test_analysis_compares_every_pair_and_writes_nothing(cidm: Cidm, taught: Path) -> None:
    analyze = ("merge", "--analyze", "--steps", 2, "--registry", taught)
    answer = cidm(*analyze, "--json").answer
    pairs = {(p["concept"], p["added"]): p for p in answer["pairs"]}
    assert set(pairs) == {(a, b) for a in ("dog", "cat", "toy") for b in ("dog", "cat", "toy") if a != b}
    for (one, other), pair in pairs.items():
        assert 0 < pair["overlap"] < 1
        assert pair["overlap"] == pytest.approx(pairs[other, one]["overlap"])
        assert pair["change"] > 0
        assert pair["likeness"] is None
    ran = cidm(*analyze)
    assert ran.code == 0
    assert ran.out.splitlines()[0].split() == ["CONCEPT", "WITH", "OVERLAP", "CHANGE", "LIKENESS"]
    assert f"{answer['fits']} more concepts of rank 3" in ran.out
    assert not list(Path().iterdir())


def test_room_is_what_the_narrowest_site_has_left(registry: Registry, base: Base) -> None:
    found = interference.analyze(registry, base, registry.records(), MergeOptions(steps=1, samples=1))
    # 16 wide, 2 + 3 + 2 taken: 9 left, three times rank 3.
    assert found.free[found.tightest] == min(found.free.values()) == 9
    assert (found.rank, found.fits) == (3, 3)
    self_attention = next(site for site in found.free if ".attn1." in site)
    assert found.free[self_attention] == base.shapes[self_attention][0] - 3


def test_a_concept_that_weighs_nothing_changes_no_picture(
    registry: Registry, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features.own_deltas

    def weightless(load: Loader, record: Any, factor: float = 1.0) -> Deltas:
        return whole(load, record, 0.0 if record.key == "toy" else factor)

    monkeypatch.setattr(interference, "own_deltas", weightless)
    records = [registry.get("dog"), registry.get("toy")]
    found = interference.analyze(registry, base, records, MergeOptions(steps=1, samples=1))
    changes = {pair.concept: pair.change for pair in found.pairs}
    assert changes["dog"] == 0
    assert changes["toy"] > 0


def test_a_base_with_a_clip_model_is_asked_how_alike_pictures_are(
    registry: Registry, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base" / "clip"
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=small, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 32, "width": 32}, "do_center_crop": False})
    )
    monkeypatch.setattr(interference, "folder_of", lambda base: folder.parent)
    found = interference.analyze(registry, base, registry.records()[:2], MergeOptions(steps=1))
    assert all(pair.likeness is not None and 0 < pair.likeness < 1 for pair in found.pairs)
