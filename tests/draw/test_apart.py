"""Several concepts of one prompt, kept apart without boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from cidm_cli.draw import found
from cidm_cli.draw.again import redraw
from cidm_cli.draw.images import Picture, draw
from cidm_cli.draw.jobs import Job, check
from cidm_cli.errors import CidmError
from cidm_cli.layout import Layout
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import APART, resolve_draw
from cidm_registry import Registry
from learning import learn_direct, task

TWO, ONE, NONE = "a photo of a <dog> and a <cat>", "a photo of a <dog>", "a photo of a dog"


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that knows <dog>, also in self-attention, and <cat>. Do not change."""
    folder = tmp_path_factory.mktemp("taught")
    registry = Registry.create(folder / "registry", identify(str(tiny_base)))
    learn_direct(registry, base, task(tiny.save_pictures(folder / "dog"), targets="attn1+attn2"))
    cats = tiny.save_pictures(folder / "cat", ("a photo of a cat",) * 3, seed=2)
    learn_direct(registry, base, task(cats, name="cat", noun="cat"))
    return registry


def job(base: Base, prompt: str, **said: Any) -> Job:
    return Job(prompt, resolve_draw({"steps": 4, **said}, "sd15", base.pixels))


def drawn(base: Base, registry: Registry, *jobs: Job) -> list[Picture]:
    return list(draw(registry, base, jobs))


@pytest.mark.parametrize("method", APART)
def test_a_prompt_with_one_concept_or_none_is_drawn_as_named_byte_for_byte(
    base: Base, taught: Registry, method: str
) -> None:
    for prompt in (ONE, NONE):
        (own,) = drawn(base, taught, job(base, prompt, method=method))
        (named,) = drawn(base, taught, job(base, prompt, method="named"))
        assert own.image.tobytes() == named.image.tobytes()
        assert own.facts["method"] == "named"


@pytest.mark.parametrize("method", APART)
def test_two_concepts_are_drawn_otherwise_and_again_byte_for_byte(
    base: Base, taught: Registry, method: str
) -> None:
    """Also in a batch with another prompt that names the same concepts."""
    said = dict(method=method, count=2, negative="a <cat>")
    jobs = [job(base, TWO, **said), job(base, "a <dog> beside a big <cat>", **said)]
    pictures = drawn(base, taught, *jobs)
    (named, *_) = drawn(base, taught, job(base, TWO, **{**said, "method": "named"}))
    assert pictures[0].image.tobytes() != named.image.tobytes()
    assert len(pictures[0].facts["after"]) == 1, "they share a batch"
    for picture in pictures:
        assert picture.facts["method"] == method
        again = redraw(taught, base, json.loads(json.dumps(picture.facts)))
        assert again.image.tobytes() == picture.image.tobytes()


@pytest.mark.parametrize("method", APART)
def test_each_picture_of_a_batch_is_its_own(base: Base, taught: Registry, method: str) -> None:
    """What one picture shows decides about its own cells alone."""
    both = drawn(base, taught, job(base, TWO, method=method, count=2, seed=5))
    (second,) = drawn(base, taught, job(base, TWO, method=method, seed=6))
    a, b = (
        torch.frombuffer(bytearray(p.image.tobytes()), dtype=torch.uint8).int() for p in (both[1], second)
    )
    assert (a - b).abs().max() <= 2


def test_found_regions_take_at_most_a_quarter_more_evaluations(
    base: Base, taught: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = base.denoiser.forward

    def spy(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(latents))
        return forward(latents, *args, **kwargs)

    monkeypatch.setattr(base.denoiser, "forward", spy)
    drawn(base, taught, job(base, TWO, method="found", steps=20))
    assert rows[0] == rows[-1] == 2
    assert max(rows) == 4
    assert sum(rows) <= 1.25 * 2 * 20


def test_a_regions_prompt_names_no_other_concept(taught: Registry) -> None:
    dog = taught.get("dog")
    assert (
        found.without_others(r"\<a> <Dog>, a <cat> and <dog> in snow", dog)
        == r"\<a> <Dog>, a  and <dog> in snow"
    )


@pytest.mark.parametrize("method", APART)
def test_layouts_say_themselves_where_concepts_are(base: Base, taught: Registry, method: str) -> None:
    told = Layout.model_validate(
        {"base": {"prompt": NONE}, "region": [{"prompt": ONE, "box": [0, 0, 0.5, 1]}]}
    )
    some = job(base, NONE, method=method)
    with pytest.raises(CidmError, match=f"--method {method}: cannot draw"):
        check(taught, [Job(NONE, some.options, told)])
