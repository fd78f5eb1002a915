"""Where the words of a picture go: near what they are about, inside the picture, never over one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont

from cidm_cli.layout.advice import overlap
from cidm_cli.layout.model import Box

from ..terminal.output import plain

SIZES = (24, 20, 17, 14)
"""Pixels, the largest that fits is taken; the last is the smallest one can read."""
PAD = 7
GAP = 5
MAX_LINES = 6
MAX_HIDDEN = 0.2
"""Share of a region that words about another may lie on."""
WHITE = (255, 255, 255)
INK = (24, 24, 24)
FAINT = (84, 84, 84)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Plate:
    """Something to be written, and once `at` is known, where."""

    badge: str
    """a number, or nothing"""
    text: str
    note: str
    """in smaller letters under it"""
    colour: tuple[int, int, int]
    extent: Box | None
    """what it is about, in pixels; None: the whole picture"""
    at: Box | None = None
    lines: tuple[str, ...] = ()
    note_lines: tuple[str, ...] = ()
    size: int = SIZES[-1]

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        """Draws the plate where it was placed."""
        assert self.at is not None
        x0, y0, x1, y1 = self.at
        draw.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), 5, WHITE, self.colour, 2)
        line, left = _line(self.size), x0 + PAD
        if self.badge:
            width = _badge_width(self)
            draw.rounded_rectangle((x0, y0, x0 + width - 1, y0 + line + 2 * PAD - 1), 5, self.colour)
            middle = (x0 + width / 2, y0 + PAD + line / 2)
            draw.text(middle, self.badge, WHITE, _font(self.size, bold=True), anchor="mm")
            left += width
        top = y0 + PAD
        for text in self.lines:
            draw.text((left, top + line / 2), text, INK, _font(self.size), anchor="lm")
            top += line
        for text in self.note_lines:
            small = _line(_small(self.size))
            draw.text((left, top + small / 2), text, FAINT, _font(_small(self.size)), anchor="lm")
            top += small


def place(plates: Sequence[Plate], canvas: tuple[int, int]) -> list[Plate]:
    """The plates that found a place in the canvas (width, height), in the order in which they were given.

    One that finds no place for all its words loses first the note, then the end of the text, then the text. A
    number always finds one.
    """
    extents = [plate.extent for plate in plates if plate.extent is not None]
    placed: list[Plate] = []
    for plate in plates:
        taken = [one.at for one in placed if one.at is not None]
        found = next(_choices(plate, canvas, taken, extents), None)
        if found is None and plate.badge:
            found = _only_badge(plate, canvas)
        if found is not None:
            placed.append(found)
    return placed


def _choices(
    plate: Plate, canvas: tuple[int, int], taken: Sequence[Box], extents: Sequence[Box]
) -> Iterator[Plate]:
    """Ways to write a plate without touching those already placed, the best first."""
    others = [extent for extent in extents if extent != plate.extent]
    for shortened in _shortenings(plate):
        for size in SIZES:
            found = list(_written(shortened, size, canvas, taken, inside=True))
            if plate.extent is None:
                found = [one for one in found if not _hides(one.at, others)]
            yield from sorted(found, key=lambda one: _covered(one.at, others))
        if plate.extent is not None:
            found = list(_written(shortened, SIZES[-1], canvas, taken, inside=False))
            found = [one for one in found if not _hides(one.at, others)]
            yield from sorted(found, key=lambda one: _covered(one.at, others))
    if plate.extent is None:
        found = list(_written(replace(plate, note=""), SIZES[-1], canvas, (), inside=True))
        yield from sorted(found, key=lambda one: _covered(one.at, taken))


def _covered(at: Box | None, others: Sequence[Box]) -> float:
    """The area of other regions that lies under a plate."""
    return 0.0 if at is None else sum(overlap(at, other) for other in others)


def _hides(at: Box | None, others: Sequence[Box]) -> bool:
    """Whether a plate leaves too little of another region to be seen."""
    areas = [(other[2] - other[0]) * (other[3] - other[1]) for other in others]
    return at is not None and any(
        overlap(at, other) > MAX_HIDDEN * area for other, area in zip(others, areas, strict=True)
    )


def _shortenings(plate: Plate) -> Iterator[Plate]:
    yield plate
    if plate.note:
        yield replace(plate, note="")
    words = plate.text.split()
    if len(words) > 4:
        yield replace(plate, note="", text=" ".join(words[:4]) + " …")
    if plate.badge:
        yield replace(plate, note="", text="")


def _written(
    plate: Plate, size: int, canvas: tuple[int, int], taken: Sequence[Box], *, inside: bool
) -> Iterator[Plate]:
    """The plate in letters of `size`, at each place near what it is about that is free."""
    width, height = canvas
    x0, y0, x1, y1 = plate.extent or (0.0, 0.0, float(width), float(height))
    room = (x1 - x0 if inside else max(x1 - x0, min(width * 0.4, 300))) - 2 * GAP
    plate = replace(plate, size=size)
    room -= 2 * PAD + _badge_width(plate)
    lines = _wrapped(plain(plate.text), room, size)
    notes = _wrapped(plain(plate.note), room, _small(size))
    if lines is None or notes is None or len(lines) > MAX_LINES:
        return
    plate = replace(plate, lines=lines, note_lines=notes)
    across, down = _measured(plate)
    if inside:
        if across > x1 - x0 - 2 * GAP or down > y1 - y0 - 2 * GAP:
            return
        lefts = (x0 + GAP, (x0 + x1 - across) / 2, x1 - GAP - across)
        tops = [y0 + GAP + part * (y1 - y0 - 2 * GAP - down) / 8 for part in range(9)]
        places = [(left, top) for top in tops for left in lefts]
    else:
        middle, centre = (x0 + x1 - across) / 2, (y0 + y1 - down) / 2
        places = [
            *((left, top) for top in (y1 + GAP, y0 - GAP - down) for left in (x0, middle, x1 - across)),
            *((left, top) for left in (x1 + GAP, x0 - GAP - across) for top in (y0, centre, y1 - down)),
        ]
    for left, top in places:
        at = (left, top, left + across, top + down)
        if left < 0 or top < 0 or at[2] > width or at[3] > height:
            continue
        if not any(overlap(at, other) for other in taken):
            yield replace(plate, at=at)


def _only_badge(plate: Plate, canvas: tuple[int, int]) -> Plate:
    """The bare number in the middle of its region, over whatever is there."""
    plate = replace(plate, text="", note="", lines=(), note_lines=(), size=SIZES[-1])
    across, down = _measured(plate)
    x0, y0, x1, y1 = plate.extent or (0.0, 0.0, 0.0, 0.0)
    left = min(max((x0 + x1 - across) / 2, 0), max(canvas[0] - across, 0))
    top = min(max((y0 + y1 - down) / 2, 0), max(canvas[1] - down, 0))
    return replace(plate, at=(left, top, left + across, top + down))


def _measured(plate: Plate) -> tuple[float, float]:
    small = _small(plate.size)
    widths = [_font(plate.size).getlength(line) for line in plate.lines]
    widths += [_font(small).getlength(line) for line in plate.note_lines]
    across = _badge_width(plate) + (max(widths) + 2 * PAD if widths else 0)
    down = max(len(plate.lines), 1) * _line(plate.size) + len(plate.note_lines) * _line(small) + 2 * PAD
    return across, down


def _wrapped(text: str, width: float, size: int) -> tuple[str, ...] | None:
    """`text` in lines of at most `width` pixels, or None if one of its words is wider."""
    font, lines = _font(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        elif font.getlength(word) <= width:
            lines.append(word)
        else:
            return None
    return tuple(line for line in lines if line)


def _badge_width(plate: Plate) -> float:
    return _font(plate.size, bold=True).getlength(plate.badge) + 2 * PAD if plate.badge else 0.0


def _small(size: int) -> int:
    return max(round(size * 0.72), 13)


def _line(size: int) -> int:
    return round(size * 1.3)


@lru_cache(maxsize=32)
def _font(size: int, *, bold: bool = False) -> Font:
    """DejaVu Sans, which comes with matplotlib and knows most alphabets; without it Pillow's own."""
    found = find_spec("matplotlib")
    if found is not None and found.origin:
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        file = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)
