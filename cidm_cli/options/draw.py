"""What a user may set for drawing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le, Lt

from ..bases import family
from ..errors import CidmError, ExitCode
from .declared import Asked, Count, Form, Group, Offered, Short, Shown, Weight, Written, settled, usage
from .prompts import parse_prompt

DrawMethod = Literal[
    "auto", "named", "sharp", "official", "paper", "mean", "sum", "latest", "lora-c", "lora-switch", "rows", "cells",
    "found",
]  # fmt: skip
DRAW_METHODS = get_args(DrawMethod)
"""What ``--method`` of drawing may be; docs/aggregation.md says what each does."""
ONE_AT_A_TIME = ("lora-c", "lora-switch")
"""Methods of drawing that never merge: one concept's LoRA at a time is in the weights."""
APART = ("rows", "cells", "found")
"""Methods of drawing that keep several named concepts of one prompt apart; one concept is drawn as by "named"."""
POWERS = {"sharp": 16.0, "official": 4.0}
"""Exponents where none is given: one that leaves unnamed concepts next to nothing, and the published code's."""


_RUN = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")
MAX_SEEDS = 10_000
"""Of a run."""


def read_size(value: str) -> tuple[int, int]:
    """A width and height as they are written. Raises CidmError USAGE for another text."""
    width, cross, height = value.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and len(value) < 12):
        raise CidmError(
            f"--size {value}: not WIDTHxHEIGHT", "write for instance --size 512x768", ExitCode.USAGE
        )
    return int(width), int(height)


Size = Annotated[tuple[int, int], Written("WIDTHxHEIGHT", read_size)]


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """Settings of drawing."""

    count: Annotated[Count, Group("Images"), Short("-n")] = 1
    """Images of each prompt."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of the first image; the next ones count up."""
    steps: Annotated[int, Ge(1), Le(1000)]
    """Sampling steps."""
    guidance: Annotated[float, Ge(0), Le(100)]
    """Classifier-free guidance scale."""
    size: Size
    """Width and height in pixels."""
    sampler: Annotated[
        Literal["dpm++", "ddim", "euler", "unipc", "heun"], Shown("dpm++, but euler for transformers")
    ] = "dpm++"
    """Sampler."""
    negative: str = ""
    """Negative prompt: what the image should not show."""
    method: Annotated[DrawMethod, Group("Concepts")] = "auto"
    """How several concepts are combined."""
    power: Weight = 0.0
    """Exponent of the similarities where the method is sharp or official; 0 takes 16 or 4."""
    style_from: Annotated[float, Ge(0), Lt(1), Shown("0, but 0.45 for mini")]
    """Share of the steps, from the noisiest, that draw a style's class noun in its place, so that subjects stay."""
    batch: Annotated[Count, Group("Images")] = 4
    """Images drawn at once, also of several prompts where they have the same weights and settings."""


@dataclass(frozen=True, kw_only=True)
class StructureOptions:
    """The image, what it is, how strongly and when it is followed, and by what; layouts say it themselves."""

    structure: Annotated[Path, Form("IMAGE"), Group("Structure")] | None = None
    """An image whose lines those of --prompt follow."""
    structure_kind: (
        Annotated[str, Form("KIND"), Shown("edge"), Offered(("edge", "scribble", "as-is"))] | None
    ) = None
    """edge, scribble or as-is: what IMAGE is."""
    structure_scale: Annotated[float, Shown("1.0")] | None = None
    """How strongly it is followed, from 0 to 2."""
    structure_from: Annotated[float, Shown("0.0")] | None = None
    """The share of the steps before it is followed."""
    structure_until: Annotated[float, Shown("1.0")] | None = None
    """The share of the steps after which it no longer is."""
    control: Annotated[str, Form("MODEL")] | None = None
    """The ControlNet or T2I-Adapter: a folder, or a name on the hub."""


def read_seeds(value: str) -> tuple[tuple[int, int], ...]:
    """Seeds as they are written, as runs: the first and how many. Raises CidmError USAGE for another text."""
    runs = [_RUN.fullmatch(part.strip()) for part in value.split(",")]
    edges = [(int(run[1]), int(run[2] or run[1])) for run in runs if run]
    if len(edges) < len(runs) or any(not low <= high < low + MAX_SEEDS for low, high in edges):
        rule = f"seeds and runs of up to {MAX_SEEDS}, for instance 1,2,10-13"
        raise usage("seeds", value, rule)
    return tuple((low, high - low + 1) for low, high in edges)


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """How prompts are read; what is drawn says what came of it, not how."""

    literal: Annotated[bool, Group("Prompts")] = False
    """Brackets, BREAK, alternatives and wildcards are plain words; only <name> means something."""
    wildcards: Annotated[Path, Form("FOLDER")] | None = None
    """Folder of wildcard files: __animal__ takes a line of animal.txt, by the image's seed."""
    seeds: Annotated[tuple[tuple[int, int], ...], Written("1,2,10-13", read_seeds)] | None = None
    """An image of each of these seeds, in place of --seed and --count."""


def resolve_draw(asked: Asked, kind: str, pixels: int) -> DrawOptions:
    """What was asked for, with all that is open filled in.

    Args:
        kind: the base's, for the defaults of its family.
        pixels: the base's own image side.

    Raises:
        CidmError: USAGE, naming the option, for a value that cannot be drawn with.
    """
    whole = settled(DrawOptions, asked, {"style_from": 0.0, **family(kind).draw, "size": (pixels, pixels)})
    parse_prompt(whole.negative, "the negative prompt")
    if not family(kind).guided and (whole.negative or whole.guidance != 1):
        name = "negative" if whole.negative else "guidance"
        raise usage(name, getattr(whole, name), "has no meaning on a distilled base, which knows no guidance")
    if whole.seed > 2**63 - whole.count:
        raise usage("seed", whole.seed, "must be at most 2^63 - 1, the last image's, too")
    if whole.power and whole.method not in POWERS:
        raise usage("power", whole.power, f"has no meaning with --method {whole.method}")
    return whole
