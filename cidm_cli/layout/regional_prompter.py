"""Prompts for AUTOMATIC1111's Regional Prompter: BREAK, ADDCOL, ADDROW, ADDBASE, ADDCOMM and a divide ratio.

The picture is split along its main direction first ("columns": into rows, then each row into columns), by the ratio
"1,2;1,1": a semicolon between rows, and in each row its height before the widths of its columns.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout.drafts import Draft, DraftRegion, Wishes
from cidm_cli.layout.model import MAX_REGIONS, Box
from cidm_cli.layout.weighted import plain_prompt

MAX_TEXT = 64 << 10
DEFAULT_BASE_RATIO = 0.2
"""What the extension's field for it holds at first."""

_KEYWORD = re.compile(r"\b(ADDCOMM|ADDBASE|ADDCOL|ADDROW|ADDP|BREAK|AND)\b")
_MEANT = re.compile(
    r"\b(?:ADD[ _-](?:COMM|BASE|COL|ROW)|(?i:ADD(?:COMM|BASE|COL|ROW)))\b"
    r"|^[ \t]*(?i:BREAK|ADD[ _-]?(?:COMM|BASE|COL|ROW))[ \t]*$",
    re.MULTILINE,
)
"""Words that can only be meant as keywords: "addcol", "ADD COL", or "break" in a line of its own."""
_AND_WEIGHT = re.compile(r":\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*$")


@dataclass(frozen=True)
class Settings:
    """What the extension's panel says."""

    ratio: str = ""
    rows: bool = False
    """whether the main splitting is into columns that are split into rows, which the panel calls "Rows" """
    base: bool = False
    """whether the first part is the whole picture's prompt"""
    common: bool = False
    """whether the first part goes in front of every region's"""
    base_ratio: str = ""
    flip: bool = False
    """whether , and ; of the ratio are exchanged"""
    active: bool = True


def divide(draft: Draft, prompt: str, negative: str, said: Settings, source: str, wishes: Wishes) -> Draft:
    """Put a prompt and its regions into a draft.

    Raises CidmError: INVALID for an empty or too long prompt, regions that are found while drawing, or a ratio that is
    none; USAGE if that is the command line's.
    """
    if len(prompt) + len(negative) > MAX_TEXT:
        raise refused(source, f"a text of more than {MAX_TEXT} characters is not a prompt")
    if wishes.size is not None:
        draft.image["size"] = wishes.size
    if wishes.ratio is not None:
        said = replace(said, ratio=wishes.ratio, flip=False, active=True)
    if wishes.split is not None:
        said = replace(said, rows=wishes.split == "rows", active=True)

    def plain(text: str) -> str:
        words, notes = plain_prompt(text, source, brackets=True)
        draft.notes += notes
        return words

    prompt, negative = (_with_keywords(text, draft) for text in (prompt, negative))
    active = said.active
    if not active:
        draft.note("Regional Prompter was switched off: BREAK parts no regions")
        prompt, said = _KEYWORD.sub(",", prompt), Settings()
    parts = _parts(prompt, said, source, draft)
    ratio = _numbers(said, source if wishes.ratio is None else "--ratio", wishes.ratio is not None)
    grid = _grid(parts, ratio, said.rows, draft)
    boxes = _boxes([len(inner) for inner in grid], _groups(parts, ratio, said.rows), said.rows, draft)
    texts = [_joined(plain(parts.common), plain(text)) for inner in grid for text in inner]
    draft.prompt = _joined(plain(parts.common), plain(parts.base))
    negatives = [plain(part) for part in _KEYWORD.split(negative)[::2]]
    if len(texts) == 1:
        if active:
            draft.note("no region was found: between two of them stands ADDCOL, ADDROW or BREAK, in capitals")
        draft.prompt, draft.negative = _joined(plain(parts.base), texts[0]), _joined(*negatives)
    else:
        own = _negatives(draft, negatives, len(boxes))
        for text, box, less in zip(texts, boxes, own, strict=True):
            if text:
                draft.regions.append(DraftRegion(text, box, less))
            else:
                draft.note("a part without words is left out")
        if parts.base:
            draft.alpha = _alpha(said.base_ratio, draft)
    if not draft.prompt and not draft.regions:
        raise refused(source, "there is no prompt in it")
    return draft


def _with_keywords(text: str, draft: Draft) -> str:
    """The text with every keyword as the extension writes it."""

    def keyword(match: re.Match[str]) -> str:
        word = re.sub(r"[\s_-]", "", match.group()).upper()
        if match.group().strip() != word:
            draft.note(f"{match.group().strip()} is taken for {word}")
        return word

    return _MEANT.sub(keyword, text)


@dataclass(frozen=True)
class _Parts:
    """A prompt, taken apart at its keywords."""

    common: str
    """goes in front of every region's prompt"""
    base: str
    """of the whole picture"""
    texts: tuple[str, ...]
    keys: tuple[str, ...]
    """between the texts: ADDCOL, ADDROW or BREAK"""


def _parts(prompt: str, said: Settings, source: str, draft: Draft) -> _Parts:
    pieces = _KEYWORD.split(prompt)
    texts, keys = pieces[::2], ["BREAK" if key == "AND" else key for key in pieces[1::2]]
    if "ADDP" in keys:
        raise refused(
            source, "ADDP finds its regions in the image while it is drawn", "give boxes: ADDCOL, ADDROW"
        )
    if len(texts) > MAX_REGIONS * 2:
        raise refused(source, f"more than {MAX_REGIONS} regions")
    if "AND" in pieces[1::2] and any(_AND_WEIGHT.search(text) for text in texts):
        texts = [_AND_WEIGHT.sub("", text) for text in texts]
        draft.note("weights of the parts, as in AND word :0.5, are left out")
    opening, cut = (("ADDCOMM", said.common), ("ADDBASE", said.base)), {}
    # Each ends the part that it names; where both are written, they may come in either order.
    for keyword, wanted in sorted(opening, key=lambda one: _end(keys, *one)):
        cut[keyword], texts, keys = _cut(texts, keys, _end(keys, keyword, wanted), draft)
    return _Parts(
        cut["ADDCOMM"],
        cut["ADDBASE"],
        tuple(texts),
        tuple(key if key in _SPLITS else "BREAK" for key in keys),
    )


_SPLITS = ("ADDCOL", "ADDROW")


def _end(keys: Sequence[str], keyword: str, wanted: bool) -> int:
    """Which key ends the part that a keyword names; if it is wanted and not there, the first BREAK; else -1."""
    ends = keyword if keyword in keys or not wanted else "BREAK"
    return keys.index(ends) if ends in keys else -1


def _cut(texts: list[str], keys: list[str], at: int, draft: Draft) -> tuple[str, list[str], list[str]]:
    """What stands before a key, and the rest; without a key nothing does."""
    if at < 0:
        return "", texts, keys
    if at:
        draft.note(
            f"{', '.join(dict.fromkeys(keys[:at]))} before {keys[at]} parts no regions: it is one prompt"
        )
    return _joined(*texts[: at + 1]), texts[at + 1 :], keys[at + 1 :]


Ratio = list[list[float]]
"""Numbers between commas, within those between semicolons."""
Groups = list[tuple[float, list[float]]]
"""For each part of the first splitting its share, and those of the parts it is split into."""


def _numbers(said: Settings, place: str, of_command: bool) -> Ratio | None:
    """The divide ratio, or None if there is none. Raises CidmError for what is no ratio."""
    text = said.ratio.strip()
    if not text:
        return None
    if said.flip:
        text = text.translate(str.maketrans(",;", ";,"))
    try:
        numbers = [[float(number) for number in row.split(",")] for row in text.split(";")]
        if len(text) > 1000 or not all(0 < number < math.inf for row in numbers for number in row):
            raise ValueError
    except ValueError:
        hint = "numbers above 0 with commas, rows parted by semicolons: 1,2;1,1"
        code = ExitCode.USAGE if of_command else ExitCode.INVALID
        raise CidmError(f"{place}: {text[:60]!r} is not a divide ratio", hint, code) from None
    return numbers


def _groups(parts: _Parts, ratio: Ratio | None, rows: bool) -> Groups | None:
    """What a ratio says of a prompt's parts, the first splitting first."""
    if ratio is None:
        return None
    split = {key for key in parts.keys if key in _SPLITS}
    if len(ratio) == 1 and len(split) < 2:
        first = "ADDCOL" if rows else "ADDROW"
        # One row of numbers and one kind of keyword: they are about each other, whichever direction it is.
        return [(number, [1.0]) for number in ratio[0]] if split == {first} else [(1.0, ratio[0])]
    numbers = _turned(ratio) if rows else ratio
    return [(group[0], group[1:] or [1.0]) for group in numbers]


def _turned(ratio: Ratio) -> Ratio:
    """The same text read with commas between groups and semicolons within them."""
    text = ";".join(",".join(repr(number) for number in row) for row in ratio)
    return [[float(number) for number in group.split(";")] for group in text.split(",")]


def _grid(parts: _Parts, ratio: Ratio | None, rows: bool, draft: Draft) -> list[list[str]]:
    """The prompts by the parts of the first splitting and of the second."""
    if set(parts.keys) & set(_SPLITS):
        first, second = ("ADDCOL", "ADDROW") if rows else ("ADDROW", "ADDCOL")
        grid = [[parts.texts[0]]]
        for key, text in zip(parts.keys, parts.texts[1:], strict=True):
            if key == first:
                grid.append([text])
            elif key == second:
                grid[-1].append(text)
            else:
                grid[-1][-1] = _joined(grid[-1][-1], text)
        return grid
    groups = _groups(parts, ratio, rows)
    if groups is None or len(parts.texts) == 1:
        return [list(parts.texts)]
    # BREAK alone says nothing of rows: the ratio does.
    left, grid = list(parts.texts), []
    for _, inner in groups:
        grid.append(left[: len(inner)])
        del left[: len(inner)]
    if left:
        draft.note(f"{len(parts.texts)} prompts for fewer parts: the last {len(left) + 1} are joined to one")
        grid[-1][-1] = _joined(grid[-1][-1], *left)
    return [inner for inner in grid if inner]


def _boxes(shape: Sequence[int], groups: Groups | None, rows: bool, draft: Draft) -> list[Box]:
    """The box of each part, group by group. A ratio with too few numbers goes on with its last one."""
    if groups is None or shape == [1]:
        groups = [(1.0, [1.0] * count) for count in shape]
    elif [len(inner) for _, inner in groups] != list(shape):
        draft.note("the divide ratio has other parts than the prompt: it is cut, or its last number repeated")
    groups = (groups + [groups[-1]] * len(shape))[: len(shape)]
    boxes: list[Box] = []
    for (low, high), (_, inner), count in zip(_spans([own for own, _ in groups]), groups, shape, strict=True):
        for start, end in _spans((inner + [inner[-1]] * count)[:count]):
            boxes.append((low, start, high, end) if rows else (start, low, end, high))
    return boxes


def _spans(ratio: Sequence[float]) -> list[tuple[float, float]]:
    """0 to 1, divided in a ratio."""
    largest = max(ratio)
    edges = [0.0]
    for number in ratio:
        edges.append(edges[-1] + number / largest)
    edges = [edge / edges[-1] for edge in edges]
    return list(itertools.pairwise(edges))


def _negatives(draft: Draft, negatives: list[str], regions: int) -> list[str | None]:
    """The negative prompt of each region: None is that of the whole picture, which is put in the draft."""
    if len(negatives) == regions > 1:
        return [*negatives]
    if len(negatives) == regions + 1:
        draft.negative = negatives[0]
        return [*negatives[1:]]
    if len(negatives) > 1:
        draft.note(
            f"{len(negatives)} negative prompts for {regions} regions: they are joined, for all of them"
        )
    draft.negative = _joined(*negatives)
    return [None] * regions


def _alpha(said: str, draft: Draft) -> float:
    """The whole prompt's share in the regions, from the "base ratio", one number or one a region."""
    try:
        ratios = (
            [float(number) for number in re.split(r"[,;]", said)] if said.strip() else [DEFAULT_BASE_RATIO]
        )
    except ValueError:
        ratios = [DEFAULT_BASE_RATIO]
        draft.note(f"base ratio {said[:40]!r}: {DEFAULT_BASE_RATIO} is taken")
    alpha = sum(ratios) / len(ratios)
    if len(set(ratios)) > 1:
        draft.note("a base ratio for each region: their mean is taken")
    if not 0 <= alpha <= 1:
        draft.note(f"base ratio {alpha:g}: {DEFAULT_BASE_RATIO} is taken")
        return DEFAULT_BASE_RATIO
    return alpha


def _joined(*texts: str) -> str:
    return ", ".join(text.strip() for text in texts if text.strip())


def refused(source: str, message: str, hint: str | None = None) -> CidmError:
    """The error for a prompt that gives no layout."""
    return CidmError(f"{source}: {message}", hint, ExitCode.INVALID)
