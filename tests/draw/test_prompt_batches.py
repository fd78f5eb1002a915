"""Pictures of several prompts in one batch, and weights that change from prompt to prompt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from cidm_cli.draw import mixtures, png, structure
from cidm_cli.draw.again import redraw
from cidm_cli.draw.images import Picture, draw, work
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.mixtures import Loader, Recent
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.concept import ConceptWeights, pack
from cidm_cli.judge import samples
from cidm_cli.layout import Layout
from cidm_cli.machine.processes import Crew
from cidm_cli.models import sampling, text
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry
from command import Cidm
from learning import files_of
from registry_support import make_draft

DOG, CAT = "a photo of a <dog>", "a photo of a <cat>"
SCENES = (DOG, "a <dog> on the beach", "a red <dog>")


def fill(registry: Registry, base: Base, *names: str) -> Registry:
    """Commits concepts of random weights: enough to change what is drawn."""
    shapes, sites = base.shapes, lora_sites(base.denoiser)
    for number, name in enumerate(names):
        generator = torch.Generator().manual_seed(number)
        up = {s: 0.1 * torch.randn(shapes[s][0], 2, generator=generator) for s in sites}
        down = {s: torch.randn(2, shapes[s][1], generator=generator) for s in sites}
        tokens = torch.randn(len(base.layers), 2, text.token_width(base), generator=generator)
        draft = make_draft(name, class_noun=name, rank=2, scale=1.0, method="plain")
        registry.commit(draft, pack(ConceptWeights(up, down, tokens)), expected_head=registry.head())
    return registry


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that knows <dog>, <cat> and <duck>. Do not change."""
    folder = tmp_path_factory.mktemp("taught") / "registry"
    return fill(Registry.create(folder, identify(str(tiny_base))), base, "dog", "cat", "duck")


def job(base: Base, prompt: str, **said: Any) -> Job:
    return Job(prompt, resolve_draw({"steps": 2, **said}, "sd15", base.pixels))


def apart(one: Picture, other: Picture) -> int:
    """Largest difference of two pictures, of 255."""
    a, b = (np.asarray(picture.image).astype(int) for picture in (one, other))
    return int(abs(a - b).max())


# What shares a batch


def test_prompts_with_the_same_weights_fill_batches_in_order(
    base: Base, taught: Registry, denoised: list[int]
) -> None:
    jobs = [job(base, p, count=n, seed=5, batch=3) for p, n in zip(SCENES, (1, 3, 1), strict=True)]
    pictures = list(draw(taught, base, jobs))
    assert denoised == [3, 2]
    told = [(p.facts["prompt"], p.facts["seed"]) for p in pictures]
    assert told == [(SCENES[0], 5), *((SCENES[1], seed) for seed in (5, 6, 7)), (SCENES[2], 5)]


def test_what_differs_in_weights_or_settings_is_drawn_by_itself(
    base: Base, taught: Registry, denoised: list[int]
) -> None:
    """Also a prompt that comes back later: pictures are drawn in the order they were asked for."""
    region = {"base": {"prompt": DOG}, "region": [{"prompt": CAT, "box": [0, 0, 0.5, 1]}]}
    layout = replace(job(base, DOG), layout=Layout.model_validate(region))
    jobs = [
        job(base, DOG), job(base, CAT), job(base, "a dog"), job(base, DOG, steps=1),
        job(base, DOG, guidance=2.0, steps=1), job(base, DOG, steps=1, size=(96, 64)), layout, layout, job(base, DOG),
    ]  # fmt: skip
    pictures = list(draw(taught, base, jobs))
    assert denoised == [1] * len(jobs)
    assert [p.facts["prompt"] for p in pictures] == [one.prompt for one in jobs]
    assert len({p.image.tobytes() for p in pictures}) == len(jobs) - 2, "the layout and <dog> came twice"


@pytest.mark.parametrize("method", ["auto", "sum", "lora-c", "lora-switch"])
def test_each_picture_of_a_mixed_batch_is_that_of_its_own_prompt(
    base: Base, taught: Registry, denoised: list[int], method: str
) -> None:
    prompts = SCENES if method == "auto" else (DOG, CAT, "a beach")
    said = [{"negative": "snow"}, {"seed": 3}, {}]
    jobs = [job(base, p, method=method, **how) for p, how in zip(prompts, said, strict=True)]
    together = list(draw(taught, base, jobs))
    assert denoised == [3]
    alone = list(draw(taught, base, jobs, mixed=False))
    assert denoised == [3, 1, 1, 1]
    assert max(apart(a, b) for a, b in zip(together, alone, strict=True)) <= 2
    assert apart(together[0], together[2]) > 2


def test_texts_as_wholes_go_with_their_own_pictures(sdxl: Base, tiny_sdxl: Path, tmp_path: Path) -> None:
    registry = fill(Registry.create(tmp_path / "registry", identify(str(tiny_sdxl))), sdxl, "dog")
    jobs = [job(sdxl, "a <dog>"), job(sdxl, "snow on the beach, a <dog>", negative="red")]
    together, alone = (list(draw(registry, sdxl, jobs, mixed=mixed)) for mixed in (True, False))
    assert max(apart(a, b) for a, b in zip(together, alone, strict=True)) <= 2
    assert apart(*together) > 2
    assert redraw(registry, sdxl, facts(together[1])).image.tobytes() == together[1].image.tobytes()


@pytest.mark.parametrize("kind", ["controlnet", "t2i-adapter"])
def test_prompts_that_follow_the_same_structure_share_batches(
    base: Base, taught: Registry, denoised: list[int], tmp_path: Path, kind: str
) -> None:
    model = tiny.controlnet(base.denoiser) if kind == "controlnet" else tiny.adapter("sd15")
    model.save_pretrained(tmp_path / kind)
    (tmp_path / "beside").mkdir()
    (lines,) = tiny.save_pictures(tmp_path / "lines", ("a dog",)).glob("*.png")
    followed = structure.of_picture(lines, structure.settings({"kind": "as-is"}), str(tmp_path / kind))
    jobs = [
        replace(job(base, p, negative=n), structure=followed) for p, n in ((DOG, "snow"), (SCENES[1], ""))
    ]
    together = list(draw(taught, base, jobs))
    assert denoised == [2]
    alone = list(draw(taught, base, jobs, mixed=False))
    assert max(apart(a, b) for a, b in zip(together, alone, strict=True)) <= 2
    for needed in (lines, tmp_path / kind):
        shutil.move(needed, tmp_path / "beside" / needed.name)
    again = redraw(taught, base, facts(together[1]), tmp_path / "beside")
    assert again.image.tobytes() == together[1].image.tobytes()


def test_an_evaluations_batches_stay_those_that_its_keys_name(
    base: Base, taught: Registry, denoised: list[int], tmp_path: Path
) -> None:
    scene = samples.Scene(tuple(taught.records()), job(base, DOG, steps=1, count=3, batch=2).options)
    load = Loader(taught, base)
    batches = samples.plan(taught, base, load, scene, SCENES[:2])
    samples.fill(taught, base, tmp_path, batches)
    assert denoised == [2, 1, 2, 1]


# Again from the picture


def facts(picture: Picture) -> dict[str, Any]:
    """As they come out of a file."""
    return json.loads(json.dumps(picture.facts))


@pytest.mark.parametrize("method", ["auto", "sum"])
def test_every_picture_of_mixed_batches_is_drawn_again_byte_for_byte(
    cidm: Cidm, base: Base, taught: Registry, method: str
) -> None:
    """Also after a concept in its batch, which its own prompt does not name, was given another name."""
    prompts = SCENES if method == "auto" else (DOG, "a <duck> on the beach", CAT)
    said = [word for prompt in prompts for word in ("-p", prompt)]
    mine = Registry.open(shutil.copytree(taught.root, "mine"))
    settings = ("--steps", 2, "--batch", 4, "--seed", 7, "--negative", "red", "--method", method)
    where = ("--registry", mine.root, "--precision", "fp32", "-q", "-o")
    ran = cidm("generate", *said, "-n", 3, *settings, *where, "out")
    assert ran.code == 0, ran.err
    told = [png.read_facts(Path(path)) for path in ran.out.splitlines()]
    assert [len(one["before"]) + len(one["after"]) for one in told] == [1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert [(one["prompt"], one["seed"]) for one in told] == [(p, s) for p in prompts for s in (7, 8, 9)]
    if method == "sum":
        mine.rename("duck", "drake")
    for path in map(Path, ran.out.splitlines()):
        again = cidm("generate", "--from", path, "--registry", mine.root, "-o", path.name)
        assert again.code == 0, again.err
        assert path.read_bytes() == Path(path.name).read_bytes()


def test_a_concept_of_the_same_batch_that_is_gone_is_named(
    base: Base, taught: Registry, tmp_path: Path
) -> None:
    mine = Registry.open(shutil.copytree(taught.root, tmp_path / "mine"))
    few = [record for record in mine.records() if record.key == "dog"]
    jobs = [job(base, prompt, steps=1, method="latest") for prompt in (DOG, CAT)]
    newest = mine.records()[-1]
    first, _ = draw(mine, base, jobs, records=[*few, mine.get("cat"), newest])
    mine.remove("cat")
    with pytest.raises(CidmError, match=r"one batch with <cat>") as caught:
        redraw(mine, base, facts(first))
    assert caught.value.code is ExitCode.NOT_FOUND


def _changed(**change: Any) -> Callable[[dict[str, Any]], None]:
    return lambda told: told["after"][0].update(change)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing before": lambda told: told.pop("before"),
    "no list after": lambda told: told.update(after=7),
    "a part without seeds": lambda told: told["after"][0].pop("seeds"),
    "a seed in words": _changed(seeds=["one"]),
    "a seed below none": _changed(seeds=[-1]),
    "more than the batch holds": _changed(seeds=[0] * 9),
    "a prompt that is none": _changed(prompt=3),
    "a negative prompt that is none": _changed(negative=None),
    "a concept unsaid": _changed(concepts={}),
    "a concept more": _changed(concepts={"dog": "0" * 64, "cat": "0" * 64}),
    "concepts in words": _changed(concepts="dog"),
    "another place": lambda told: told.update(index=1),
    "a place from behind": lambda told: told.update(index=-1),
    "another seed": lambda told: told.update(seed=4),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_batch_is_refused(
    base: Base, taught: Registry, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, _) = draw(taught, base, [job(base, p, steps=1) for p in SCENES[:2]])
    told = facts(first)
    EDITS[edit](told)
    monkeypatch.setattr(sampling, "denoise", lambda *_: 1 / 0)
    with pytest.raises(CidmError) as caught:
        redraw(taught, base, told)
    assert caught.value.code is ExitCode.INVALID


# Once for each prompt


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, what: Callable[..., Any]) -> list[Any]:
    """Grows by ``what`` of its arguments at each call of a function."""
    seen: list[Any] = []
    real = getattr(module, name)

    def count(*args: Any, **options: Any) -> Any:
        seen.append(what(*args))
        return real(*args, **options)

    monkeypatch.setattr(module, name, count)
    return seen


def test_each_concept_is_read_and_each_prompt_encoded_once(
    base: Base, taught: Registry, denoised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches a prompt's pictures take, and however often the weights are swapped."""
    read = counted(monkeypatch, mixtures, "concept_weights", lambda _r, _b, record: record.key)
    encoded = counted(monkeypatch, text, "encode", lambda _base, prompts, *_: len(prompts))
    loaded = counted(monkeypatch, torch.nn.Module, "load_state_dict", lambda *_: 1)
    prompts = ("a <dog>", "a red <dog>", "a <cat>", "a <duck> on a <cat>", "a <duck>", "a photo of a <dog>")
    list(draw(taught, base, [job(base, prompt, steps=1, count=3, batch=2) for prompt in prompts]))
    assert denoised == [2, 2, 2, *[2, 1] * 4]
    assert read == ["dog", "cat", "duck"]
    assert encoded == [1] * (len(prompts) + 1), "the negative prompt is the same for all"
    assert not loaded


def test_the_weights_of_each_prompt_are_its_own_and_the_bases_are_put_back(
    base: Base, taught: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: tensor.clone() for name, tensor in base.denoiser.state_dict().items()}
    site = lora_sites(base.denoiser)[0]
    there = counted(
        monkeypatch, sampling, "denoise", lambda *_: base.denoiser.get_submodule(site).weight.detach().clone()
    )
    prompts = ("a <dog>", "a <cat>", "a dog", "a red <dog>")
    list(draw(taught, base, [job(base, prompt, steps=1) for prompt in prompts]))
    load = Loader(taught, base)
    for weight, name in zip(there, ("dog", "cat", None, "dog"), strict=True):
        mine = load(taught.get(name)) if name else None
        wanted = before[f"{site}.weight"] + (mine.up[site] @ mine.down[site] if mine else 0)
        assert torch.equal(weight, wanted)
    assert all(tensor.equal(before[name]) for name, tensor in base.denoiser.state_dict().items())


def test_steps_are_counted_for_each_picture(base: Base, taught: Registry) -> None:
    jobs = [job(base, p, steps=n, count=c) for p, n, c in ((DOG, 2, 3), (SCENES[1], 2, 2), (CAT, 3, 1))]
    steps: list[int] = []
    list(draw(taught, base, jobs, on_step=lambda: steps.append(1)))
    assert len(steps) == work(jobs) == 2 * 5 + 3


def test_several_processes_draw_the_batches_of_one(base: Base, taught: Registry, denoised: list[int]) -> None:
    jobs = [
        job(base, p, steps=1, count=n, batch=2) for p, n in zip((*SCENES, CAT), (1, 2, 2, 1), strict=True)
    ]
    whole = list(draw(taught, base, jobs))
    assert denoised == [2, 2, 1, 1]
    shares, steps = [], []
    for rank in range(3):
        done: list[int] = []
        shares.append(list(draw(taught, base, jobs, crew=Crew(3, rank), on_step=partial(done.append, 1))))
        steps.append(len(done))
    assert [[p.number for p in share] for share in shares] == [[0, 1, 5], [2, 3], [4]]
    assert steps == [work(jobs)] * 3
    theirs = sorted((p for share in shares for p in share), key=lambda p: p.number)
    assert [(p.image.tobytes(), p.facts) for p in theirs] == [(p.image.tobytes(), p.facts) for p in whole]


def test_stopped_between_batches_what_was_drawn_is_kept(
    cidm: Cidm, taught: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ("generate", "-p", DOG, "-p", SCENES[1], "-p", SCENES[2], "--batch", 2, "--steps", 1)
    where = ("--registry", taught.root, "-o")
    assert cidm(*said, *where, "whole").code == 0
    real, calls = sampling.decode, iter(range(3))

    def stop(*args: Any) -> Any:
        if next(calls) >= 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(sampling, "decode", stop)
    ran = cidm(*said, *where, "out", "--json")
    assert ran.code == ExitCode.INTERRUPTED
    kept = files_of(Path("out"))
    assert len(kept) == 2
    assert kept.items() <= files_of(Path("whole")).items()
    assert (
        ran.error == f"error: interrupted after 2 of 3 images; what was drawn is in {Path('out').resolve()}"
    )
    told = ran.answer["error"]["images"]
    assert sorted(image["path"] for image in told) == sorted(str(Path("out") / name) for name in kept)
    assert [image["prompt"] for image in told] == [DOG, SCENES[1]]
    ran = cidm(*said, *where, "out")
    assert ran.code == ExitCode.INTERRUPTED
    assert ran.error == "error: interrupted after 0 of 3 images"


# What stays loaded


def test_the_values_last_asked_for_are_kept_up_to_a_size() -> None:
    made: list[str] = []
    recent: Recent[str] = Recent(5, len)

    def get(*keys: str) -> None:
        for key in keys:
            assert recent.get(key, lambda key=key: made.append(key) or key) == key  # type: ignore[misc]

    get("aa", "bb", "aa", "cc", "aa")
    assert made == ["aa", "bb", "cc"]
    get("bb", "aa")
    assert made == ["aa", "bb", "cc", "bb"], "the one not asked for the longest gave way"
    get("too long for it", "too long for it", "aa", "bb", "aa")
    assert made[4:] == ["too long for it", "aa", "bb"]


def test_a_loader_of_many_concepts_keeps_few(
    base: Base, taught: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: Sequence[Any] = taught.records()
    size = mixtures._bytes(Loader(taught, base)(records[0]))
    monkeypatch.setattr(mixtures, "KEPT", 2 * size)
    read = counted(monkeypatch, mixtures, "concept_weights", lambda _r, _b, record: record.key)
    load = Loader(taught, base)
    for number in (0, 1, 1, 0, 2, 0, 1):
        assert load(records[number]).tokens.shape[1] == 2
    assert read == ["dog", "cat", "duck", "cat"]
