"""The methods of learning: what each starts from, adds to the loss, and leaves for the concepts to come."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from cidm_cli.formats.concept import ConceptWeights, pack
from cidm_cli.learn import batches, methods
from cidm_cli.learn import run as learn
from cidm_cli.learn import step as training
from cidm_cli.learn.run import Events, caption_tokens
from cidm_cli.method import baselines as terms
from cidm_cli.method.lowrank import delta
from cidm_cli.models import text
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.models.opening import concept_weights
from cidm_registry import Against, Record, Registry
from learning import files_of, learn_direct, task

NAMES = ("dog", "cat", "duck")
SMALL = {"steps": 3, "batch": 1, "variants": 1, "ewc_draws": 2, "refresh_every": 2}
WAYS: dict[str, dict[str, Any]] = {
    "cidm": {"method": "cidm"},
    "cidm-r2": {"method": "cidm", "gamma2": 1.0},
    "cidm-paper": {"method": "cidm", "consolidation": "paper"},
    "plain": {"method": "plain"},
    "finetune": {"method": "finetune"},
    "ewc": {"method": "ewc"},
    "lwf": {"method": "lwf"},
    "c-lora": {"method": "c-lora"},
}
TERMS = {
    "cidm": {"r1"}, "cidm-r2": {"r1", "r2"}, "cidm-paper": {"r1", "r2"}, "ewc": {"ewc"}, "lwf": {"lwf"},
    "c-lora": {"c-lora"},
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two pictures of each concept."""
    root = tmp_path_factory.mktemp("pictures")
    return {n: tiny.save_pictures(root / n, (f"a photo of a {n}",) * 2, seed=k) for k, n in enumerate(NAMES)}


@pytest.fixture(scope="module")
def begun(
    base: Base, tiny_base: Path, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A registry in which <dog> was learned in a way; to be copied, not changed."""
    made: dict[str, Path] = {}

    def make(way: str) -> Path:
        if way not in made:
            made[way] = tmp_path_factory.mktemp(way) / "registry"
            add(Registry.create(made[way], identify(str(tiny_base))), base, folders, "dog", way)
        return made[way]

    return make


@pytest.fixture
def after_dog(begun: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[[str], Registry]]:
    """A registry of one's own in which <dog> was learned in a way."""

    def copy(way: str) -> Registry:
        count = len(list(tmp_path.glob("registry*")))
        return Registry.open(shutil.copytree(begun(way), tmp_path / f"registry{count}"))

    return copy


def add(
    registry: Registry,
    base: Base,
    folders: Mapping[str, Path],
    name: str,
    way: str,
    events: Events | None = None,
    **options: Any,
) -> Record:
    settings = {**SMALL, **WAYS[way], **options}
    return learn_direct(registry, base, task(folders[name], name=name, noun=name, **settings), events)


def weights_of(registry: Registry, base: Base, name: str) -> ConceptWeights:
    return concept_weights(registry, base, registry.get(name))


def furthest(one: ConceptWeights, other: ConceptWeights) -> float:
    """The largest step any number of the LoRA has made."""
    moved = [(one.up[s] - other.up[s]).abs().max() for s in one.up]
    moved += [(one.down[s] - other.down[s]).abs().max() for s in one.down]
    return float(torch.stack(moved).max())


# All of them


@pytest.mark.parametrize("way", WAYS)
def test_each_method_learns_concept_after_concept_and_changes_no_older_byte(
    way: str, base: Base, after_dog: Callable[[str], Registry], folders: dict[str, Path]
) -> None:
    registry = after_dog(way)
    unet = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    for number, name in enumerate(NAMES[1:], start=1):
        before = files_of(registry.root)
        older = registry.records()
        record = add(registry, base, folders, name, way)
        after = files_of(registry.root)
        assert {path: after.get(path) for path in before} == before
        assert len(after) == len(before) + 2, "a record and a blob"
        assert record.method == WAYS[way]["method"]
        assert record.against == Against.of(older, number)
        assert len(older) == number
        assert set(record.losses) - {"first", "last_tenth", "steps"} == TERMS.get(way, set())
        assert all(record.losses[term] > 0 for term in TERMS.get(way, set()) - {"ewc"}), record.losses
    assert registry.verify() == []
    assert all(base.denoiser.state_dict()[name].equal(tensor) for name, tensor in unet.items())


def test_the_first_concept_is_learned_by_eq_1_alone_whatever_comes_later(
    base: Base, after_dog: Callable[[str], Registry]
) -> None:
    plain = weights_of(after_dog("plain"), base, "dog")
    for way in ("cidm", "cidm-paper", "finetune", "ewc", "lwf"):
        registry = after_dog(way)
        assert pack(replace(weights_of(registry, base, "dog"), state={})) == pack(plain)
        assert set(registry.get("dog").losses) == {"first", "last_tenth", "steps"}


def test_each_older_concept_is_loaded_once(
    base: Base,
    after_dog: Callable[[str], Registry],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = after_dog("lwf")
    add(registry, base, folders, "cat", "lwf")
    read: list[str] = []
    sound = methods.concept_weights

    def spy(*arguments: Any) -> ConceptWeights:
        read.append(arguments[-1].name)
        return sound(*arguments)

    monkeypatch.setattr(methods, "concept_weights", spy)
    add(registry, base, folders, "duck", "lwf")
    assert sorted(read) == ["cat", "dog"]


# CIDM


def test_without_its_two_terms_cidm_is_plain_to_the_byte(
    base: Base, after_dog: Callable[[str], Registry], folders: dict[str, Path]
) -> None:
    none, plain, one = after_dog("cidm"), after_dog("cidm"), after_dog("cidm")
    without = add(none, base, folders, "cat", "cidm", gamma1=0.0)
    assert without.blob == add(plain, base, folders, "cat", "plain").blob
    assert set(without.losses) == {"first", "last_tenth", "steps"}
    # Of one term alone, only that one is recorded, and it is enough to change the weights.
    alone = add(one, base, folders, "cat", "cidm", gamma1=0.0, gamma2=5.0)
    assert set(alone.losses) == {"first", "last_tenth", "steps", "r2"}
    assert alone.blob != without.blob


def test_a_large_gamma1_lowers_the_overlap_with_the_older_concept(
    base: Base, after_dog: Callable[[str], Registry], folders: dict[str, Path]
) -> None:
    def overlap(way: str, **options: Any) -> float:
        registry = after_dog("cidm")
        add(registry, base, folders, "cat", way, steps=6, **options)
        dog, cat = weights_of(registry, base, "dog"), weights_of(registry, base, "cat")
        each = [(orthonormal(dog.up[s]).T @ orthonormal(cat.up[s])).square().sum() for s in cat.up]
        return float(torch.stack(each).mean())

    assert overlap("cidm", gamma1=50.0) < 0.7 * overlap("plain")


def orthonormal(up: torch.Tensor) -> torch.Tensor:
    """Columns that span the same."""
    return torch.linalg.qr(up).Q


def test_the_record_keeps_the_terms_of_the_last_tenth_of_steps_without_their_weights(
    base: Base,
    after_dog: Callable[[str], Registry],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[float] = []
    sound = methods.Consolidation.terms

    def spy(self: Any, *arguments: Any) -> Any:
        values = sound(self, *arguments)
        seen.append(values.overlap.item())
        return values

    monkeypatch.setattr(methods.Consolidation, "terms", spy)
    record = add(after_dog("cidm"), base, folders, "cat", "cidm", steps=20, gamma1=7.0)
    assert len(seen) == 20
    assert record.losses["r1"] == pytest.approx(sum(seen[-2:]) / 2)


def test_a_new_version_is_not_held_apart_from_its_own_old_one(
    base: Base, after_dog: Callable[[str], Registry], folders: dict[str, Path]
) -> None:
    registry, other = after_dog("cidm"), after_dog("plain")
    again = add(registry, base, folders, "dog", "cidm", update=True, seed=3)
    assert set(again.losses) == {"first", "last_tenth", "steps"}
    assert again.blob == add(other, base, folders, "dog", "plain", update=True, seed=3).blob


# Finetuning, EWC and LwF carry one LoRA on


@pytest.mark.parametrize("way", ["finetune", "ewc", "lwf"])
def test_the_lora_is_carried_on_and_the_tokens_are_new(
    way: str, base: Base, after_dog: Callable[[str], Registry], folders: dict[str, Path]
) -> None:
    registry = after_dog(way)
    # At rates this low nothing moves: what comes out is what it started from.
    add(registry, base, folders, "cat", way, lr=1e-30, token_lr=1e-30)
    dog, cat = weights_of(registry, base, "dog"), weights_of(registry, base, "cat")
    assert furthest(dog, cat) == 0
    assert any(dog.up[site].abs().sum() > 0 for site in dog.up), "not the zeros of a new LoRA"
    table = base.encoders[0].get_input_embeddings().weight
    assert torch.equal(
        cat.tokens[0, 1:], table[base.tokenizers[0]("cat", add_special_tokens=False).input_ids]
    )


def test_it_is_the_newest_lora_that_is_carried_on(
    base: Base, after_dog: Callable[[str], Registry], folders: dict[str, Path]
) -> None:
    registry = after_dog("finetune")
    add(registry, base, folders, "cat", "finetune")
    add(registry, base, folders, "duck", "finetune", lr=1e-30)
    dog, cat, duck = (weights_of(registry, base, name) for name in NAMES)
    assert furthest(cat, duck) == 0
    assert furthest(dog, duck) > 0


def test_a_huge_lambda_keeps_the_lora_where_the_older_concept_left_it(
    base: Base, after_dog: Callable[[str], Registry], folders: dict[str, Path]
) -> None:
    moved = {}
    for weight in (0.0, 1e14):
        registry = after_dog("ewc")
        add(registry, base, folders, "cat", "ewc", ewc_weight=weight, steps=8)
        dog, cat = weights_of(registry, base, "dog"), weights_of(registry, base, "cat")
        # Numbers that the older concept's loss does not feel at all may go anywhere.
        felt = {name: f > f.max() * 1e-6 for name, f in dog.state.items()}
        steps = [(cat.up[s] - dog.up[s])[felt[f"fisher.{s}.up"]] for s in dog.up]
        steps += [(cat.down[s] - dog.down[s])[felt[f"fisher.{s}.down"]] for s in dog.down]
        moved[weight] = float(torch.cat(steps).square().mean().sqrt())
    assert moved[1e14] < 0.25 * moved[0.0]


def test_the_fisher_information_is_estimated_on_the_concepts_own_pictures_and_added_up(
    base: Base, after_dog: Callable[[str], Registry], folders: dict[str, Path]
) -> None:
    registry = after_dog("ewc")
    record = add(registry, base, folders, "cat", "ewc")
    dog, cat = weights_of(registry, base, "dog"), weights_of(registry, base, "cat")
    work = task(folders["cat"], name="cat", noun="cat", **SMALL, **WAYS["ewc"])
    data = batches.prepare(base, work.dataset, caption_tokens(base, work, Events()), work.options)
    start = training.Method(factors={site: (cat.up[site], cat.down[site]) for site in cat.up})
    squares: dict[str, torch.Tensor] = {}
    with training.training(base, "cat", "cat", work.options, start) as trainee:
        trainee.tokens.data.copy_(cat.tokens)
        for number in range(2):
            batch = batches.draw(data, work.options, 3 + number, len(trainee.schedule.times))
            training.denoising(trainee, batch).backward()
            for site, pair in trainee.factors.items():
                for factor, parameter in zip(("up", "down"), pair, strict=True):
                    name = f"fisher.{site}.{factor}"
                    squares[name] = squares.get(name, 0) + parameter.grad.square() / 2
                    parameter.grad = None
    assert record.method == "ewc"
    assert cat.state.keys() == dog.state.keys() == squares.keys()
    for name, tensor in cat.state.items():
        torch.testing.assert_close(tensor, dog.state[name] + squares[name])
    assert any(f.max() > 0 for f in dog.state.values())


def test_lwf_distils_what_the_model_before_predicts_for_an_older_concept(
    base: Base,
    after_dog: Callable[[str], Registry],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = after_dog("lwf")
    seen = []
    sound = terms.distillation

    def spy(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        seen.append((now.detach().clone(), before.clone()))
        assert not before.requires_grad
        return sound(now, before)

    monkeypatch.setattr(terms, "distillation", spy)
    add(registry, base, folders, "cat", "lwf")
    dog, scale = weights_of(registry, base, "dog"), registry.get("dog").scale
    work = task(folders["cat"], name="cat", noun="cat", **SMALL, **WAYS["lwf"])
    data = batches.prepare(base, work.dataset, caption_tokens(base, work, Events()), work.options)
    prompt = text.tokenize(base, ["a photo of a ", text.Slot("dog", dog.tokens.shape[1])])
    start = training.Method(frozen={site: delta(dog.up[site], dog.down[site], scale) for site in dog.up})
    with torch.no_grad(), training.training(base, "cat", "cat", work.options, start) as trainee:
        # Its adapter is at its start, where it does nothing: this is the base with <dog> merged in.
        layers = len(base.layers)
        contexts = text.encode(base, [prompt], {"dog": dog.tokens}, layers=layers)
        for step, (now, before) in enumerate(seen):
            batch = batches.draw(data, work.options, step, len(trainee.schedule.times))
            torch.testing.assert_close(
                before, training.predict(trainee, batch, contexts, None), rtol=1e-3, atol=1e-4
            )
            assert now.equal(before) == (step == 0), "it begins as the model before, and then moves"
    assert len(seen) == SMALL["steps"]


# C-LoRA adds up


def test_c_lora_trains_one_random_token_on_top_of_the_sum_of_all_older_ones(
    base: Base,
    after_dog: Callable[[str], Registry],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = after_dog("c-lora")
    add(registry, base, folders, "cat", "c-lora", scale=0.5)
    site = lora_sites(base.denoiser)[3]
    wanted = base.denoiser.get_submodule(site).weight.clone()
    for name in ("dog", "cat"):
        weights = weights_of(registry, base, name)
        wanted += delta(weights.up[site], weights.down[site], registry.get(name).scale)
        assert weights.tokens.shape[1] == 1
        assert registry.get(name).tokens == ("[V*]",)
    seen = []
    sound = learn.train_step

    def spy(trainee: training.Trainee, *rest: Any) -> float:
        seen.append(base.denoiser.get_submodule(site).base_layer.weight.clone())
        return sound(trainee, *rest)

    monkeypatch.setattr(learn, "train_step", spy)
    add(registry, base, folders, "duck", "c-lora")
    for weight in seen:
        torch.testing.assert_close(weight, wanted)
    assert len(seen) == SMALL["steps"]
