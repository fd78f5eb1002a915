"""Regions of a picture: where they are on a grid of cells, and how what is drawn for each is put together.

| symbol | here | shape |
|---|---|---|
| s_u | ``box``: left, upper, right, lower edge as shares of the picture's sides | 4 numbers |
| m_u | ``masks``: how much of each cell region u holds, 0 to 1 | [U, h, w] |
| E | ``whole``: the guided estimate of the whole prompt | [B, C, h, w] |
| E_u | ``regions``: the guided estimate of each region | [U, B, C, h, w] |
| α | ``alpha``: the whole prompt's share inside the regions | number |
| s | ``guidance`` | number |

``shares`` are masks after the overlaps are settled: in no cell do they sum to more than 1, and what they leave is the
whole picture's.
"""

from __future__ import annotations

import torch

Box = tuple[float, float, float, float]

_TIE = 1e-6
"""Shares of a cell that differ by less are equal: which of two is larger must not hang on rounding."""


def box_mask(box: Box, size: tuple[int, int], feather: float = 0.0) -> torch.Tensor:
    """How much of each cell a box holds, [height, width] in 0..1.

    Args:
        box: x0, y0, x1, y1 as shares of the sides, from the top left.
        size: width and height in cells.
        feather: width in cells of a linear rise inside the box's edges, at most half of the box's shorter side. An
            edge on the picture's border has none: there is nothing beyond it to pass into.
    """
    (width, height), (x0, y0, x1, y1) = size, box
    feather = min(feather, (x1 - x0) * width / 2, (y1 - y0) * height / 2)
    mask = _covered(y0, y1, height)[:, None] * _covered(x0, x1, width)[None, :]
    if feather > 0:
        rise = torch.minimum(_distance(y0, y1, height)[:, None], _distance(x0, x1, width)[None, :]) / feather
        mask = mask * rise.clamp(0, 1)
    return mask


def coarse(mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The mean of a mask [..., H, W] over the area of each cell of a grid (width, height), [..., h, w]."""
    width, height = grid
    rows = _overlaps(mask.shape[-2], height).to(mask)
    columns = _overlaps(mask.shape[-1], width).to(mask)
    return rows @ mask @ columns.T


def in_cells(masks: torch.Tensor, soft: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """How much each region is drawn in each cell of a grid (width, height), [U, ..., h, w] in 0..1.

    A region with sharp edges takes the cells of which it holds at least half, whole; one that ``soft`` [U] marks keeps
    its shares. A region that holds half of no cell takes the cell it holds most of, or all that tie: none vanishes.
    """
    share = coarse(masks, grid)
    most = share.amax((-2, -1), keepdim=True)
    nearest = (share >= most - _TIE) & (most > 0)
    sharp = torch.where(most >= 0.5 - _TIE, share >= 0.5 - _TIE, nearest).to(share)
    kept = torch.where(most >= 0.5 - _TIE, share, nearest.to(share))
    return torch.where(soft.to(share.device).view(-1, *(1,) * (share.ndim - 1)), kept, sharp)


def shares(masks: torch.Tensor, overlap: str) -> torch.Tensor:
    """Masks [U, ...] with their overlaps settled: in no cell do they sum to more than 1.

    Args:
        overlap: "average" gives regions that meet equal parts by their masks; "priority" gives a later region what it
            asks for, and an earlier one what is left.
    """
    if overlap == "average":
        return masks / masks.sum(0).clamp(min=1)
    left = torch.ones_like(masks[0]) if len(masks) else masks.sum(0)
    out = []
    for mask in reversed(masks.unbind(0)):
        out.append(mask * left)
        left = left * (1 - mask)
    return torch.stack(out[::-1]) if out else masks


def replaced(whole: torch.Tensor, regions: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Regional attention, and what is common to it and Eq. 5: each region takes its share of a cell.

    whole [..., h, w], regions [U, ..., h, w], shares [U, h, w], or like the regions -> [..., h, w].
    """
    between = (1,) * (regions.ndim - shares.ndim)
    parts = shares.reshape(len(shares), *between, *shares.shape[1:])
    return whole * (1 - parts.sum(0)) + (parts * regions).sum(0)


def region_estimate(without: torch.Tensor, given: torch.Tensor, guidance: float) -> torch.Tensor:
    """Eq. 4 — E_u = ε(z_t) + s (ε(z_t | c_u, s_u) − ε(z_t)), any shape; with the whole prompt given, it is E."""
    return without + guidance * (given - without)


def composed(
    whole: torch.Tensor, regions: torch.Tensor, shares: torch.Tensor, alpha: float, form: str = "corrected"
) -> torch.Tensor:
    """Eq. 5 — E_*, the estimate that the sampler follows, [B, C, h, w].

    "corrected": E outside all regions, αE + (1−α) Σ_u m_u E_u / Σ_u m_u inside; where masks fall off, in between.
    "paper": αE + Σ_u (1−α) E_u m_u with ``shares`` the masks themselves, 0 or 1: a tenth of the noise is left outside,
    and where boxes overlap it is more than whole.
    """
    if form == "paper":
        return alpha * whole + (1 - alpha) * (shares[:, None, None] * regions).sum(0)
    return replaced(whole, regions, (1 - alpha) * shares)


def mixed_noise(whole: torch.Tensor, own: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Standard normal noise [..., h, w] that is ``own`` [U, ..., h, w] in each region's share [U, h, w].

    Independent noises add by their variances, so the roots of the shares are the factors; ``whole`` and each of ``own``
    must not be the same noise.
    """
    left = (1 - shares.sum(0)).clamp(min=0)
    between = (1,) * (whole.ndim - 2)
    parts = shares.reshape(len(shares), *between, *shares.shape[1:])
    return left.sqrt() * whole + (parts.sqrt() * own).sum(0)


def _covered(low: float, high: float, cells: int) -> torch.Tensor:
    """The part of each of ``cells`` equal cells of a side that lies between two shares of it."""
    edges = torch.arange(cells + 1, dtype=torch.float64)
    inside = edges[1:].clamp(max=high * cells) - edges[:-1].clamp(min=low * cells)
    return inside.clamp(0, 1).float()


def _distance(low: float, high: float, cells: int) -> torch.Tensor:
    """From each cell's centre to the nearer edge, in cells; edges on the picture's border are out of reach."""
    centres = torch.arange(cells, dtype=torch.float32) + 0.5
    far = torch.full_like(centres, float("inf"))
    left = centres - low * cells if low > 0 else far
    right = high * cells - centres if high < 1 else far
    return torch.minimum(left, right)


def _overlaps(fine: int, cells: int) -> torch.Tensor:
    """[cells, fine]: which part of each coarse cell's length each fine one covers."""
    edges = torch.arange(fine + 1, dtype=torch.float64) / fine * cells
    start = torch.arange(cells, dtype=torch.float64)[:, None]
    lengths = torch.minimum(edges[None, 1:], start + 1) - torch.maximum(edges[None, :-1], start)
    return lengths.clamp(min=0).float()
