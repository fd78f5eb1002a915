"""Negative prompts are heard as prompts are: their concepts' tokens, layer by layer, and nothing cut unsaid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cidm_cli.draw import scenes as layouts
from cidm_cli.draw.again import redraw
from cidm_cli.draw.encoded import Said, Texts
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.mixtures import Loader, mixture
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge import samples
from cidm_cli.layout import Layout
from cidm_cli.models import regional
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry
from command import Cidm
from concepts import fill

DOG = "a photo of a <dog>"
AGAINST = "a <cat>, blurry"
LONG = "blurry " * 12


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that knows <dog> and <cat>. Do not change."""
    folder = tmp_path_factory.mktemp("taught") / "registry"
    return fill(Registry.create(folder, identify(str(tiny_base))), base)


def job(base: Base, prompt: str = DOG, layout: Layout | None = None, **said: Any) -> Job:
    return Job(prompt, resolve_draw({"steps": 1, **said}, "sd15", base.pixels), layout)


def layout(negative: str = "", of_region: str | None = None) -> Layout:
    region = {"prompt": DOG, "box": [0, 0, 0.5, 1], "negative": of_region}
    return Layout.model_validate({"base": {"prompt": "a beach", "negative": negative}, "region": [region]})


def texts_of(base: Base, registry: Registry, prompt: str, negative: str) -> tuple[Any, Any]:
    """What is heard without the prompt, and with it."""
    load, options = Loader(registry, base), resolve_draw({"negative": negative}, "sd15", base.pixels)
    chosen = mixture(base, load, registry.records(), prompt, options)
    (both,) = Texts(base, load).of([Said(prompt, negative, chosen)])
    return both


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_negative_prompt_is_heard_as_the_same_prompt_is(
    family: str, base: Base, taught: Registry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if family == "sdxl":
        base = request.getfixturevalue("sdxl")
        place = identify(str(request.getfixturevalue("tiny_sdxl")))
        taught = fill(Registry.create(tmp_path / "registry", place), base)
    (without, whole), _ = texts_of(base, taught, DOG, AGAINST)
    _, (given, given_whole) = texts_of(base, taught, AGAINST, "")
    assert all(torch.equal(one, other) for one, other in zip(without, given, strict=True))
    assert not torch.equal(without[0], without[-1]), "each layer has its own tokens"
    assert (whole is None) == (given_whole is None) == (family == "sd15")
    assert whole is None or torch.equal(whole, given_whole)


def test_its_concepts_weights_are_not_used(base: Base, taught: Registry) -> None:
    chosen = mixture(base, Loader(taught, base), taught.records(), DOG, job(base, negative=AGAINST).options)
    assert [record.name for record in chosen.used] == ["dog"]
    assert [record.name for record in chosen.against] == ["cat"]


def test_a_region_keeps_away_from_its_own_negative_prompts_concepts(
    base: Base, taught: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sources of a layout: without and with the prompt, of the whole and of the region."""
    load, seen = Loader(taught, base), []
    real = regional.cached
    monkeypatch.setattr(regional, "cached", lambda base, sources: seen.append(sources) or real(base, sources))

    def sources(negative: str, of_region: str | None) -> list[torch.Tensor]:
        some = job(base, "a beach", layout(negative, of_region), negative=negative)
        chosen = layouts.choose(base, load, taught.records(), some)
        layouts.prepare(base, [layouts.Part(some, chosen, (0,))], Texts(base, load))
        return [torch.stack([*source.contexts]) for source in seen[-1]]

    heard = torch.stack([row[0] for row in texts_of(base, taught, AGAINST, "")[1][0]])
    for negative, of_region, expected in (
        (AGAINST, None, [True, True]), (AGAINST, "snow", [True, False]), ("snow", AGAINST, [False, True]),
    ):  # fmt: skip
        found = sources(negative, of_region)
        assert [torch.allclose(found[place], heard, atol=1e-5) for place in (0, 2)] == expected


def test_a_picture_is_drawn_again_with_the_concepts_of_its_negative_prompt(
    base: Base, taught: Registry
) -> None:
    jobs = [
        job(base, negative=AGAINST),
        job(base, "a red <dog>"),
        job(base, "a <dog> here", negative="<cat>"),
    ]
    regional = job(base, "a beach", layout("snow", AGAINST), negative="snow")
    pictures = [*draw(taught, base, jobs), *draw(taught, base, [regional])]
    for picture in pictures:
        facts = json.loads(json.dumps(picture.facts))
        assert redraw(taught, base, facts).image.tobytes() == picture.image.tobytes()
    told = pictures[0].facts["concepts"]
    assert [(one["name"], one["named"], one.get("against", False)) for one in told] == [
        ("dog", True, False), ("cat", False, True),
    ]  # fmt: skip
    edited = {**pictures[0].facts, "concepts": told[:1]}
    with pytest.raises(CidmError, match="edited"):
        redraw(taught, base, edited)


def test_kept_pictures_depend_on_the_concepts_of_the_negative_prompt(base: Base, taught: Registry) -> None:
    load, records = Loader(taught, base), taught.records()
    nouns = {record.key: record.class_noun for record in records}

    def keys(records: Any, negative: str = AGAINST) -> tuple[str, ...]:
        scene = samples.scene(records, job(base, negative=negative).options, nouns)
        (batch,) = samples.plan(taught, base, load, scene, [DOG])
        return batch.keys

    changed = [replace(record, class_noun="tiger") if record.key == "cat" else record for record in records]
    assert keys(records) != keys(changed)
    assert keys(records[:1]) == keys(records, "a cat, blurry"), "what is not learned yet is its class noun"


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "-p", DOG, "--negative", "a <cta>"),
        ("generate", "base.toml"),
        ("generate", "region.toml"),
        ("stylize", "house.png", "--style", "dog", "--negative", "a <cta>"),
        ("edit", "house.png", "--concept", "dog", "--box", "0,0,1,1", "--negative", "a <cta>"),
        ("eval", "--negative", "a <cta>"),
        ("eval", "--layouts", "region.toml"),
        ("layout", "check", "region.toml"),
        ("explain", DOG),
    ],
    ids=" ".join,
)
def test_an_unknown_concept_is_refused_with_a_suggestion(
    command: tuple[str, ...], cidm: Cidm, taught: Registry, no_model: None, place: Path
) -> None:
    Image.new("RGB", (64, 64)).save("house.png")
    Path("base.toml").write_text('[base]\nprompt = "a"\nnegative = "a <cta>"\n')
    Path("region.toml").write_text(
        '[base]\nprompt = "a"\n[[region]]\nprompt = "a <dog>"\nnegative = "a <cta>"\nbox = [0, 0, 1, 1]\n'
    )
    if command[0] == "explain":
        Path("cidm.toml").write_text('[draw]\nnegative = "a <cta>"\n')
    data = ("--data", place / "data") if command[0] == "eval" else ()
    ran = cidm(*command, *data, "--registry", taught.root)
    assert ran.code == ExitCode.NOT_FOUND
    assert "did you mean <cat>?" in ran.out + ran.err
    if "region.toml" in command:
        assert "region.toml:5: region.0.negative: no concept is called <cta>" in ran.out + ran.err


def test_what_begins_no_name_is_refused_and_a_plain_mark_is_written_with_a_backslash(
    cidm: Cidm, taught: Registry
) -> None:
    draw = ("generate", "-p", DOG, "--steps", 1, "--registry", taught.root, "-o", "out.png")
    ran = cidm(*draw, "--negative", "a <3")
    assert ran.code == ExitCode.USAGE
    assert "'<3' at character 3 of the negative prompt names no concept" in ran.error
    Path("odd.toml").write_text('[base]\nprompt = "a"\nnegative = "a <3"\n')
    assert cidm("layout", "check", "odd.toml", "--no-concepts").code == ExitCode.INVALID
    assert cidm(*draw, "--negative", r"a \<3").code == 0


@pytest.mark.parametrize("where", ["flag", "layout", "region"])
def test_a_long_one_is_heard_to_its_end(where: str, cidm: Cidm, taught: Registry) -> None:
    def drawn(negative: str) -> bytes:
        whole, own = ("", f'negative = "{negative}"\n') if where == "region" else (negative, "")
        Path("scene.toml").write_text(
            f'[base]\nprompt = "a"\nnegative = "{whole}"\n'
            f'[[region]]\nprompt = "a <dog>"\nbox = [0, 0, 1, 1]\n{own}'
        )
        given = ("-p", DOG, "--negative", negative) if where == "flag" else ("scene.toml",)
        ran = cidm("generate", *given, "--steps", 1, "--registry", taught.root, "-o", "out.png")
        assert ran.code == 0, ran.err
        assert "too long" not in ran.err
        return Image.open("out.png").tobytes()

    assert len({drawn(LONG), drawn(LONG + "<cat>"), drawn(LONG + "snow")}) == 3


@pytest.mark.parametrize("command", [("stylize", "--style"), ("edit", "--box", "0,0,1,1", "--concept")])
def test_drawing_over_a_picture_hears_it_too(command: tuple[str, ...], cidm: Cidm, taught: Registry) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save("house.png")
    drawn = []
    for number, negative in enumerate((AGAINST, r"a \<cat>, blurry")):
        ran = cidm(
            command[0], "house.png", *command[1:], "dog", "--negative", negative, "--steps", 2, "--strength", 1,
            "--registry", taught.root, "-o", f"{number}.png", "--json",
        )  # fmt: skip
        (image,) = ran.answer["images"]
        assert [one["name"] for one in image["concepts"] if one.get("against")] == ["cat"] * (1 - number)
        drawn.append(np.asarray(Image.open(f"{number}.png")).astype(int))
    assert abs(drawn[0] - drawn[1]).max() > 2
