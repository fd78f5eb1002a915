"""Drawing layouts: each region's prompt with its own concepts' weights in its own part of the picture.

Every picture of a batch is looked at in several *views*: under the negative prompt, under the whole prompt with all
regions in their places, and, for the region noise estimates of Eq. 4, under the whole prompt with one region alone.
Views are rows of the UNet's batch. Nothing is merged into the base's weights: the whole prompt's concepts are drawn
where no region is, a region's concepts in the region, and neither sees the other's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cidm_registry import Record

from ..errors import CidmError, ExitCode
from ..layout import Layout, thin_regions
from ..layout.masks import mask_folder, read_mask
from ..method import regions as method
from ..models import regional, sampling, text
from ..models.attention import cross_attention_layers
from ..models.base import Base
from ..options import DrawOptions
from .mixtures import ONE_AT_A_TIME, Loader, Mixture, factors, mixture, nouns, prompt_tokens

WITHOUT, WHOLE = 0, 1
"""Sources of the whole picture: its negative prompt and its prompt. A region's follow, in the same order."""

FORMS = ("corrected", "paper")
"""Of Eq. 5."""

Window = tuple[int, int, int, int]
"""Cells x0, y0, x1, y1 of the latents, the last two outside."""


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
class Chosen:
    """What pictures are drawn with."""

    whole: Mixture
    """By the whole prompt."""
    regions: tuple[Mixture, ...] = ()
    """By each region's own prompt."""
    masks: tuple[Mask | None, ...] = ()
    """Of each region."""


@dataclass(frozen=True)
class Scene:
    """A layout ready to be drawn: all that does not depend on the seeds."""

    layout: Layout
    options: DrawOptions
    ablation: Ablation
    cache: regional.Cache
    masks: torch.Tensor
    """[regions, h, w], how much of each cell of the latents each region holds"""
    soft: torch.Tensor
    """[regions], whether its edges are soft"""
    own_without: tuple[bool, ...]
    """Of each region, whether without its prompt it is drawn otherwise than the whole picture is without its own."""

    @property
    def cells(self) -> tuple[int, int]:
        """Width and height of the latents."""
        return self.masks.shape[2], self.masks.shape[1]

    def drawn(self, grid: tuple[int, int]) -> torch.Tensor:
        """How much each region is drawn in each cell of a grid (width, height), [regions, h, w]."""
        return method.in_cells(self.masks, self.soft, grid)

    def shares(self, grid: tuple[int, int], regions: Sequence[int]) -> torch.Tensor:
        """The shares of some regions, as if there were no others, [regions, h, w]."""
        return method.shares(self.drawn(grid)[list(regions)], self.layout.image.overlap)


@dataclass(frozen=True)
class View:
    """One look at a picture: a row of the UNet's batch."""

    source: int
    """Of the whole view."""
    regions: tuple[int, ...] = ()
    """Those that are drawn in their places."""
    window: Window | None = None
    """The part of the latents that is looked at."""


@dataclass(frozen=True)
class Group:
    """Views of one size at all pictures of a batch: a row for each view and picture, in this order."""

    views: tuple[View, ...]
    chunks: tuple[regional.Arranged, ...]
    """The rows in as many parts as fit in memory."""


def check(layout: Layout, options: DrawOptions) -> tuple[Mask | None, ...]:
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
    return masks_of(layout)


def masks_of(layout: Layout) -> tuple[Mask | None, ...]:
    """Of each region. Raises CidmError, with the place in the layout, for one that cannot be used."""
    folder = mask_folder(layout)
    out: list[Mask | None] = []
    for index, region in enumerate(layout.regions):
        if region.mask is None:
            out.append(None)
            continue
        image = read_mask(layout, index, folder)
        digest = hashlib.sha256(f"{image.width} {image.height} ".encode() + image.tobytes()).hexdigest()
        out.append(Mask((folder / region.mask).resolve(), digest, image))
    return tuple(out)


def choose(
    base: Base, load: Loader, records: Sequence[Record], layout: Layout, options: DrawOptions
) -> Chosen:
    """What a layout is drawn with, given the concepts there are: each region by its own prompt.

    Raises:
        CidmError: as `check` and `mixture` do.
    """
    masks = check(layout, options)
    whole, *regions = (
        mixture(base, load, records, prompt, options)
        for prompt in (layout.base.prompt, *(region.prompt for region in layout.regions))
    )
    return Chosen(whole, tuple(regions), masks)


@torch.no_grad()
def prepare(
    base: Base,
    layout: Layout,
    options: DrawOptions,
    chosen: Chosen,
    load: Loader,
    ablation: Ablation,
    on_note: Callable[[str], None] = lambda note: None,
) -> Scene:
    """A layout ready to be drawn in the size of ``options``; mixtures that use no concept draw the base's weights.

    Raises:
        CidmError: USAGE when a prompt is so long that a concept in it is cut off; INVALID for a region of which box
            and mask leave nothing.
    """
    assert options.size
    width, height = (side // base.factor for side in options.size)
    source = partial(_sources, base, load, on_note)
    sources = source(layout.base.prompt, options.negative, chosen.whole)
    own_without = []
    for region, mix in zip(layout.regions, chosen.regions, strict=True):
        negative = options.negative if region.negative is None else region.negative
        sources += source(region.prompt, negative, mix, region.strength)
        changed = sources[WHOLE].factors or sources[-1].factors
        own_without.append(bool(changed) or negative != options.negative)
    masks = [_mask(layout, index, mask, options.size) for index, mask in enumerate(chosen.masks)]
    _warn_of_thin(base, layout, (width, height), on_note)
    return Scene(
        layout, options, ablation, regional.cached(base, sources),
        torch.stack([method.coarse(mask, (width, height)) for mask in masks]),
        torch.tensor([bool(region.feather or region.mask) for region in layout.regions]), tuple(own_without),
    )  # fmt: skip


def noise(base: Base, scene: Scene, seeds: Sequence[int]) -> torch.Tensor:
    """The latents to start from, one a seed; a region with a seed of its own starts alike in all of them."""
    assert scene.options.size
    whole = sampling.initial_noise(base, seeds, scene.options.size)
    own = {u: region.seed for u, region in enumerate(scene.layout.regions) if region.seed is not None}
    if not own:
        return whole
    noises = sampling.initial_noise(base, list(own.values()), scene.options.size)[:, None]
    shares = scene.shares(scene.cells, range(len(scene.masks)))[list(own)]
    return method.mixed_noise(whole, noises, shares)


@torch.no_grad()
def estimate(base: Base, scene: Scene, pictures: int) -> sampling.Estimate:
    """What the sampler follows for a batch of pictures: E of Eq. 4 or, composed with every E_u, E_* of Eq. 5."""
    pairs = _pairs(base, scene)
    groups = _groups(base, scene, dict.fromkeys(view for pair in pairs for view in pair), pictures)
    every = range(len(scene.masks))
    form, guidance = scene.ablation.form, scene.options.guidance
    assert guidance is not None
    if form == "paper":
        shares = method.in_cells(scene.masks, torch.zeros_like(scene.soft), scene.cells)
    else:
        shares = scene.shares(scene.cells, every)
    shares = shares.to(base.device)

    def follow(latents: torch.Tensor, t: torch.Tensor, number: int) -> torch.Tensor:
        seen: dict[View, torch.Tensor] = {}
        for group in groups:
            seen |= _seen(base, group, latents, t)
        whole, *regions = (
            _placed(method.region_estimate(seen[without], seen[given], guidance), given.window, latents)
            for without, given in pairs
        )
        if not regions:
            return whole
        return method.composed(whole, torch.stack(regions), shares, scene.layout.base.alpha, form)

    return follow


def _sources(
    base: Base,
    load: Loader,
    on_note: Callable[[str], None],
    prompt: str,
    negative: str,
    chosen: Mixture,
    strength: float = 1.0,
) -> list[regional.Source]:
    """What a prompt's part of the picture is drawn from, without the prompt and with it."""
    layers = len(cross_attention_layers(base.unet))
    vectors = {record.key: load(record).tokens for record in chosen.named}
    changes = factors(base, chosen, load, strength)
    both = [
        text.tokenize(base.tokenizer, [negative]),
        prompt_tokens(base, prompt, vectors, on_note, nouns=nouns(chosen.named)),
    ]
    wholes = text.pooled(base, both)
    return [
        regional.Source(
            [context[0] for context in text.encode(base, [tokens], vectors, layers=layers)], changes,
            None if wholes is None else wholes[number],
        )
        for number, tokens in enumerate(both)
    ]  # fmt: skip


def _mask(layout: Layout, index: int, file: Mask | None, size: tuple[int, int]) -> torch.Tensor:
    """How much of each pixel a region holds, [height, width]: the product of its box and its mask."""
    region = layout.regions[index]
    mask = torch.ones(size[1], size[0])
    box = layout.relative_box(region)
    if box is not None:
        unit = min(layout.image.size) if layout.image.size and layout.image.units == "pixel" else 1
        mask = method.box_mask(box, size, region.feather / unit * min(size))
    if file is not None:
        image = file.image.resize(size, Image.Resampling.BILINEAR)
        mask = mask * torch.from_numpy(np.array(image)).float() / 255
    if not mask.any():
        raise CidmError(
            f"{layout.origin.place(('region', index, 'mask'))}: region.{index}.mask is black all over the box",
            hint="move the box, or paint white where the region is",
            code=ExitCode.INVALID,
        )
    return mask


def _warn_of_thin(base: Base, layout: Layout, cells: tuple[int, int], on_note: Callable[[str], None]) -> None:
    across, down = regional.grids(base.unet, cells)[-1]
    for index in thin_regions(layout, (across, down)):
        on_note(
            f"{layout.origin.place(('region', index, 'box'))}: region.{index}.box is thinner than a cell of the base's "
            f"coarsest attention map ({across} x {down} cells): there it takes the one cell it holds most of"
        )


def _pairs(base: Base, scene: Scene) -> list[tuple[View, View]]:
    """The views without and with the prompt: of the whole picture, then of each region with an estimate of its own."""
    attention, every = scene.ablation.attention, tuple(range(len(scene.masks)))
    shown = every if attention else ()
    pairs = [(View(WITHOUT, shown), View(WHOLE, shown))]
    if scene.layout.image.mode == "fast" or not scene.ablation.noise:
        return pairs
    for region in every:
        without, given = _sources_of(region)
        if scene.layout.image.crops:
            window = _window(base, scene.drawn(scene.cells)[region])
            pairs.append((View(without, window=window), View(given, window=window)))
        elif attention:
            pairs.append((View(WITHOUT, every), View(WHOLE, (region,))))
        else:
            pairs.append((View(without), View(given)))
    return pairs


def _sources_of(region: int) -> tuple[int, int]:
    """Of a region, without its prompt and with it."""
    return 2 + 2 * region, 3 + 2 * region


def _window(base: Base, drawn: torch.Tensor) -> Window:
    """The part of the latents around a region [h, w], in a size that the UNet can halve as often as it does.

    No smaller than half of what the base was trained on, where the picture allows: of less it makes nothing.
    """
    multiple = 2 ** (len(base.unet.config.block_out_channels) - 1)
    least = base.unet.config.sample_size // 2
    edges = []
    for across in (0, 1):
        held = drawn.amax(across).nonzero().flatten()
        low, high, whole = int(held[0]), int(held[-1]) + 1, drawn.shape[1 - across]
        side = min(-(-max(high - low, least) // multiple) * multiple, whole)
        start = min(max((low + high - side) // 2, 0), whole - side)
        edges.append((start, start + side))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def _groups(base: Base, scene: Scene, views: Iterable[View], pictures: int) -> list[Group]:
    by_size: dict[tuple[int, int], list[View]] = {}
    for view in views:
        x0, y0, x1, y1 = view.window or (0, 0, *scene.cells)
        by_size.setdefault((x1 - x0, y1 - y0), []).append(view)
    # No more rows at once than a batch of ordinary prompts has.
    most = 2 * scene.options.batch
    groups = []
    for size, some in by_size.items():
        rows = [view for view in some for _ in range(pictures)]
        parts = [rows[start : start + most] for start in range(0, len(rows), most)]
        chunks = [regional.arranged(base, scene.cache, _rows(scene, part), size) for part in parts]
        groups.append(Group(tuple(some), tuple(chunks)))
    return groups


def _rows(scene: Scene, views: Sequence[View]) -> regional.Rows:
    """What each row's parts are drawn from, as the attention wants to know it."""
    here = {(view, region): _sources_of(region)[view.source % 2] for view in views for region in view.regions}
    patches = tuple(sorted({s for (_, u), s in here.items() if s % 2 or scene.own_without[u]}))

    def weights(grid: tuple[int, int]) -> torch.Tensor:
        out = torch.zeros(len(patches), len(views), grid[1], grid[0])
        shares = {view: scene.shares(grid, view.regions) for view in set(views)}
        for row, view in enumerate(views):
            for region, share in zip(view.regions, shares[view], strict=True):
                if here[view, region] in patches:
                    out[patches.index(here[view, region]), row] = share
        return out

    return regional.Rows(tuple(view.source for view in views), patches, weights)


def _seen(base: Base, group: Group, latents: torch.Tensor, t: torch.Tensor) -> dict[View, torch.Tensor]:
    """The UNet's prediction in each view of all pictures [pictures, channels, h, w]."""
    rows = torch.cat([_part(latents, view.window) for view in group.views])
    parts = rows.split([len(chunk.unread) for chunk in group.chunks])
    found = [regional.predict(base, part, t, chunk) for part, chunk in zip(parts, group.chunks, strict=True)]
    return dict(zip(group.views, torch.cat(found).chunk(len(group.views)), strict=True))


def _part(latents: torch.Tensor, window: Window | None) -> torch.Tensor:
    if window is None:
        return latents
    x0, y0, x1, y1 = window
    return latents[:, :, y0:y1, x0:x1]


def _placed(part: torch.Tensor, window: Window | None, latents: torch.Tensor) -> torch.Tensor:
    """A window's estimate where it belongs, among nothing."""
    if window is None:
        return part
    x0, y0, x1, y1 = window
    whole = torch.zeros_like(latents)
    whole[:, :, y0:y1, x0:x1] = part
    return whole
