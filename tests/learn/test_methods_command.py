"""`cidm learn --method`: what may be said together, what may live together, stopping and going on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn import methods
from cidm_cli.learn.admission import check_method
from cidm_cli.learn.run import Events
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.learn import resolve_learn
from cidm_registry import Record, Registry
from command import Cidm
from learning import files_of, learn_direct, task
from registry_support import make_draft, make_weights

STEPS = 5
SMALL = {"steps": STEPS, "batch": 1, "variants": 1, "ewc_draws": 1, "refresh_every": 2}


def put(registry: Registry, name: str, method: str, **changes: Any) -> Record:
    """A concept that was learned by a method, as far as its record says."""
    seed = len(registry.records())
    options = {"targets": "attn2"}
    draft = make_draft(name, method=method, config={"options": options}, **changes)
    return registry.commit(draft, make_weights(seed), expected_head=registry.head())


# What may live together


@pytest.mark.parametrize(
    ("there", "now"),
    [
        ("plain", "ewc"), ("cidm", "finetune"), ("cidm", "c-lora"), ("finetune", "ewc"), ("ewc", "lwf"),
        ("lwf", "cidm"), ("c-lora", "plain"), ("c-lora", "lwf"), ("finetune", "plain"),
    ],
)  # fmt: skip
def test_a_method_that_shares_weights_shares_its_registry_with_no_other(
    there: str, now: str, cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None
) -> None:
    put(tiny_registry, "cat", there)
    before = files_of(tiny_registry.root)
    for also in ((), ("--dry-run",)):
        ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, "--method", now, *also)
        assert ran.code == ExitCode.FAILED
        assert "cat" in ran.error
        assert there in ran.error
        assert now in ran.error
    assert files_of(tiny_registry.root) == before


def test_plain_and_cidm_mix_freely_and_each_baseline_goes_on_with_itself(tiny_registry: Registry) -> None:
    put(tiny_registry, "cat", "plain")
    put(tiny_registry, "duck", "cidm")
    for method in ("plain", "cidm"):
        check_method(tiny_registry.records(), resolve_learn({"method": method}, "sd15"))
    for method in ("finetune", "ewc", "lwf", "c-lora"):
        check_method([], resolve_learn({"method": method}, "sd15"))
        record = make_record(tiny_registry, method)
        check_method([record], resolve_learn({"method": method}, "sd15"))


def make_record(registry: Registry, method: str) -> Record:
    other = Registry.create(registry.root.with_name(method), registry.base)
    return put(other, "cat", method)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (("--rank", 8), "--rank 4"),
        (("--scale", 0.5), "--scale 1.0"),
        (("--targets", "attn1+attn2"), "--targets attn2"),
    ],
)
def test_a_lora_of_another_form_is_not_carried_on(
    option: tuple[object, ...],
    named: str,
    cidm: Cidm,
    tiny_registry: Registry,
    pictures: Path,
    no_model: None,
) -> None:
    put(tiny_registry, "cat", "finetune")
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, "--method", "finetune", *option)
    assert ran.code == ExitCode.FAILED
    assert str(option[0]) in ran.error
    assert named in ran.err, "the hint says what goes"


# What may be said together


@pytest.mark.parametrize(
    ("said", "method"),
    [
        (("--gamma1", 0.5), "ewc"), (("--gamma2", 1.0), "plain"), (("--shared-rank", 4), "lwf"),
        (("--consolidation", "paper"), "finetune"), (("--ewc-weight", 1), "cidm"),
        (("--ewc-draws", 3), "lwf"), (("--lwf-weight", 1), "ewc"), (("--clora-weight", 1), "cidm"),
    ],
)  # fmt: skip
def test_a_setting_of_another_method_is_refused_when_it_is_said(
    said: tuple[object, ...],
    method: str,
    cidm: Cidm,
    tiny_registry: Registry,
    pictures: Path,
    no_model: None,
) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, "--method", method, *said)
    assert ran.code == ExitCode.USAGE
    assert str(said[0]) in ran.error
    assert method in ran.error


def test_a_setting_of_the_other_form_of_consolidation_is_refused(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None
) -> None:
    arguments = ("learn", "dog", pictures, "--registry", tiny_registry.root)
    for said in (("--consolidation", "paper", "--refresh-every", 5), ("--shared-lr", 0.1)):
        ran = cidm(*arguments, *said)
        assert ran.code == ExitCode.USAGE
        assert "--consolidation" in ran.error


def test_a_setting_of_r2_is_refused_where_r2_is_left_out(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None
) -> None:
    arguments = ("learn", "dog", pictures, "--registry", tiny_registry.root, "--dry-run")
    paper = ("--consolidation", "paper", "--gamma2", 0)
    for said in (("--refresh-every", 5), ("--shared-rank", 4), (*paper, "--shared-lr", 0.1)):
        ran = cidm(*arguments, *said)
        assert ran.code == ExitCode.USAGE
        assert said[-2] in ran.error
        assert "--gamma2" in ran.error


def test_settings_of_other_methods_may_stand_in_a_file(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    Path("cidm.toml").write_text("[learn]\ngamma1 = 0.5\newc_weight = 10\nsteps = 4\n")
    ran = cidm(
        "learn", "dog", pictures, "--registry", tiny_registry.root, "--method", "lwf", "--dry-run", "--json",
        "--batch", 1, "--variants", 1,
    )  # fmt: skip
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    "said",
    [
        ("--method", "cidm2"), ("--consolidation", "dense"), ("--gamma1", -1), ("--gamma2", "nan"),
        ("--shared-rank", 0), ("--refresh-every", 0),
    ],
)  # fmt: skip
def test_an_impossible_method_or_setting_is_refused_before_the_model_loads(
    said: tuple[object, ...], cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None
) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *said)
    assert ran.code == ExitCode.USAGE
    assert str(said[0]) in ran.error


@pytest.fixture(scope="module")
def begun(
    base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """A registry with <dog>, and pictures of a cat; to be copied, not changed."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(method: str) -> tuple[Path, Path]:
        if method not in made:
            root = tmp_path_factory.mktemp(method)
            cats = tiny.save_pictures(root / "cats", ("a photo of a cat",) * 2, seed=2)
            dogs = tiny.save_pictures(root / "dogs", ("a photo of a dog",) * 2)
            registry = Registry.create(root / "registry", identify(str(tiny_base)))
            learn_direct(registry, base, task(dogs, **{**SMALL, "method": method}))
            made[method] = registry.root, cats
        return made[method]

    return make


@pytest.mark.parametrize(("method", "against"), [("cidm", 1), ("plain", 0), ("ewc", 1)])
def test_dry_run_says_the_method_and_what_it_is_consolidated_against(
    method: str, against: int, cidm: Cidm, begun: Callable[[str], tuple[Path, Path]]
) -> None:
    root, cats = begun(method)
    before = files_of(root)
    arguments = (
        "learn", "cat", cats, "--registry", root, "--dry-run", "--method", method, "--batch", 1,
        "--variants", 1,
    )  # fmt: skip
    plan = cidm(*arguments, "--json").answer["plan"]
    assert (plan["method"], plan["older"], plan["against"]) == (method, 1, against)
    told = cidm(*arguments).out
    assert f"by the method {method}" in told
    assert f"consolidated against {against or 'none'}" in told
    assert files_of(root) == before


# Stopping and going on

WAYS: dict[str, dict[str, Any]] = {
    "cidm": {"gamma1": 1.0},
    "r2": {"method": "cidm", "gamma2": 1.0},
    "paper": {"method": "cidm", "consolidation": "paper"},
    "finetune": {},
    "ewc": {"ewc_weight": 1e6},
    "lwf": {},
    "c-lora": {"clora_weight": 1e6},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_training_stopped_twice_ends_in_the_same_bytes_and_figures(
    way: str, base: Base, begun: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    options = {**SMALL, "method": way, **WAYS[way]}
    root, cats = begun(options["method"])
    whole, parts = (Registry.open(shutil.copytree(root, tmp_path / name)) for name in ("whole", "parts"))
    record = learn_direct(whole, base, task(cats, name="cat", noun="cat", **options))
    # Behind the first refresh of the shared basis, and then between two of them.
    for number, step in enumerate((2, 3)):
        done = [0]
        events = Events(
            on_step=lambda n, loss, done=done: done.__setitem__(0, n),
            stop=lambda done=done, step=step: done[0] >= step,
        )
        work = task(cats, name="cat", noun="cat", **options, resume=number > 0)
        with pytest.raises(CidmError) as caught:
            learn_direct(parts, base, work, events)
        assert caught.value.code == ExitCode.INTERRUPTED
    again = learn_direct(parts, base, task(cats, name="cat", noun="cat", **options, resume=True))
    assert again.blob == record.blob
    assert again.losses == record.losses


def test_a_run_of_another_method_is_not_gone_on_with(
    base: Base, begun: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    root, cats = begun("cidm")
    registry = Registry.open(shutil.copytree(root, tmp_path / "registry"))
    with pytest.raises(CidmError):
        learn_direct(registry, base, task(cats, name="cat", noun="cat", **SMALL), Events(stop=lambda: True))
    work = task(cats, name="cat", noun="cat", **SMALL, method="plain", resume=True)
    with pytest.raises(CidmError, match="--method was cidm, now plain"):
        learn_direct(registry, base, work)


# A file that lacks what the method left in it


def test_ewc_does_not_go_on_from_a_file_without_fisher_information(
    base: Base, begun: Callable[[str], tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cats = begun("ewc")
    registry = Registry.open(shutil.copytree(root, tmp_path / "registry"))
    sound = methods.concept_weights
    for state in ({}, {"fisher": torch.zeros(3)}):
        monkeypatch.setattr(
            methods,
            "concept_weights",
            lambda *a, state=state: methods.ConceptWeights(
                sound(*a).up, sound(*a).down, sound(*a).tokens, state
            ),
        )
        with pytest.raises(CidmError, match="concept dog: its file holds no Fisher") as caught:
            learn_direct(registry, base, task(cats, name="cat", noun="cat", **SMALL, method="ewc"))
        assert caught.value.code == ExitCode.INVALID
    assert registry.runs() == []


def test_the_papers_form_refuses_older_concepts_of_another_rank(
    base: Base, begun: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    root, cats = begun("cidm")
    registry = Registry.open(shutil.copytree(root, tmp_path / "registry"))
    work = task(cats, name="cat", noun="cat", **SMALL, rank=2, consolidation="paper")
    with pytest.raises(CidmError, match="one rank"):
        learn_direct(registry, base, work)
    assert learn_direct(registry, base, task(cats, name="cat", noun="cat", **SMALL, rank=2)).rank == 2
