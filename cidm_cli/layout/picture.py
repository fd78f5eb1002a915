"""A layout drawn as a picture of its boxes and masks: nothing is generated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from cidm_cli.layout.lettering import Plate, place
from cidm_cli.layout.model import Box, Layout, Region

PIXELS = 1_000_000
MANY = 8
"""Regions above which the picture has twice as many pixels."""
SHORT_SIDE = 256
LARGEST = 4096

PAPER = (246, 246, 243)
RULE = (226, 226, 221)
INK = (32, 32, 32)
COLOURS = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (0, 114, 178), (240, 228, 66),
)  # fmt: skip
"""Okabe and Ito's palette: people with any kind of colour vision can tell these apart. A region has its number too."""

Grid = npt.NDArray[np.float32]

FILL = 0.5
"""Opacity of a region's colour where it is at full strength."""


def draw_layout(layout: Layout, size: tuple[int, int], masks: Mapping[int, Image.Image]) -> Image.Image:
    """The layout as a picture of the aspect of `size` (width, height), of about PIXELS pixels.

    Each region is filled with its colour, fainter where its edge is soft; where regions meet it is hatched, and the
    colours are mixed as the layout's `image.overlap` says. `masks` (mode L) are by the region's index.
    """
    width, height = canvas_size(size, len(layout.regions))
    extents = [
        _extent(layout, index, masks.get(index), (width, height)) for index in range(len(layout.regions))
    ]
    canvas = _paper(width, height)
    canvas = _filled(canvas, layout, masks)
    draw = ImageDraw.Draw(canvas)
    for index, region in enumerate(layout.regions):
        colour = _dark(COLOURS[index % len(COLOURS)])
        if index in masks:
            _mask_outline(canvas, _weight(layout, region, masks[index], (width, height)), colour)
        if region.box is not None:
            soft = _feather(layout, region, (width, height))
            _box_outline(draw, extents[index], colour, soft=soft, dashed=index in masks)
    for plate in place(_plates(layout, extents), (width, height)):
        plate.draw(draw)
    return canvas


def canvas_size(size: tuple[int, int], regions: int) -> tuple[int, int]:
    """Width and height in pixels: the aspect of `size`, large enough to read what is written in it."""
    scale = math.sqrt((PIXELS if regions <= MANY else 2 * PIXELS) / (size[0] * size[1]))
    scale = min(max(scale, SHORT_SIDE / min(size)), LARGEST / max(size))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def where(region: Region) -> str:
    """A region's box and what else it says of itself, in one line."""
    parts = []
    if region.box is not None:
        parts.append("box " + " ".join(f"{edge:.6g}" for edge in region.box))
    if region.mask is not None:
        parts.append(f"mask {region.mask}")
    if region.feather:
        parts.append(f"feather {region.feather:g}")
    if region.strength != 1:
        parts.append(f"strength {region.strength:g}")
    if region.seed is not None:
        parts.append(f"seed {region.seed}")
    return ", ".join(parts)


def _plates(layout: Layout, extents: Sequence[Box]) -> list[Plate]:
    """What is written: small regions first, for they have the fewest places for it; the whole picture last."""
    plates = [
        Plate(str(index), region.prompt, where(region), _dark(COLOURS[index % len(COLOURS)]), extents[index])
        for index, region in enumerate(layout.regions)
    ]
    sizes = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in extents]
    plates = [plates[index] for index in sorted(range(len(plates)), key=sizes.__getitem__)]
    alpha = f"alpha {layout.base.alpha:g}, " if layout.regions else ""
    about = f"whole image: {alpha}overlap {layout.image.overlap}, mode {layout.image.mode}"
    return [*plates, Plate("", layout.base.prompt, about, INK, None)]


def _paper(width: int, height: int) -> Image.Image:
    """Empty paper, with a line at every tenth of the sides."""
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for tenth in range(1, 10):
        draw.line([(width * tenth // 10, 0), (width * tenth // 10, height)], RULE)
        draw.line([(0, height * tenth // 10), (width, height * tenth // 10)], RULE)
    draw.rectangle((0, 0, width - 1, height - 1), outline=(170, 170, 165))
    return canvas


def _filled(canvas: Image.Image, layout: Layout, masks: Mapping[int, Image.Image]) -> Image.Image:
    """One region after the other, so that a hundred of them need no more memory than one."""
    width, height = canvas.size
    colour: Grid = np.zeros((height, width, 3), np.float32)
    cover: Grid = np.zeros((height, width), np.float32)
    regions = np.zeros((height, width), np.uint8)
    for index, region in enumerate(layout.regions):
        weight = _weight(layout, region, masks.get(index), canvas.size)
        own = np.array(COLOURS[index % len(COLOURS)], np.float32)
        if layout.image.overlap == "priority":
            colour *= (1 - weight)[:, :, None]
            cover *= 1 - weight
        colour += weight[:, :, None] * own
        cover += weight
        regions += weight > 0.02
    shares: Grid = np.maximum(cover, np.float32(1))
    colour, cover = colour / shares[:, :, None], cover / shares
    pixels = np.asarray(canvas, np.float32)
    pixels = pixels * (1 - FILL * cover[:, :, None]) + FILL * colour
    rows, columns = np.mgrid[:height, :width]
    hatched = (regions > 1) & ((rows + columns) % 14 < 2)
    pixels[hatched] *= 0.72
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _weight(layout: Layout, region: Region, mask: Image.Image | None, size: tuple[int, int]) -> Grid:
    """How much of each pixel a region holds, [height, width] in 0..1."""
    width, height = size
    weight: Grid = np.ones((height, width), np.float32)
    if (box := layout.relative_box(region)) is not None:
        soft = _feather(layout, region, size)
        across = _ramp(box[0] * width, box[2] * width, width, soft)
        down = _ramp(box[1] * height, box[3] * height, height, soft)
        weight = np.minimum(down[:, None], across[None, :])
    if mask is not None:
        scaled = mask.resize(size, Image.Resampling.BILINEAR)
        weight = weight * (np.asarray(scaled, np.float32) / np.float32(255))
    return weight


def _ramp(low: float, high: float, count: int, soft: float) -> Grid:
    """[count]: 1 between `low` and `high`, rising over `soft` pixels from each; an edge of the picture is sharp."""
    at = np.arange(count, dtype=np.float32) + 0.5
    inside = np.where((at >= low) & (at < high), 1, 0).astype(np.float32)
    if not soft:
        return inside
    left = (at - low) / soft if low > 0 else np.ones_like(at)
    right = (high - at) / soft if high < count else np.ones_like(at)
    return inside * np.minimum(left, right).clip(0, 1)


def _feather(layout: Layout, region: Region, size: tuple[int, int]) -> float:
    """In pixels of the canvas, no more than there is room for."""
    box = layout.relative_box(region)
    if box is None:
        return 0.0
    unit = min(size) if layout.image.units == "relative" else size[0] / (layout.image.size or size)[0]
    room = min((box[2] - box[0]) * size[0], (box[3] - box[1]) * size[1]) / 2
    return min(region.feather * unit, room)


def _extent(layout: Layout, index: int, mask: Image.Image | None, size: tuple[int, int]) -> Box:
    """The part of the canvas that a region lies in, in pixels."""
    width, height = size
    box = layout.relative_box(layout.regions[index])
    if box is None and mask is not None:
        white = mask.point(lambda grey: 255 if grey > 100 else 0).getbbox() or (0, 0, *mask.size)
        box = white[0] / mask.width, white[1] / mask.height, white[2] / mask.width, white[3] / mask.height
    x0, y0, x1, y1 = box or (0.0, 0.0, 1.0, 1.0)
    return x0 * width, y0 * height, x1 * width, y1 * height


def _box_outline(
    draw: ImageDraw.ImageDraw, extent: Box, colour: tuple[int, int, int], *, soft: float, dashed: bool
) -> None:
    x0, y0, x1, y1 = (round(edge) for edge in extent)
    x1, y1 = max(x1 - 1, x0), max(y1 - 1, y0)
    if dashed:
        _dashes(draw, (x0, y0, x1, y1), colour, 2)
    else:
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=3)
    if soft > 4:
        # Where the soft edge ends and the region is at full strength.
        inner = (x0 + round(soft), y0 + round(soft), x1 - round(soft), y1 - round(soft))
        _dashes(draw, inner, colour, 1)


def _dashes(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: tuple[int, int, int], width: int
) -> None:
    x0, y0, x1, y1 = box
    for x in range(x0, x1, 12):
        for y in (y0, y1):
            draw.line([(x, y), (min(x + 6, x1), y)], colour, width)
    for y in range(y0, y1, 12):
        for x in (x0, x1):
            draw.line([(x, y), (x, min(y + 6, y1))], colour, width)


def _mask_outline(canvas: Image.Image, weight: Grid, colour: tuple[int, int, int]) -> None:
    """A line along where the mask, within its box, passes a half."""
    inside = Image.fromarray(((weight >= 0.5) * 255).astype(np.uint8))
    shrunk = inside.filter(ImageFilter.MinFilter(7))
    line = Image.fromarray(np.asarray(inside) - np.asarray(shrunk))
    canvas.paste(colour, mask=line)


def _dark(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Dark enough for white letters on it, and to be seen as a line on paper."""
    red, green, blue = colour
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    factor = min(1.0, 105 / light)
    return round(red * factor), round(green * factor), round(blue * factor)
