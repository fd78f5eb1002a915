"""Prompts: which concepts they name, and what is told to whoever mistypes one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cidm_cli.errors import CidmError, ExitCode, nearest
from cidm_cli.options.prompts import Mention, escaped, find_unknown, literally, parse_prompt, unmarked


def test_a_prompt_is_taken_apart_at_its_mentions() -> None:
    prompt = parse_prompt("a <dog> and a <ink_painting>")
    assert prompt.parts == ("a ", Mention("dog", 2), " and a ", Mention("ink_painting", 14))
    assert prompt.names == ("dog", "ink_painting")
    assert prompt.text == "a <dog> and a <ink_painting>"


def test_bytes_that_are_no_utf_8_are_refused_with_their_place() -> None:
    with pytest.raises(CidmError, match="from character 3 on are not UTF-8") as caught:
        parse_prompt(b"a \xff dog".decode("utf-8", "surrogateescape"))
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    "name", ["dog", "Dog2", "2dogs", "my-dog_b", "собака", "犬", "हिंदी", "chien-élégant"]
)
def test_names_of_any_script_are_found(name: str) -> None:
    assert parse_prompt(f"<{name}>").parts == (Mention(unicodedata.normalize("NFC", name), 0),)


def test_spellings_that_the_registry_holds_for_one_name_are_one_name() -> None:
    assert parse_prompt("<Dog> <dog> <DOG>").names == ("Dog",)
    assert parse_prompt("<e\u0301ric> <\u00e9ric>").names == ("\u00e9ric",)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("no concept", ("no concept",)),
        (r"a \<dog> sign", ("a <dog> sign",)),
        (r"\<\<", ("<<",)),
        (r"3 \< 4 > 2 \ 1", (r"3 < 4 > 2 \ 1",)),
        (r"\<<dog>", ("<", Mention("dog", 2))),
        ("<a><b>", (Mention("a", 0), Mention("b", 3))),
    ],
)
def test_escapes_and_plain_text(text: str, parts: tuple[str | Mention, ...]) -> None:
    assert parse_prompt(text).parts == parts


@pytest.mark.parametrize(
    "reference",
    [
        *("<>", "< dog>", "<do g>", "<-dog>", "<_dog>", "<dog", "<", "< ", "<<dog>>", "<do<g>", "<../dog>"),
        *("<do\ng>", "<dog\0>", "<a.b>", "<con>", "<\u200bdog>", "<🐕>", "<" + "x" * 65 + ">"),
        "<script>alert()</script>",
    ],
)
def test_malformed_references_are_reported_with_their_place(reference: str) -> None:
    with pytest.raises(CidmError, match="at character ") as caught:
        parse_prompt(f"ab {reference}")
    assert caught.value.code == ExitCode.USAGE
    assert r"\<" in (caught.value.hint or "")
    assert len(str(caught.value)) < 250


def test_the_place_of_a_malformed_reference_is_counted_from_one() -> None:
    with pytest.raises(CidmError, match="'<do g>' at character 4 "):
        parse_prompt("ab <do g>")


def test_mentions_are_replaced_by_their_stand_ins() -> None:
    prompt = parse_prompt(r"a <dog>, a \< and a <Dog> by <cat>")
    assert prompt.filled(lambda name: f"[{name}]") == "a [dog], a < and a [Dog] by [cat]"


def test_unknown_concepts_get_a_suggestion() -> None:
    known = ["dog", "cat", "Ink_Painting"]
    assert find_unknown(parse_prompt("a <dog>, a <CAT>, <ink_painting>"), known) is None
    error = find_unknown(parse_prompt("a <dog> and a <dgo>"), known)
    assert error is not None
    assert error.code == ExitCode.NOT_FOUND
    assert "<dgo>" in str(error)
    assert "<dog>" in (error.hint or "")


def test_an_unknown_concept_unlike_all_others_points_to_the_list() -> None:
    error = find_unknown(parse_prompt("<zebra>"), [])
    assert error is not None
    assert "cidm list" in (error.hint or "")


def test_suggestions_ignore_case_and_give_up_on_absurd_words() -> None:
    assert nearest("PROMT", ["box", "prompt"]) == "prompt"
    assert nearest("zzz", ["box", "prompt"]) is None
    assert nearest("prompt" * 10_000, ["box", "prompt"]) is None


words = st.text(st.characters(codec="utf-8", exclude_characters="\\"), max_size=20)
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("con", "prn", "aux", "nul") and name[:3] not in ("com", "lpt")
)


@settings(deadline=None)
@given(st.lists(st.one_of(words, names.map(lambda name: Mention(name, 0))), max_size=8))
def test_escaped_text_and_mentions_come_back_as_they_were(pieces: list[str | Mention]) -> None:
    text = "".join(p.replace("<", r"\<") if isinstance(p, str) else f"<{p.name}>" for p in pieces)
    prompt = parse_prompt(text)
    assert prompt.filled(lambda name: f"<{name}>") == "".join(
        p if isinstance(p, str) else f"<{p.name}>" for p in pieces
    )
    assert [p.name for p in prompt.parts if isinstance(p, Mention)] == [
        p.name for p in pieces if isinstance(p, Mention)
    ]
    assert all(text[p.position] == "<" for p in prompt.parts if isinstance(p, Mention))


@settings(deadline=None)
@given(st.text(st.sampled_from("<>\\a- "), max_size=30))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        prompt = parse_prompt(text)
    except CidmError:
        return
    assert prompt.text == text
    assert all(part for part in prompt.parts)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a photo of a dog", "dog"),
        ("Dog, on the beach", "dog"),
        ("an oil-painting", "oil-painting"),
        ("two dogs", None),
        ("a <cat> beside a dog", None),
        ("a beach", None),
    ],
)
def test_a_name_that_stands_as_a_plain_word_is_found_where_no_concept_is_named(
    prompt: str, found: str | None
) -> None:
    assert unmarked(parse_prompt(prompt), ["dog", "oil-painting"]) == found


# Weights, strengths and chunks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a (red) dog", [("a ", 1), ("red", 1.1), (" dog", 1)]),
        ("a ((red:1.2) dog)", [("a ", 1), ("red", 1.2), (" dog", 1.1)]),
        ("((a):1.3)", [("a", 1.1 * 1.3)]),
        ("a [red] dog", [("a ", 1), ("red", 1 / 1.1), (" dog", 1)]),
        ("(a <dog>: .5)", [("a ", 0.5), (Mention("dog", 3), 0.5)]),
        ("(<dog>:1.2)", [(Mention("dog", 1), 1.2)]),
        (r"a \(red\) \[dog\]", [("a (red) [dog]", 1)]),
        ("a (red", [("a (red", 1)]),
        ("a :) red) [dog", [("a :) red) [dog", 1)]),
        ("a (red [dog)", [("a ", 1), ("red [dog", 1.1)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("(12:30)", [("12", 30)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("()", []),
    ],
)
def test_brackets_weigh_what_is_in_them(text: str, said: list[tuple[str | Mention, float]]) -> None:
    prompt = parse_prompt(text)
    assert list(zip(prompt.parts, prompt.weights, strict=True)) == [
        (part, pytest.approx(weight)) for part, weight in said
    ]
    assert parse_prompt(text, literal=True).weights == (1.0,) * len(parse_prompt(text, literal=True).parts)


def test_a_strength_belongs_to_a_concept_whatever_its_spelling() -> None:
    prompt = parse_prompt("a <Dog:0.7> and <dog> by a <cat:2>")
    assert prompt.names == ("Dog", "cat")
    assert prompt.strengths == {"dog": 0.7, "cat": 2.0}
    with pytest.raises(CidmError, match="two strengths"):
        parse_prompt("<dog:0.7> <dog:0.8>")
    for odd in ("<dog:>", "<dog:-1>", "<dog:a>", "<dog:1:2>", "<:1>"):
        with pytest.raises(CidmError, match="names no concept"):
            parse_prompt(odd)


def test_a_weight_beyond_all_measure_is_refused() -> None:
    for odd in ("(a:101)", "(" * 60 + "a" + ")" * 60):
        with pytest.raises(CidmError, match="weigh more than 100"):
            parse_prompt(odd)


def test_break_begins_a_chunk_and_a_backslash_takes_it_back() -> None:
    assert parse_prompt("a BREAK b").parts == ("a ", " b")
    assert parse_prompt("a BREAK b").breaks == (1,)
    for plain in (r"a \BREAK b", "a BREAKS b", "a break b"):
        assert parse_prompt(plain).breaks == ()


@settings(deadline=None)
@given(st.text(st.sampled_from(r"ab()[]{}|_\:.5 ,BREAK"), max_size=40))
def test_a_literal_prompt_says_all_signs_as_they_stand(text: str) -> None:
    assert parse_prompt(literally(text)).parts == parse_prompt(text, literal=True).parts
    assert parse_prompt(escaped(text)).filled(str) == text


def test_a_concept_is_exchanged_for_words_and_the_rest_stays_as_it_was_typed() -> None:
    prompt = parse_prompt(r"a (<dog:0.7>:1.2) \<b [<cat>] BREAK \(c")
    assert prompt.exchanged({"dog": "(big) dog"}.get) == r"a (\(big\) dog:1.2) \<b [<cat>] BREAK \(c"
