"""Reports: whatever a concept, caption or command is called, it is shown and never obeyed."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from cidm_cli.terminal.output import Table
from cidm_cli.terminal.pages import LARGE, Plot, Strip, page, sheet

HOSTILE = """<script>alert('x')</script>" onerror="alert(1)' onload='&lt;b&gt;</pre></title>"""
PICTURE = Image.new("RGB", (4, 4), "red")


class Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.values: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        for name, value in attrs:
            self.values.setdefault(name, []).append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def made(text: str) -> Reader:
    """A page in which the same text stands in every place that takes one."""
    strips = [Strip(text, text, [(PICTURE, text), (PICTURE, text)])]
    table = Table((text, text), [(text, text)])
    return Reader(
        page(
            text,
            [text, text],
            strips,
            [text, text],
            tables=[table],
            terms={text: text},
            plots=[Plot(text, text, PICTURE, PICTURE)],
        )
    )


def test_hostile_text_makes_the_same_page_as_harmless_text() -> None:
    """Not a tag more, not an attribute more: it cannot leave the place it was put in."""
    hostile, harmless = made(HOSTILE), made("dog")
    assert hostile.tags == harmless.tags
    assert "script" not in {tag for tag, _ in hostile.tags}


def test_hostile_text_is_shown_as_it_is() -> None:
    shown = made(HOSTILE)
    places = ["title", "h1", "two opening lines", "h2", "note", "two captions", "two heads", "two cells"]
    places += ["term", "explained", "plot", "its note"]
    assert shown.texts.count(HOSTILE) == len(places) + 4
    assert f"{HOSTILE}\n{HOSTILE}" in shown.texts, "commands"
    assert shown.values["alt"] == [HOSTILE] * 3


@pytest.mark.parametrize("place", range(6))
def test_no_single_place_lets_a_tag_through(place: int) -> None:
    texts = ["harmless"] * 6
    texts[place] = "<script>alert(1)</script>"
    title, opening, heading, note, caption, command = texts
    html = page(title, [opening], [Strip(heading, note, [(PICTURE, caption)])], [command])
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_a_page_needs_no_other_file_and_no_network() -> None:
    html = page("demo", ["text"], [Strip("dog", "note", [(PICTURE, "a dog")])], ["cidm list"])
    (source,) = Reader(html).values["src"]
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
    assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (255, 0, 0)
    assert not re.search(r"https?:|url\(|@import|<link|<iframe", html)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((64, 64), (128, 128)), ((128, 64), (256, 128)), ((30, 40), (90, 120)), ((200, 100), (200, 100))],
)
def test_small_images_are_shown_at_a_whole_multiple_of_their_pixels(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    values = Reader(page("t", [], [Strip("", "", [(Image.new("RGB", size), "")])], [])).values
    assert (int(values["width"][0]), int(values["height"][0])) == shown


def test_large_images_are_made_smaller_and_fit_a_phone() -> None:
    values = Reader(page("t", [], [Strip("", "", [(Image.new("RGB", (1024, 512)), "")])], [])).values
    assert (int(values["width"][0]), int(values["height"][0])) == (LARGE, LARGE // 2)


def test_a_page_without_commands_has_no_empty_box() -> None:
    assert "<pre>" not in page("demo", [], [], [])


def test_a_sheet_has_a_row_for_each_strip_and_shows_every_picture() -> None:
    blue = Image.new("RGBA", (300, 300), "blue")
    strips = [Strip("one", "", [(PICTURE, ""), (blue, "")]), Strip(HOSTILE, "", [(blue, "")])]
    whole = sheet(strips, side=32)
    assert whole.width >= 2 * 32
    assert whole.height >= 2 * 32
    counts = {colour: count for count, colour in whole.getcolors(100_000)}
    assert counts[(255, 0, 0)] == 32 * 32
    assert counts[(0, 0, 255)] == 2 * 32 * 32
