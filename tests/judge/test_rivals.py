"""The ways a layout is drawn for comparison say what they should, and nothing else."""

from __future__ import annotations

import pytest

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge.rivals import RIVALS, check_rivals, in_one_prompt, only, unlearned
from cidm_cli.layout import Layout, load_layout

NOUNS = {"rex": "dog", "fido": "dog", "tom": "cat", "ted": "teddy bear", "ink": "ink painting"}


def made(whole: str, *prompts: str) -> Layout:
    lines = [f"[image]\nsize = [64, 32]\nseed = 5\n[base]\nprompt = '{whole}'\nalpha = 0.3"]
    for number, prompt in enumerate(prompts):
        lines.append(
            f"[[region]]\nprompt = '{prompt}'\nbox = [0.{number}, 0.0, 0.{number + 1}, 1.0]\nfeather = 0.1"
        )
    return load_layout("scene.toml", text="\n".join(lines))


def test_alone_is_the_same_layout_without_the_other_regions() -> None:
    layout = made("a dog and a cat", "a <rex>", "a <tom>", "a <ted>")
    alone = only(layout, 1)
    assert alone.regions == (layout.regions[1],)
    assert (alone.image, alone.base) == (layout.image, layout.base)
    assert alone.origin.source == "scene.toml", "its masks lie beside the same file"


def test_unlearned_names_the_class_in_every_prompt_and_changes_nothing_else() -> None:
    layout = made(r"an <ink> of a dog \< a cat", "a <rex> and a <TOM>", "a tree")
    bare = unlearned(layout, NOUNS)
    assert bare.base.prompt == r"an ink painting of a dog \< a cat"
    assert [region.prompt for region in bare.regions] == ["a dog and a cat", "a tree"]
    for before, after in zip(layout.regions, bare.regions, strict=True):
        assert before.model_copy(update={"prompt": ""}) == after.model_copy(update={"prompt": ""})
    assert bare.base.alpha == 0.3


@pytest.mark.parametrize(
    ("whole", "prompts", "said"),
    [
        ("a dog and a cat in a room", ("a <rex>", "a <tom>"), "a <rex> and a <tom> in a room"),
        ("a dog and a cat in a room", ("a <tom>", "a <rex>"), "a <rex> and a <tom> in a room"),
        ("a dog and a dog", ("a <rex>", "a <fido>"), "a <rex> and a <fido>"),
        ("two dogs and a Teddy-Bear", ("a <rex>", "a <ted>"), "two <rex> and a <ted>"),
        ("a <rex> and a cat", ("a <rex>", "a <tom>"), "a <rex> and a <tom>"),
        ("a dog", ("a <rex>", "another <rex>"), "a <rex>"),
        (r"a dog \< a cat", ("a <tom>", "a <rex>"), r"a <rex> \< a <tom>"),
        ("an <ink> of a cat", ("a <tom>", "a tree"), "an <ink> of a <tom>"),
    ],
)
def test_plain_prompting_puts_each_concept_in_its_nouns_place(
    whole: str, prompts: tuple[str, ...], said: str
) -> None:
    assert in_one_prompt(made(whole, *prompts), NOUNS) == said


@pytest.mark.parametrize("whole", ["a room", "a dog in a room", "a hotdog in a room"])
def test_where_the_whole_prompt_lacks_a_noun_the_regions_prompts_come_first(whole: str) -> None:
    layout = made(whole, "a photo of a <rex>", "a photo of a <ted>")
    assert in_one_prompt(layout, NOUNS) == f"a photo of a <rex> and a <ted>, {whole}"


def test_a_rival_that_is_none_is_refused_with_those_there_are() -> None:
    assert check_rivals(["fast", "plain", "fast"]) == ("fast", "plain")
    for wanted in (["fast", "slow"], []):
        with pytest.raises(CidmError) as caught:
            check_rivals(wanted)
        assert caught.value.code == ExitCode.USAGE
        assert all(name in str(caught.value.hint) for name in RIVALS)
