"""The ways a layout is drawn so that they can be compared: as it says, its ablations, and without boxes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from cidm_registry import canonical_key

from ..data import replace_noun
from ..errors import CidmError, ExitCode
from ..layout import Layout
from ..options.prompts import parse_prompt

_MENTION = re.compile(r"(?<!\\)(<[^<>]*>)")

RIVALS: Mapping[str, str] = {
    "own": "as the layout says",
    "full": "regional attention and region noise estimates (Eq. 4 and 5)",
    "fast": "regional attention alone, no region noise estimates",
    "crops": "as full, with each estimate made on the crop of its box",
    "no-attention": "region noise estimates alone, no regional attention",
    "paper": "both, with Eq. 5 as it is printed",
    "neither": "the whole prompt, with all concepts' weights merged",
    "plain": "one prompt that names all concepts, no boxes",
}
"""What ``--rivals`` may name, each with what it is."""
ALONE = "alone"
"""Each region drawn with no other in the layout: what its concept reaches at that place and size."""
SINGLE = "single"
"""Each region's prompt as a picture of its own, of its box's shape, made as large as the box: no layout at all."""
BASE = "base"
"""The layout with class nouns in the concepts' places: what the base draws there by itself."""


def check_rivals(wanted: Sequence[str]) -> tuple[str, ...]:
    """The rivals, each once.

    Raises:
        CidmError: USAGE for one that there is not.
    """
    unknown = [name for name in wanted if name not in RIVALS]
    if unknown or not wanted:
        raise CidmError(
            f"--rivals {','.join(wanted)}: {unknown[0] if unknown else 'nothing'} is not a way of drawing a layout",
            hint=f"they are {', '.join(RIVALS)}",
            code=ExitCode.USAGE,
        )
    return tuple(dict.fromkeys(wanted))


def only(layout: Layout, region: int) -> Layout:
    """The same layout with one of its regions."""
    return layout.model_copy(update={"regions": (layout.regions[region],)})


def unlearned(layout: Layout, nouns: Mapping[str, str]) -> Layout:
    """The same layout with class nouns, by concept key, in the concepts' places."""
    return layout.said(lambda text: with_nouns(text, nouns))


def in_one_prompt(layout: Layout, nouns: Mapping[str, str]) -> str:
    """The prompt that says what the layout says, but for where: every region's concepts named in the whole prompt.

    A concept takes the place of its class noun, in the order of the regions ("a dog and a cat in a room" becomes
    "a <rex> and a <tom> in a room"). Where the whole prompt lacks a noun, the regions' prompts are put before it.
    """
    whole = layout.base.prompt
    for name in [name for region in layout.regions for name in parse_prompt(region.prompt).names]:
        if canonical_key(name) in {canonical_key(other) for other in parse_prompt(whole).names}:
            continue
        named = _naming(whole, nouns[canonical_key(name)], name)
        if named is None:
            return f"{_joined([region.prompt for region in layout.regions])}, {layout.base.prompt}"
        whole = named
    return whole


def _naming(prompt: str, noun: str, name: str) -> str | None:
    """The prompt with the first plain mention of a class noun replaced by its concept; None where there is none."""
    mark = f"<{name}>"
    pieces = []
    found = False
    for piece in _MENTION.split(prompt):
        plain = unicodedata.normalize("NFC", piece)
        replaced = (
            plain if found or not piece or _MENTION.fullmatch(piece) else replace_noun(plain, noun, mark)
        )
        # The latter: it leads where the noun does not occur.
        found = found or replaced not in (plain, f"{mark}, {plain}")
        pieces.append(replaced if found else plain)
    return "".join(pieces) if found else None


def _joined(prompts: Sequence[str]) -> str:
    """ "a photo of a <rex>", "a photo of a <tom>": "a photo of a <rex> and a <tom>"."""
    opening = re.match(r"(?:an? [\w ]+ of )", prompts[0]) if prompts else None
    said = opening.group() if opening else ""
    return " and ".join([*prompts[:1], *(prompt.removeprefix(said) for prompt in prompts[1:])])


def with_nouns(prompt: str, nouns: Mapping[str, str]) -> str:
    """The prompt with class nouns, by concept key, in the concepts' places; others stay."""
    return parse_prompt(prompt).exchanged(lambda name: nouns.get(canonical_key(name)))
