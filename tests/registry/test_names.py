"""Which names are allowed, and which are the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cidm_registry import InvalidName, canonical_key, display_name

REFUSED = [
    "",
    " ",
    "../x",
    "..",
    ".",
    "/etc/passwd",
    "C:\\dog",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\tb",
    "a\x1b[31m",
    "a\x7f",
    "a\x9b",
    "dog.",
    "dog ",
    " dog",
    "-dog",
    "--help",
    "_dog",
    "dog cat",
    "<dog>",
    "dog>",
    "[bold]dog",
    "dog:1",
    "dog*",
    "dog?",
    "dog|cat",
    'dog"',
    "con",
    "CON",
    "Nul",
    "aux",
    "prn",
    "COM1",
    "lpt9",
    "com0",
    "x" * 65,
    "日" * 67,
    "ß" * 40,  # folds to 80
    "dog\u200b",
    "dog\u202e",
    "dog\u2066",
    "dog\ufeff",
    "dog\ufe0f",
    "dog\u00ad",
    "\u0301dog",
    "\u3164",
    "dog\u3164",
    "\ud800",
    "dog\U000e0041",
    "🐶",
    "½dog",
]

ALLOWED = [
    "dog",
    "Dog-2",
    "my_dog",
    "2dogs",
    "собака",
    "犬",
    "कुत्ता",
    "chó",
    "x" * 64,
    "con1",
    "console",
    "a",
    "dog-",
    "dog_",
]


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_refused(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        canonical_key(name)
    assert caught.value.message.isprintable(), "the message cannot do what the name could not"
    with pytest.raises(InvalidName):
        display_name(name)


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str) -> None:
    assert canonical_key(name) == unicodedata.normalize("NFC", name.casefold())
    assert display_name(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Dog", "dog"), ("caf\u00e9", "cafe\u0301"), ("Straße", "STRASSE"), ("ΣΑΣ", "σας"), ("ǅ", "ǆ")],
)
def test_the_same(one: str, other: str) -> None:
    assert canonical_key(one) == canonical_key(other)


@given(st.text(max_size=80))
def test_whatever_is_allowed_is_a_safe_file_name_and_prompt_word(name: str) -> None:
    try:
        key = canonical_key(name)
    except InvalidName:
        return
    for text in (key, display_name(name)):
        assert not set(text) & set('/\\\0<>:"|?* .\n\r\t')
        assert text.isprintable()
        assert len(f"{text}.safetensors".encode()) <= 255
        assert text[0] != "-"
        assert text == unicodedata.normalize("NFC", text)


@given(st.text(alphabet="aBcÀéßΣİıſ\u0301-_0", min_size=1, max_size=20))
def test_a_key_is_its_own_key_and_does_not_care_about_case_or_composition(name: str) -> None:
    try:
        key = canonical_key(name)
    except InvalidName:
        return
    assert canonical_key(key) == key
    assert canonical_key(display_name(name)) == key
    assert canonical_key(unicodedata.normalize("NFD", name)) == key
