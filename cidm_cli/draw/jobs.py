"""What is to be drawn, and what can be refused of it before any model is loaded. No torch: refusing takes no time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..layout import Layout, check_concepts
from ..layout.masks import mask_folder, pixel_digest, read_mask
from ..layout.model import MAX_SIDE, fitting
from ..options.draw import APART, ONE_AT_A_TIME, DrawOptions
from ..options.learn import CARRIED, SUMMED
from ..options.prompts import find_unknown, parse_prompt
from .structure import Followed

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..files.given import Given

FORMS = ("corrected", "paper")
"""Of Eq. 5."""


@dataclass(frozen=True)
class Ablation:
    """What is left out when a layout is drawn, to measure what it is good for; a layout file cannot ask for it."""

    attention: bool = True
    """Regional attention. Without it the whole prompt is attended to everywhere, and so is a region's for its noise
    estimate."""
    noise: bool = True
    """Region noise estimates, Eq. 4 and 5, where the layout's mode has them."""
    form: str = "corrected"
    """Of Eq. 5, one of FORMS: "paper" is as printed."""


COMPLETE = Ablation()
"""Nothing is left out."""


@dataclass(frozen=True)
class Mask:
    """A region's mask file."""

    path: Path
    """Absolute."""
    sha256: str
    """Of its size and pixels."""
    image: Image.Image = field(compare=False)
    """L."""


@dataclass(frozen=True)
class Over:
    """A given picture that a job's are drawn over."""

    given: Given
    image: Image.Image = field(compare=False)
    """What is seen of it, RGB, in the size that is drawn."""
    told: Mapping[str, Any]
    """What pictures tell of it, with the command's own options."""
    finish: Callable[[Image.Image], Image.Image]
    """What a drawn picture becomes, RGB."""
    strength: float
    """How much is drawn anew, from 0 to 1."""
    invert: bool = False
    """Whether the noise is, for the most part, found in the picture; at strength 1 nothing of it is kept anyway."""
    cells: np.ndarray | None = field(default=None, compare=False)
    """Latent cells that are drawn anew, bool [height, width]; else all of them."""


@dataclass(frozen=True)
class Job:
    """One prompt to draw, complete: equal lists of jobs give equal pictures, byte for byte, on one machine."""

    prompt: str
    options: DrawOptions
    layout: Layout | None = None
    """The layout it came from, whose regions are drawn; its masks lie beside its file."""
    ablation: Ablation = COMPLETE
    """What is left out in drawing a layout with regions."""
    structure: Followed | None = None
    """A picture whose lines are followed."""
    over: Over | None = None
    """A picture that is drawn over, in the size of the options; without regions."""

    @property
    def regions(self) -> Layout | None:
        """The layout, where it has regions."""
        return self.layout if self.layout and self.layout.regions else None

    @property
    def parts(self) -> list[tuple[str, DrawOptions]]:
        """Its prompts, each with how it is drawn, by its own negative prompt."""
        parts = [(self.prompt, self.options)]
        for region in self.regions.regions if self.regions else ():
            own = self.options if region.negative is None else replace(self.options, negative=region.negative)
            parts.append((region.prompt, own))
        return parts

    @property
    def names(self) -> list[str]:
        """The names of all concepts that its prompts name."""
        return [name for prompt, _ in self.parts for name in parse_prompt(prompt).names]


def check(registry: Registry, jobs: Sequence[Job]) -> None:
    """Refuses, before any model is loaded, unknown concepts, and prompts and layouts that cannot be drawn.

    Raises:
        CidmError: NOT_FOUND, with a suggestion; what `choose_method` and `check_layout` raise.
    """
    records = registry.records()
    for job in jobs:
        if job.layout:
            check_concepts(job.layout, [record.name for record in records])
        for prompt, options in job.parts:
            named = named_in(records, prompt)
            named_in(records, options.negative, "negative prompt")
            choose_method(options.method, named)
        if job.regions:
            check_layout(job.regions, job.options)


def check_static(registry: Registry, path: Path, names: Iterable[str]) -> None:
    """Refuses, before any model is loaded, concepts whose weights a merged file does not hold.

    Args:
        names: what is to be drawn with it.

    Raises:
        CidmError: NOT_FOUND, naming what the file holds; what ``open_merged`` raises.
    """
    from ..formats.merged import concepts_in, open_merged

    there = concepts_in(open_merged(path).facts)
    weighing = {one.get("blob") for one in there if any(one.get("weights", [1]))}
    for name in names:
        record = registry.get(name)
        if record.blob not in weighing:
            held = ", ".join(f"<{one['name']}>" for one in there) or "no concept that it names"
            version = " as it is now" if any(one["name"] == record.name for one in there) else ""
            raise CidmError(
                f"{path}: holds {held}, and not <{record.name}>{version}",
                f"merge it anew with `cidm merge … {record.name} -o {path.name}`, or leave <{record.name}> out",
                ExitCode.NOT_FOUND,
            )


def named_in(records: Sequence[Record], prompt: str, what: str = "") -> list[Record]:
    """The concepts that a prompt names, of those there are.

    Args:
        what: "negative prompt", where it is that.

    Raises:
        CidmError: NOT_FOUND, with a suggestion, for an unknown one; USAGE for what can be no name.
    """
    named = parse_prompt(prompt, f"the {what}") if what else parse_prompt(prompt)
    if unknown := find_unknown(named, [record.name for record in records]):
        raise CidmError(f"{what}: {unknown}", unknown.hint, unknown.code) if what else unknown
    by_key = {record.key: record for record in records}
    return [by_key[canonical_key(name)] for name in named.names]


def find(registry: Registry, name: str) -> Record:
    """A learned concept, by its name or as a prompt has it. Raises CidmError as `named_in` does."""
    (record,) = named_in(registry.records(), f"<{name.removeprefix('<').removesuffix('>')}>")
    return record


def check_layout(layout: Layout, options: DrawOptions) -> tuple[Mask | None, ...]:
    """Each region's mask; refuses, before any model is loaded, what cannot be drawn.

    Raises:
        CidmError: USAGE for a method that cannot draw regions; what reading a mask raises.
    """
    if options.method in ONE_AT_A_TIME:
        raise CidmError(
            f"--method {options.method}: cannot draw {layout.origin.source}, which has regions",
            hint="it draws one concept at a time; leave --method out",
            code=ExitCode.USAGE,
        )
    if options.method in APART:
        raise CidmError(
            f"--method {options.method}: cannot draw {layout.origin.source}, whose regions say where concepts are",
            hint="leave --method out",
            code=ExitCode.USAGE,
        )
    return masks_of(layout)


def masks_of(layout: Layout, folder: Path | None = None) -> tuple[Mask | None, ...]:
    """Of each region, from the layout's own folder or another.

    Raises CidmError, with the place in the layout, for one that cannot be used.
    """
    folder = mask_folder(layout) if folder is None else folder
    out: list[Mask | None] = []
    for index, region in enumerate(layout.regions):
        if region.mask is None:
            out.append(None)
            continue
        image = read_mask(layout, index, folder)
        out.append(Mask((folder / region.mask).resolve(), pixel_digest(image), image))
    return tuple(out)


def check_size(size: tuple[int, int] | None, multiple: int) -> None:
    """Refuses a size whose latents cannot be halved as often as the base needs them to.

    Args:
        multiple: what sides must be multiples of on the base.

    Raises:
        CidmError: USAGE.
    """
    if size is None:
        return
    if any(type(side) is not int or not multiple <= side <= MAX_SIDE or side % multiple for side in size):
        raise CidmError(
            f"size {size[0]}x{size[1]}: each side must be a multiple of {multiple} up to {MAX_SIDE} on this base",
            hint="try {}x{}".format(*(fitting(side, multiple) for side in size)),
            code=ExitCode.USAGE,
        )


def choose_method(wanted: str, named: Sequence[Record]) -> str:
    """ "auto" is what the named concepts were learned for: "named", or for the baselines their own way.

    Raises:
        CidmError: FAILED when concepts are named that no one method draws.
    """
    if wanted != "auto":
        return wanted
    needs = {
        "latest" if record.method in CARRIED else "sum" if record.method in SUMMED else "named"
        for record in named
    }
    if len(needs) > 1:
        raise CidmError(
            f"concepts {', '.join(f'<{record.name}>' for record in named)}: learned by methods that are drawn in "
            f"different ways ({', '.join(sorted({record.method for record in named}))})",
            hint="name them in separate prompts, or choose a way with --method",
        )
    return needs.pop() if needs else "named"
