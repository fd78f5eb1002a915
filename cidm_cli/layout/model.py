"""A layout as checked values. Whatever exists as a `Layout` can be drawn, but for concepts not yet learned.

Coordinates run from the top left corner, x to the right and y down. They are shares of the picture's width
and height (`units = "relative"`) or pixels of it (`units = "pixel"`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tomlkit
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    Strict,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cidm_cli.errors import CidmError

from ..files.toml_files import KeyPath
from ..options.prompts import parse_prompt

Part = TypeVar("Part", "Base", "Region")

FORMAT_VERSION = 1
OTHER_VERSION = (f"is not {FORMAT_VERSION}, the one this program reads", "a newer cidm may read it")
MAX_SIDE = 4096
SIDE_STEP = 8
"""Pixels of a latent cell: no base draws sides that are no multiple of it."""
SIDE_FITTING = 64
"""Multiples of it are drawn by every base of Stable Diffusion's shape: its UNet halves latents up to three times."""
MAX_REGIONS = 100
MAX_PROMPT = 2000
MAX_NAME = 300
"""Characters of what names a model."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 with x0 < x1 and y0 < y1"""


@dataclass(frozen=True)
class Origin:
    """Where a layout was read, for messages. It is no part of the layout: two that differ in it are equal."""

    source: str = field(default="layout", compare=False)
    lines: dict[KeyPath, int] = field(default_factory=dict, compare=False)
    overridden: tuple[KeyPath, ...] = field(default=(), compare=False)
    """the keys that were set from outside the file"""

    def place(self, path: KeyPath) -> str:
        """Where the key `path`, or what it would stand in, comes from: "file:line" or "--set key"."""
        for depth in range(len(path), 0, -1):
            if path[:depth] in self.overridden:
                return f"--set {shown_key(path[:depth])}"
        if path not in self.lines:
            # A table that stands nowhere in the file came into being for a key in it.
            for key in self.overridden:
                if key[: len(path)] == path:
                    return f"--set {shown_key(key)}"
        line = self.line(path)
        return f"{self.source}:{line}" if line else self.source

    def line(self, path: KeyPath) -> int:
        """The line of the key `path` or of what it would stand in; 0 if the file holds neither."""
        return next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), 0)


def shown_key(path: KeyPath) -> str:
    """A key as `--set` takes it: region.0.box. Whatever a file calls its keys, it stays a short line."""
    shown = ".".join(part if isinstance(part, str) and part.isprintable() else repr(part) for part in path)
    return shown if len(shown) <= 80 else shown[:79] + "…"


def problem(path: KeyPath, message: str, hint: str = "") -> NoReturn:
    """Refuse the value at `path`, counted from the table in which the check stands."""
    context = {"message": message, "hint": hint, "path": path}
    raise PydanticCustomError("layout", "{message}", context)


def _prompt(text: str) -> str:
    if not text.strip():
        problem((), "is empty", "say what to draw")
    return _readable(text)


def _readable(text: str) -> str:
    try:
        parse_prompt(text)
    except CidmError as error:
        problem((), f"cannot be read: {error}", error.hint or "")
    return text


def _side(pixels: int) -> int:
    if pixels % SIDE_STEP:
        problem(
            (), f"is {pixels}, which is no multiple of {SIDE_STEP}", f"try {fitting(pixels, SIDE_FITTING)}"
        )
    return pixels


def fitting(pixels: int, multiple: int) -> int:
    """The multiple nearest to a side that a picture can have."""
    return min(max(round(pixels / multiple), 1), MAX_SIDE // multiple) * multiple


def _mask_path(name: str) -> str:
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if windows.anchor or posix.anchor or ".." in windows.parts or not name.isprintable() or not name.strip():
        problem((), "must be the name of a file in or under the layout's own folder", "")
    return name


def _model_name(name: str) -> str:
    if not name.strip() or not name.isprintable():
        problem((), "must be a folder, or OWNER/NAME of a model on the hub", "")
    return name


def _list_of(count: int, names: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != count:
            problem((), f"must be a list of {count} numbers: {names}")
        return tuple(value)

    return BeforeValidator(check)


def _ordered(box: Box) -> Box:
    x0, y0, x1, y1 = box
    for low, high, names in ((x0, x1, "x0, x1"), (y0, y1, "y0, y1")):
        if low == high:
            problem((), f"is empty: {names} are both {low:g}")
        if low > high:
            problem((), f"is inverted: {names} are {low:g}, {high:g}", "write the left or upper edge first")
    return box


Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Whole = Annotated[int, Strict()]
Text = Annotated[str, Strict(), Field(max_length=MAX_PROMPT)]
NegativeText = Annotated[Text, AfterValidator(_readable)]
PromptText = Annotated[Text, AfterValidator(_prompt)]
Seed = Annotated[Whole, Field(ge=0, le=2**63 - 1)]
Side = Annotated[Whole, Field(ge=1, le=MAX_SIDE), AfterValidator(_side)]
BoxValue = Annotated[
    tuple[Number, Number, Number, Number], _list_of(4, "[x0, y0, x1, y1]"), AfterValidator(_ordered)
]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageSettings(_Table):
    """`[image]`: how the picture is drawn."""

    size: Annotated[tuple[Side, Side], _list_of(2, "[width, height]")] | None = None
    """width, height in pixels; None: the base's own"""
    seed: Seed | None = None
    """None: that of the command line, else 0"""
    steps: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    """denoising steps; None: the base's own default"""
    guidance: Annotated[Number, Field(ge=0, le=100)] | None = None
    """how strongly the prompt pulls; 1 is no guidance; None: the base's own default"""
    count: Annotated[Whole, Field(ge=1, le=1000)] = 1
    """pictures to draw"""
    units: Literal["relative", "pixel"] = "relative"
    """of boxes and feathers"""
    overlap: Literal["average", "priority"] = "average"
    """where boxes overlap: the mean of them, or the later one alone"""
    mode: Literal["full", "fast"] = "full"
    """noise estimates of every region (Eq. 4 and 5), or regional attention alone"""
    crops: Annotated[bool, Strict()] | None = None
    """whether each region's noise estimate is made on the part of the picture around it, in mode "full"; None: in
    pictures larger than the base's own"""


class Base(_Table):
    """`[base]`: the whole picture."""

    prompt: PromptText
    negative: NegativeText = ""
    """what to keep away from; may name concepts, as a prompt does"""
    alpha: Annotated[Number, Field(ge=0, le=1)] = 0.1
    """Eq. 5: the share of the whole picture's prompt inside the boxes"""


class Region(_Table):
    """One `[[region]]`: a prompt for a part of the picture, given by a box, a mask or both."""

    prompt: PromptText
    box: BoxValue | None = None
    """in `image.units`; None: the mask alone says where"""
    mask: Annotated[Text, AfterValidator(_mask_path)] | None = None
    """a grey picture, white where the region is; its file lies in or under the layout's folder"""
    negative: NegativeText | None = None
    """None: that of `[base]`"""
    strength: Annotated[Number, Field(ge=0, le=4)] = 1.0
    """scale of the concepts' weights in this region"""
    seed: Seed | None = None
    """None: that of `[image]`"""
    feather: Annotated[Number, Field(ge=0)] = 0.0
    """width of the box's soft edge in `image.units`; relative to the shorter side"""


class Structure(_Table):
    """`[structure]`: a picture whose lines the drawn one follows."""

    image: Annotated[Text, AfterValidator(_mask_path)]
    """its file lies in or under the layout's folder"""
    kind: Literal["edge", "scribble", "as-is"] = "edge"
    """an ordinary picture, of which the edges are taken; a drawing of lines; or what the model wants already"""
    scale: Annotated[Number, Field(ge=0, le=2)] = 1.0
    """how strongly it is followed"""
    start: Annotated[Number, Field(ge=0, le=1, alias="from")] = 0.0
    """the share of the steps before it is followed"""
    until: Annotated[Number, Field(ge=0, le=1)] = 1.0
    """the share of the steps after which it no longer is"""
    model: Annotated[Text, Field(max_length=MAX_NAME), AfterValidator(_model_name)] | None = None
    """a ControlNet or T2I-Adapter: a folder, counted from the layout's own, or a name on the hub; None: that of
    `--control` or of the settings"""

    @model_validator(mode="after")
    def _check_share(self) -> Structure:
        if self.start >= self.until:
            problem(("from",), f"is {self.start:g}, which is not before until, {self.until:g}")
        return self


class Layout(_Table):
    """A checked layout file. Raises pydantic.ValidationError if constructed from values that are not."""

    version: Whole = FORMAT_VERSION
    image: ImageSettings = ImageSettings()
    base: Base
    structure: Structure | None = None
    regions: Annotated[tuple[Region, ...], Field(alias="region", max_length=MAX_REGIONS)] = ()
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @model_validator(mode="after")
    def _check_together(self) -> Layout:
        if self.version != FORMAT_VERSION:
            problem(("version",), *OTHER_VERSION)
        for fault in faults_together(self.image, enumerate(self.regions)):
            problem(fault.path, fault.message, fault.hint)
        return self

    @property
    def origin(self) -> Origin:
        """Where the layout was read."""
        return self._origin

    def relative_box(self, region: Region) -> Box | None:
        """The box of a region as shares of the picture's width and height, whatever its units."""
        if region.box is None or self.image.units == "relative" or self.image.size is None:
            return region.box
        (width, height), (x0, y0, x1, y1) = self.image.size, region.box
        return x0 / width, y0 / height, x1 / width, y1 / height

    def said(self, change: Callable[[str], str]) -> Layout:
        """The same layout with every prompt and negative prompt of it changed."""

        def part(one: Part) -> Part:
            texts = {"prompt": one.prompt, "negative": one.negative}
            return one.model_copy(
                update={key: change(text) for key, text in texts.items() if text is not None}
            )

        regions = tuple(part(region) for region in self.regions)
        return self.model_copy(update={"base": part(self.base), "regions": regions})

    def to_toml(self) -> str:
        """The layout as a file that `load_layout` reads back as an equal layout.

        Defaults are written out, so that the file means the same to a later version with other defaults. A
        size or seed that is None stays out: whoever draws fills them in first, to make the same picture again.
        """
        return tomlkit.dumps(self.model_dump(by_alias=True, exclude_none=True))


@dataclass(frozen=True)
class Fault:
    """What is wrong with the value at a key."""

    path: KeyPath
    message: str
    """goes on after the key's name: "is inverted: …" """
    hint: str = ""


def faults_together(image: ImageSettings, regions: Iterable[tuple[int, Region]]) -> Iterator[Fault]:
    """What is wrong with regions, given by their place in the file, in the picture they stand in."""
    if image.units == "relative":
        size = (1.0, 1.0)
    elif image.size is not None:
        size = (float(image.size[0]), float(image.size[1]))
    else:
        if any(True for _ in regions):
            hint = "write size = [width, height]"
            yield Fault(("image", "units"), 'is "pixel", which needs image.size', hint)
        return
    for index, region in regions:
        path: KeyPath = ("region", index)
        if region.box is None and region.mask is None:
            yield Fault(path, "has neither box nor mask", "write box = [x0, y0, x1, y1]")
        if region.box is not None:
            yield from _faults_of_box(region.box, size, (*path, "box"))
        elif region.feather and region.mask is not None:
            hint = "soften the mask itself, or give a box too"
            yield Fault((*path, "feather"), "needs a box: a mask has edges of its own", hint)
        if region.feather > min(size) / 2:
            message = f"is {region.feather:g}, more than half of the image's shorter side"
            yield Fault((*path, "feather"), message)


def thin_regions(layout: Layout, cells: tuple[int, int]) -> tuple[int, ...]:
    """Indices of the regions whose box holds the centre of no cell of an attention map of `cells`
    (across, down): at that map's layers such a region has no effect.
    """
    boxes = [layout.relative_box(region) for region in layout.regions]
    return tuple(
        index
        for index, box in enumerate(boxes)
        if box is not None
        and not (_holds_centre(box[0], box[2], cells[0]) and _holds_centre(box[1], box[3], cells[1]))
    )


def _holds_centre(low: float, high: float, cells: int) -> bool:
    return any(low <= (cell + 0.5) / cells < high for cell in range(cells))


def _faults_of_box(box: Box, size: tuple[float, float], path: KeyPath) -> Iterator[Fault]:
    x0, y0, x1, y1 = box
    if min(x0, y0) >= 0 and x1 <= size[0] and y1 <= size[1]:
        return
    hint = ""
    if size == (1.0, 1.0) and max(box) > 2:
        hint = 'for pixels, write units = "pixel" under [image]'
    shown = ", ".join(f"{edge:g}" for edge in box)
    message = f"[{shown}] leaves the image, which is {size[0]:g} wide and {size[1]:g} high"
    yield Fault(path, message, hint)
