"""Where captions speak of the concept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cidm_cli.data import marked, remarks
from cidm_cli.options.prompts import Mention, parse_prompt


@pytest.mark.parametrize(
    ("caption", "name", "noun", "prompt"),
    [
        ("a photo of <pup> on the grass", "pup", "dog", "a photo of <pup> on the grass"),
        ("a <Pup> dog and a cat", "pup", "dog", "a <pup> and a cat"),
        ("<pup> beside <pup>", "pup", "dog", "<pup> beside <pup>"),
        ("a [pup] dog", "pup", "dog", "a <pup>"),
        ("a photo of pup with a dog", "pup", "dog", "a photo of <pup> with a dog"),
        ("a dog named Pup", "pup", "dog", "a <pup>"),
        ("a photo of dog2", "dog2", "dog", "a photo of <dog2>"),
        ("sks dog on a sofa", "rex", "dog", "<rex> on a sofa"),
        ("a [V] dog", "rex", "dog", "a <rex>"),
        ("a photo of ohwx", "rex", "dog", "a photo of <rex>"),
        ("a photo of two dogs", "rex", "dog", "a photo of two <rex>"),
        ("an ink painting of a house", "ink", "ink painting", "an <ink> of a house"),
        ("a castle near a house", "house", "castle", "a <house> near a house"),
        ("asleep", "rex", "dog", "<rex>, asleep"),
        ("1girl, long hair", "rex", "girl", "<rex>, 1girl, long hair"),
        ("a <cat> and a dog <3", "rex", "dog", r"a \<cat> and a <rex> \<3"),
        ("a pupil", "pup", "dog", "<pup>, a pupil"),
        ("a a a", "a", "dog", "<a>, a a a"),
    ],
)
def test_the_place(caption: str, name: str, noun: str, prompt: str) -> None:
    assert marked(caption, name, noun).prompt == prompt


@given(st.text(max_size=40), st.sampled_from(["dog", "pup", "c++", ""]))
def test_every_caption_names_the_concept_and_nothing_else(caption: str, noun: str) -> None:
    prompt = parse_prompt(marked(caption, "pup", noun).prompt)
    assert {part.name for part in prompt.parts if isinstance(part, Mention)} == {"pup"}


def test_what_may_be_meant_otherwise_is_told() -> None:
    captions = [
        ("0.txt", "a <cat> and a dog"),
        ("1.txt", "sks dog"),
        ("2.txt", "asleep"),
        ("3.txt", "a <rex>"),
    ]
    other, trigger, led = remarks(captions, "rex", "dog")
    assert "0.txt: <cat>" in other
    assert "sks dog is taken for <rex>" in trigger
    assert led.endswith("in front: 2.txt")
    assert remarks([("0.txt", "a dog"), ("1.txt", "the <Rex>")], "rex", "dog") == []
