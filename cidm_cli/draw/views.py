"""Looking at pictures while they are drawn: what the denoiser is asked at each step, and what becomes of its answers.

Every picture of a batch is looked at in several *views*: under the negative prompt, under the whole prompt with all
regions in their places, and, for the region noise estimates of Eq. 4, under the whole prompt with one region alone.
Views are rows of the denoiser's batch; a picture without regions has the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..method import regions as method
from ..models import sampling, structure
from ..models.base import Base
from ..models.family import Routing, Rows
from .mixtures import Applied
from .scenes import WHOLE, WITHOUT, Part, Scene, sources_of

CROPS_UNTIL = 0.7
"""The share of the noise levels, from the noisiest, in which crops have a say. What a region shows is settled there;
after it the picture is looked at as a whole, so that what is behind the regions joins up."""

Window = structure.Window


@dataclass(frozen=True)
class View:
    """One look at a picture: a row of the denoiser's batch."""

    source: int
    """Of the whole view, counted from the picture's first."""
    regions: tuple[int, ...] = ()
    """Those that are drawn in their places."""
    window: Window | None = None
    """The part of the latents that is looked at."""


Row = tuple[View, int]
"""A view of a picture, by its number in the batch."""


@dataclass(frozen=True)
class Group:
    """Views of one size at all pictures of a batch: a row for each view and picture, in this order."""

    views: tuple[View, ...]
    chunks: tuple[tuple[Any, structure.Condition | None], ...]
    """The rows in as many parts as fit in memory, each with the structure it follows."""
    most: int
    """Rows of each of these but the last."""


@torch.no_grad()
def estimate(base: Base, scene: Scene, batch: Sequence[Part], weights: Applied) -> sampling.Estimate:
    """What the sampler follows for a batch of pictures: E of Eq. 4 or, composed with every E_u, E_* of Eq. 5.

    A crop follows the part of the structure that lies in it.
    """
    # A base that knows no guidance is asked with the prompts alone.
    looks = [pair if base.family.guided else pair[1:] for pair in _pairs(base, scene)]
    starts = scene.starts(batch)
    parts = _groups(base, scene, _views(looks), starts)
    last = base.scheduler_config.get("num_train_timesteps", 1000) * (1 - CROPS_UNTIL) if scene.crops else 0
    joined = _groups(base, scene, _views(looks[:1]), starts) if last else parts
    led = scene.guide.steps if scene.guide else ()
    early: dict[int, bool] = {}
    every = range(len(scene.masks))
    job, guidance = scene.jobs[0], scene.options.guidance
    if job.ablation.form == "paper":
        shares = method.in_cells(scene.masks, torch.zeros_like(scene.soft), scene.cells)
    else:
        shares = scene.shares(scene.cells, every)
    if shares.ndim > 3:
        shares = shares[:, :, None]
    shares = shares.to(base.device)

    def follow(latents: torch.Tensor, t: torch.Tensor, step: int) -> torch.Tensor:
        seen: dict[View, torch.Tensor] = {}
        # As the step began: a sampler may look again, at less noise, before it ends.
        crops = early.setdefault(step, not last or float(t) >= last)
        for group in parts if crops else joined:
            seen |= _seen(base, scene, group, latents, t, partial(weights.evaluate, base, step), step in led)
        whole, *regions = (
            _placed(_guided([seen[view] for view in some], guidance), some[-1].window, latents)
            for some in (looks if crops else looks[:1])
        )
        if not regions:
            return whole
        return method.composed(whole, torch.stack(regions), shares, scene.alpha, job.ablation.form)

    return follow


def _pairs(base: Base, scene: Scene) -> list[tuple[View, View]]:
    """The views without and with the prompt: of the whole picture, then of each region with an estimate of its own."""
    attention, every = scene.jobs[0].ablation.attention, tuple(range(len(scene.masks)))
    shown = every if attention else ()
    pairs = [(View(WITHOUT, shown), View(WHOLE, shown))]
    if scene.fast or not scene.jobs[0].ablation.noise:
        return pairs
    for region in every:
        without, given = sources_of(region)
        if scene.crops:
            window = _window(base, scene.drawn(scene.cells)[region])
            pairs.append((View(without, window=window), View(given, window=window)))
        elif attention:
            pairs.append((View(WITHOUT, every), View(WHOLE, (region,))))
        else:
            pairs.append((View(without), View(given)))
    return pairs


def _views(looks: Sequence[Sequence[View]]) -> Iterable[View]:
    """Each once."""
    return dict.fromkeys(view for some in looks for view in some)


def _guided(predicted: Sequence[torch.Tensor], guidance: float) -> torch.Tensor:
    """Eq. 4 of a prediction without the prompt and one with it; of one alone, that one."""
    *without, given = predicted
    return method.region_estimate(without[0], given, guidance) if without else given


def _window(base: Base, drawn: torch.Tensor) -> Window:
    """The part of the latents around a region [h, w], in a size that the base can take.

    No smaller than half of what the base was trained on, where the picture allows: of less it makes nothing.
    """
    multiple = base.multiple // base.factor
    least = base.pixels // base.factor // 2
    edges = []
    for across in (0, 1):
        held = drawn.amax(across).nonzero().flatten()
        low, high, whole = int(held[0]), int(held[-1]) + 1, drawn.shape[1 - across]
        side = min(-(-max(high - low, least) // multiple) * multiple, whole)
        start = min(max((low + high - side) // 2, 0), whole - side)
        edges.append((start, start + side))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def _groups(base: Base, scene: Scene, views: Iterable[View], starts: Sequence[int]) -> list[Group]:
    by_size: dict[tuple[int, int], list[View]] = {}
    for view in views:
        x0, y0, x1, y1 = view.window or (0, 0, *scene.cells)
        by_size.setdefault((x1 - x0, y1 - y0), []).append(view)
    # No more rows at once than a batch of ordinary prompts has.
    most = 2 * scene.options.batch
    groups = []
    for size, some in by_size.items():
        rows = [(view, picture) for view in some for picture in range(len(starts))]
        parts = [rows[first : first + most] for first in range(0, len(rows), most)]
        chunks = [
            (
                scene.way.arranged(base, scene.cache, _rows(scene, part, starts), size),
                _followed(base, scene, part, starts),
            )
            for part in parts
        ]
        groups.append(Group(tuple(some), tuple(chunks), most))
    return groups


def _followed(
    base: Base, scene: Scene, rows: Sequence[Row], starts: Sequence[int]
) -> structure.Condition | None:
    if scene.guide is None or scene.heard is None:
        return None
    texts = scene.heard[[starts[picture] + view.source for view, picture in rows]]
    return structure.condition(base, scene.guide, texts, [view.window for view, _ in rows])


def _rows(scene: Scene, rows: Sequence[Row], starts: Sequence[int]) -> Rows:
    """What each row's parts are drawn from, as the attention wants to know it."""
    views = [view for view, _ in rows]
    here = {(view, region): sources_of(region)[view.source % 2] for view in views for region in view.regions}
    patches = tuple(sorted({s for (_, u), s in here.items() if s % 2 or scene.own_without[u]}))

    def weights(grid: tuple[int, int]) -> torch.Tensor:
        out = torch.zeros(len(patches), len(views), grid[1], grid[0])
        shares = {view: scene.shares(grid, view.regions) for view in set(views)}
        for row, (view, picture) in enumerate(rows):
            for region, share in zip(view.regions, shares[view], strict=True):
                if here[view, region] in patches:
                    own = share if share.ndim == 2 else share[picture]
                    out[patches.index(here[view, region]), row] = own
        return out

    routing = None
    if scene.decide:
        told = {picture: row for row, (view, picture) in enumerate(rows) if view.source == WHOLE}
        routing = Routing(tuple(told[picture] for _, picture in rows), scene.decide)
    return Rows(tuple(starts[picture] + view.source for view, picture in rows), patches, weights, routing)


def _seen(
    base: Base,
    scene: Scene,
    group: Group,
    latents: torch.Tensor,
    t: torch.Tensor,
    evaluate: Callable[[Callable[[], torch.Tensor]], torch.Tensor],
    led: bool,
) -> dict[View, torch.Tensor]:
    """What is predicted in each view of all pictures [pictures, channels, h, w]; if ``led``, by the structure."""
    parts = torch.cat([_part(latents, view.window) for view in group.views]).split(group.most)
    found = [
        evaluate(partial(scene.way.predict, base, part, t, chunk, followed if led else None))
        for part, (chunk, followed) in zip(parts, group.chunks, strict=True)
    ]
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
