"""The class noun: a word is taken for one only where it is one, and what was not said is found in a fixed order."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cidm_cli.data import list_pictures
from cidm_cli.data.nouns import MEDIA, THINGS, in_captions, in_folder, in_name, stated
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn.assignment import noun_to_learn


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("dog", "dog"), ("dog2", "dog"), ("10_dog", "dog"), ("duck_toy", "duck toy"), ("Red-cat_07", "Red cat"),
        ("ink_painting", "ink painting"), ("sks_dog", "dog"), ("bello_dog", "dog"), ("glasses", "glasses"),
        ("bello", ""), ("luna", ""), ("max", ""), ("sks", ""), ("dogma", ""), ("7", ""), ("thing_x", ""),
    ],
)  # fmt: skip
def test_a_name_holds_a_noun_only_where_it_is_a_thing(name: str, noun: str) -> None:
    assert in_name(name) == noun


@pytest.mark.parametrize(
    ("folder", "noun"),
    [
        ("10_dog", "dog"),
        ("10_sks dog", "dog"),
        ("5_tom cat", "cat"),
        ("1_bello", ""),
        ("dog", ""),
        ("photos", ""),
    ],
)
def test_a_folder_of_kohyas_kind_names_the_class(folder: str, noun: str) -> None:
    assert in_folder(folder) == noun


@pytest.mark.parametrize(
    ("captions", "style", "noun"),
    [
        (("a photo of a dog on the grass", "a dog in the snow", "two dogs"), False, "dog"),
        (("a photo of a teddy bear on a bed", "my Teddy-Bear"), False, "teddy bear"),
        (("an orange cat", "a cat"), False, "cat"),
        (("a painting of a dog", "a dog"), False, "dog"),
        (("an ink painting of a house", "ink painting of a dog"), True, "ink painting"),
        (("a photo of <pup> dog",), False, "dog"),
        (("a dog", "a cat"), False, ""),
        (("asleep", "on a sofa"), False, ""),
        (("1girl, solo", "1girl, smile"), False, ""),
        ((), False, ""),
    ],
)
def test_captions_give_the_noun_where_they_agree(captions: tuple[str, ...], style: bool, noun: str) -> None:
    assert in_captions(captions, style=style) == noun


@pytest.mark.parametrize(
    ("said", "noun"),
    [("a man", "man"), ("the  ink painting", "ink painting"), ("c++", "c++"), ("qwrt", "qwrt")],
)
def test_a_noun_that_is_said_is_taken_without_its_article(said: str, noun: str) -> None:
    assert stated(said, "rex") == noun


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("a photo of a man", "--class man"), ("photo of man", "--class man"), ("man in a hat", "--class man"),
        ("dog, grass", "--class dog"), ("<dog>", "--class dog"), ("", "--class"), ("z" * 61, "--class"),
    ],
)  # fmt: skip
def test_a_caption_is_no_noun(said: str, hint: str) -> None:
    with pytest.raises(CidmError) as caught:
        stated(said, "rex")
    assert caught.value.code is ExitCode.USAGE
    assert hint in (caught.value.hint or "")


def chosen(folder: Path, name: str, *captions: str) -> tuple[str, str]:
    """The noun found for pictures with these captions, and what is said of it."""
    folder.mkdir(parents=True)
    for number, caption in enumerate(captions or ("",)):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption)
    said: list[str] = []
    noun = noun_to_learn(
        name, None, list_pictures(folder), None, style=False, on_note=said.append, on_warning=said.append
    )
    return noun, "".join(said)


def test_captions_come_before_the_folder_and_the_folder_before_the_name(tmp_path: Path) -> None:
    assert chosen(tmp_path / "a" / "10_tom cat", "horse", "a dog", "the dog")[0] == "dog"
    assert chosen(tmp_path / "b" / "10_tom cat", "horse")[0] == "cat"
    noun, told = chosen(tmp_path / "c", "horse2")
    assert noun == "horse"
    assert "by its name" in told


def test_a_name_that_captions_say_needs_no_word_about_it(tmp_path: Path) -> None:
    assert chosen(tmp_path / "a", "sunglasses", "a man with sunglasses", "a man") == ("sunglasses", "")


def test_a_pets_name_asks_for_the_class(tmp_path: Path) -> None:
    with pytest.raises(CidmError, match="contains no known class noun"):
        chosen(tmp_path / "a", "bello", "asleep")


def test_what_shows_another_thing_is_a_thing_too() -> None:
    assert MEDIA <= THINGS
