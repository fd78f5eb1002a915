"""Prompts as people write them: weights, strengths, chunks, alternatives and wildcards, in all that is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cidm_cli.draw.again import redraw
from cidm_cli.draw.choices import choose, chosen, lines
from cidm_cli.draw.images import Picture, draw
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.mixtures import Loader, mixture
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout import Layout
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import PromptOptions, read_seeds, resolve_draw
from cidm_registry import Registry
from command import Cidm
from concepts import fill

DOG = "a photo of a <dog>"
SIGNS = "(a photo:1.3) of a <dog:0.6> BREAK " + "on the beach " * 9 + "[in the snow]"


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that knows <dog> and <cat>. Do not change."""
    folder = tmp_path_factory.mktemp("taught") / "registry"
    return fill(Registry.create(folder, identify(str(tiny_base))), base)


def job(base: Base, prompt: str = DOG, layout: Layout | None = None, **said: Any) -> Job:
    return Job(prompt, resolve_draw({"steps": 1, **said}, "sd15", base.pixels), layout)


def in_region(prompt: str, strength: float = 1.0) -> Layout:
    region = {"prompt": prompt, "box": [0, 0, 0.5, 1], "strength": strength}
    return Layout.model_validate({"base": {"prompt": "a beach"}, "region": [region]})


def apart(one: Picture, other: Picture) -> int:
    """Largest difference of two pictures, of 255."""
    a, b = (np.asarray(picture.image).astype(int) for picture in (one, other))
    return int(abs(a - b).max())


# Strengths


@pytest.mark.parametrize("method", ["named", "sum", "mean", "official"])
def test_a_strength_scales_a_concepts_weights_and_no_others(
    base: Base, taught: Registry, method: str
) -> None:
    def weights(prompt: str) -> dict[str, Any]:
        options = resolve_draw({"method": method}, "sd15", base.pixels)
        found = mixture(base, Loader(taught, base), taught.records(), prompt, options)
        return dict(zip([one.key for one in found.used], found.weights, strict=True))

    plain, strong = weights("a <dog> and a <cat>"), weights("a <dog:0.5> and a <cat>")
    assert strong["cat"] == plain["cat"]
    assert strong["dog"] == pytest.approx([0.5 * weight for weight in plain["dog"]])


def test_in_a_region_it_is_the_regions_strength(base: Base, taught: Registry) -> None:
    jobs = [job(base, "a beach", in_region(*how)) for how in ((f"{DOG[:-1]}:0.5>",), (DOG, 0.5), (DOG,))]
    inside, outside, plain = draw(taught, base, jobs)
    assert apart(inside, outside) <= 1
    assert apart(inside, plain) > 2


def test_prompts_of_other_strengths_share_no_batch(base: Base, taught: Registry, denoised: list[int]) -> None:
    list(
        draw(taught, base, [job(base), job(base, DOG[:-1] + ":0.5>"), job(base, "(a photo) of a <dog:0.5>")])
    )
    assert denoised == [1, 2]


# Weights and chunks


@pytest.mark.parametrize("where", ["prompt", "negative", "region"])
def test_what_has_signs_is_drawn_again_to_the_same_bytes(base: Base, taught: Registry, where: str) -> None:
    one = {
        "prompt": lambda: job(base, SIGNS),
        "negative": lambda: job(base, DOG, negative=SIGNS.replace(":0.6", "")),
        "region": lambda: job(base, "a beach", in_region(SIGNS)),
    }[where]()
    (picture,) = draw(taught, base, [one])
    assert redraw(taught, base, picture.facts).image.tobytes() == picture.image.tobytes()
    (plain,) = draw(taught, base, [job(base)])
    assert apart(picture, plain) > 2


def test_long_and_short_prompts_of_one_batch_are_what_they_are_alone(
    base: Base, taught: Registry, denoised: list[int]
) -> None:
    jobs = [job(base, f"{DOG} {'on the beach ' * times}", seed=times) for times in (0, 9, 20)]
    together = list(draw(taught, base, jobs))
    assert denoised == [3]
    alone = list(draw(taught, base, jobs, mixed=False))
    assert max(apart(a, b) for a, b in zip(together, alone, strict=True)) <= 2


# What is left open


def test_one_of_some_is_chosen_by_the_seed_alone(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "animal.txt").write_text("# animals\nduck\n\n  goose  \n")
    (tmp_path / "deep" / "toy_car.txt").write_text("a {red|(blue:1.2)} __animal__\n")
    found = {choose("{a|b||c} __deep/toy_car__ <my__dog__x>", seed, tmp_path) for seed in range(200)}
    assert found == {
        f"{first} a {colour} {animal} <my__dog__x>"
        for first in ("a", "b", "", "c")
        for colour in ("red", "(blue:1.2)")
        for animal in ("duck", "goose")
    }
    assert choose("{a|b|c|d}", 7, None) == choose("{a|b|c|d}", 7, None)
    for plain in (r"\{a|b\} \__animal__", "{a} | b", "a <dog>"):
        assert choose(plain, 0, None) == plain
    assert choose(r"{a\|b|a\|b}", 0, None) == r"a\|b"


def test_wildcards_that_cannot_be_taken_are_refused(tmp_path: Path) -> None:
    (tmp_path / "round.txt").write_text("a __round__\n")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    for text, folder, code in (
        ("__animal__", None, ExitCode.USAGE), ("__animal__", tmp_path, ExitCode.NOT_FOUND),
        ("__round__", tmp_path, ExitCode.USAGE), ("__empty__", tmp_path, ExitCode.INVALID),
    ):  # fmt: skip
        with pytest.raises(CidmError) as caught:
            choose(text, 0, folder)
        assert caught.value.code == code


def test_all_texts_of_an_image_choose_alike(base: Base) -> None:
    layout = in_region("a {red|blue} <dog>").said(lambda text: text.replace("beach", "{red|blue} beach"))
    jobs = [*chosen(job(base, layout.base.prompt, layout, count=8, negative="{x|y}"), PromptOptions())]
    assert [one.options.seed for one in jobs] == [*range(8)]
    said = {(one.prompt.split()[1], one.regions and one.regions.regions[0].prompt.split()[1]) for one in jobs}
    assert said == {("red", "red"), ("blue", "blue")}
    assert {one.options.negative for one in jobs} == {"x", "y"}


def test_seeds_are_read_as_runs() -> None:
    assert read_seeds("1, 2,10-13") == ((1, 1), (2, 1), (10, 4))
    for odd in ("", "1,", "a", "3-1", "-1", "1-99999"):
        with pytest.raises(CidmError, match="--seeds"):
            read_seeds(odd)


# The commands


def test_generate_takes_files_seeds_and_alternatives_and_makes_a_sheet(
    cidm: Cidm, taught: Registry, elsewhere: Path
) -> None:
    Path("some.txt").write_text("# mine\na {red|blue} <dog:0.5>\n\na <cat>\n")
    given = ("--prompts", "some.txt", "--seeds", "3,5-6", "--steps", 1, "--registry", taught.root)
    ran = cidm("generate", *given, "--grid", "-o", "out", "--json")
    assert ran.code == 0, ran.err
    told = [(image["prompt"], image["seed"]) for image in ran.answer["images"]]
    wanted = [choose("a {red|blue} <dog:0.5>", seed, None) for seed in (3, 5, 6)]
    assert told == [*zip(wanted, (3, 5, 6), strict=True), *(("a <cat>", seed) for seed in (3, 5, 6))]
    assert Image.open(ran.answer["grid"]).size[0] >= 256
    path = ran.answer["images"][0]["path"]
    again = cidm("generate", "--from", path, "--registry", taught.root, "-o", "again.png")
    assert again.code == 0, again.err
    assert Image.open("again.png").tobytes() == Image.open(path).tobytes()
    assert cidm("generate", *given, "-n", 2).code == ExitCode.USAGE


def test_literal_signs_are_words(cidm: Cidm, taught: Registry) -> None:
    draw = ("generate", "--steps", 1, "--registry", taught.root, "-o", "out.png")
    pictures = []
    for prompt in (
        ("-p", "a (<dog>) {a|b}", "--literal"),
        ("-p", r"a \(<dog>\) \{a|b\}"),
        ("-p", "a (<dog>) ab"),
    ):
        assert cidm(*draw, *prompt).code == 0
        pictures.append(Image.open("out.png").tobytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize("command", [("stylize", "--style"), ("edit", "--box", "0,0,1,1", "--concept")])
def test_drawing_over_an_image_chooses_by_its_seed_too(
    command: tuple[str, ...], cidm: Cidm, taught: Registry
) -> None:
    Image.new("RGB", (64, 64), "red").save("house.png")
    ran = cidm(
        command[0], "house.png", *command[1:], "dog", "-p", "a {red|blue} <dog:0.5>", "-n", 2, "--steps", 1,
        "--strength", 1, "--registry", taught.root, "-o", "out", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    said = [image["prompt"] for image in ran.answer["images"]]
    assert said == [choose("a {red|blue} <dog:0.5>", seed, None) for seed in (0, 1)]
    lost = cidm(
        command[0],
        "house.png",
        *command[1:],
        "dog",
        "-p",
        "a {<dog>|cat}",
        "-n",
        9,
        "--registry",
        taught.root,
    )
    assert lost.code == ExitCode.USAGE


def test_lines_of_a_file_come_without_comments(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# no\n one \n\ntwo # three\n")
    assert lines(tmp_path / "a.txt") == ["one", "two # three"]
