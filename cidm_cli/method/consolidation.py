"""Concept consolidation, the two terms of Eq. 2 that tie a concept in training to the older ones.

| symbol | here | shape |
|---|---|---|
| A_i^l, B_i^l | ``up``, ``down`` of concept i at site l; ΔW_i^l = scale · A_i^l B_i^l | [out, r], [r, in] |
| Q_i^l | ``directions``: orthonormal columns that span those of ΔW_i^l, faint ones shorter | [out, r] |
| M^l | ``columns``: Q_i^l of all older concepts i side by side, or fewer columns with the same M Mᵀ | [out, K] |
| S^l | ``rows``: (A_iᵀA_i)^½ B_i of concepts i on top of each other, or fewer rows with the same SᵀS | [K, in] |
| V^l | ``basis``: orthonormal rows that span what the concepts share, W_* up to a rotation | [k, in] |

Sites of equal shape are computed in one product, and older concepts only enter through M and S, compressed once:
a step costs the same after a hundred concepts as after as many as fill a layer's width.
The terms as the paper prints them are in ``literal``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Factors = tuple[torch.Tensor, torch.Tensor]
"""(up [out, r], down [r, in]) of one site."""
Owners = Sequence[tuple[Factors, float]]
"""The factors and the scale of each older concept that has a site."""

FAINT = 5e-3
"""A direction that ΔW reaches with the singular value σ counts as σ²/(σ² + δ²) of one, δ² = FAINT² + SLIGHT ‖ΔW‖_F².
``up`` starts at zero, where it has no column space, and the gradient of a space grows as 1/σ; what is trained is mostly
ten times stronger and more."""
SLIGHT = 1e-5
"""Of a strong ΔW what lies below is rounding: float32 squared and inverted."""


@dataclass(frozen=True)
class Terms:
    """R1 and R2 of Eq. 2: scalars with gradients, before γ1 and γ2."""

    overlap: torch.Tensor
    """R1."""
    unshared: torch.Tensor
    """R2: the new concept's part, the only one with a gradient; 0 where there is no shared basis."""


def subspace_overlap(
    columns: torch.Tensor, up: torch.Tensor, down: torch.Tensor, scale: float
) -> torch.Tensor:
    """R1 of Eq. 2 — Σ_{i<g} ‖Q_iᵀ Q_g‖_F² / r = tr(Mᵀ Q_g Q_gᵀ M) / r of each site.

    The share of the new concept's directions that lies in the column space of an older one, summed over the older:
    0 if it is orthogonal to it, 1 if it is all within. The Q of a QR has no gradient where columns are zero or
    collinear, so the projection is written without it: Q_g Q_gᵀ = ΔW (ΔWᵀΔW + δ²I)⁻¹ ΔWᵀ = A H (AᵀA H + δ²I)⁻¹ Aᵀ
    with H = scale² B Bᵀ. Its gradient in ΔW stays below 1/δ, and it is the same however ΔW is factored.

    Args:
        columns: M [..., out, K].
        up, down: A_g [..., out, r] and B_g [..., r, in].

    Returns:
        [...].
    """
    H = scale**2 * (down @ down.mT)
    gram = up.mT @ up
    floor = FAINT**2 + SLIGHT * (gram * H).sum((-2, -1), keepdim=True)
    # Singular nowhere: nothing is lost by not checking, for which a GPU would have to be waited for.
    inverse = torch.linalg.inv_ex(gram @ H + floor * torch.eye(H.shape[-1]).to(H)).inverse
    seen = up.mT @ columns
    return (H * (inverse @ (seen @ seen.mT))).sum((-2, -1)) / up.shape[-1]


def directions(up: torch.Tensor, down: torch.Tensor, scale: float) -> torch.Tensor:
    """Q [out, min(out, r, in)] of one site, float64: left singular vectors of ΔW, each σ/√(σ² + δ²) long."""
    left, R1 = torch.linalg.qr(up.double())
    R2 = torch.linalg.qr(down.double().T, mode="r").R
    U, values, _ = torch.linalg.svd(scale * R1 @ R2.T, full_matrices=False)
    energies = values.square()
    return left @ (U * (energies / (energies + FAINT**2 + SLIGHT * energies.sum())).sqrt())


def unshared_energy(up: torch.Tensor, down: torch.Tensor, basis: torch.Tensor, scale: float) -> torch.Tensor:
    """R2 of Eq. 2 — ‖ΔW_g − ΔW_g VᵀV‖_F² = scale² tr(A_gᵀA_g · B_g(I − VᵀV)B_gᵀ) of each site.

    It is the concept's squared distance from what the shared rows can express, with H_g = ΔW_g Vᵀ the best there
    is. Gram matrices [r, r] are the largest products.

    Args:
        up, down: A_g [n, out, r] and B_g [n, r, in] of n sites.
        basis: V [n, k, in]; rows orthonormal or zero.

    Returns:
        [n].
    """
    rest = down - (down @ basis.mT) @ basis
    return scale**2 * ((up.mT @ up) * (rest @ rest.mT)).sum((-2, -1))


def energy_rows(up: torch.Tensor, down: torch.Tensor, scale: float) -> torch.Tensor:
    """A matrix [..., min(out, r), in] with the Gram matrix ΔWᵀΔW, as scale (AᵀA)^½ B has: scale R B, of A = Q R."""
    return scale * torch.linalg.qr(up, mode="r").R @ down


def compressed(columns: torch.Tensor) -> torch.Tensor:
    """At most ``out`` columns with the same M Mᵀ as ``columns`` [out, m]."""
    if columns.shape[1] <= columns.shape[0]:
        return columns
    values, vectors = torch.linalg.eigh(columns @ columns.T)
    return vectors * values.clamp_min(0).sqrt()


def shared_basis(rows: torch.Tensor, rank: int) -> torch.Tensor:
    """Step (ii) of the optimisation, exactly — V, of all bases of ``rank`` rows the one with the least Σ_{i≤g} R2.

    R2 summed over the concepts is ‖S − S VᵀV‖_F², so V holds the first right singular vectors of S. They are
    found through the smaller of SSᵀ and SᵀS; give float64.

    Args:
        rows: S [n, m, in] of n sites.
        rank: k; taken as at most m and ``in``.

    Returns:
        [n, k, in], largest singular value first. Where S has a smaller rank, the rows left over are zero: all of
        it is shared already.
    """
    height, width = rows.shape[-2:]
    rank = min(rank, height, width)
    if height < width:
        values, vectors = torch.linalg.eigh(rows @ rows.mT)
        # Sᵀu = σv; orthogonal already, and QR makes them unit length without dividing by a σ that may be zero.
        basis = torch.linalg.qr(rows.mT @ vectors[..., -rank:].flip(-1)).Q.mT
    else:
        values, vectors = torch.linalg.eigh(rows.mT @ rows)
        basis = vectors[..., -rank:].flip(-1).mT
    noise = torch.finfo(rows.dtype).eps * max(height, width) * values[..., -1:]
    return basis * (values[..., -rank:].flip(-1) > noise).unsqueeze(-1)


@dataclass(frozen=True)
class _Group:
    """Sites of equal shape whose compressed older concepts have one shape, too: one product."""

    sites: tuple[str, ...]
    stack: torch.Tensor
    """M [n, out, K], or S of the older concepts [n, K, in]."""


class Consolidation:
    """R1 and R2 of a concept in training against all older ones, and the shared basis between the two.

    Both terms are means, so that γ1 and γ2 mean the same on every base: R1 over the pairs of a site and an older
    concept that has it, R2 over the sites that at least one older concept has. Other sites do not count.
    """

    def __init__(
        self,
        older: Sequence[tuple[Mapping[str, Factors], float]],
        shapes: Mapping[str, tuple[int, int]],
        *,
        shared_rank: int,
        refresh_every: int,
        device: torch.device | str,
    ) -> None:
        """Compresses the older concepts, and finds the basis that they share.

        Args:
            older: factors by site, and scale, of each older concept.
            shapes: (out, in) of the sites in training.
            shared_rank: rows of the shared basis; at most the older concepts' ranks together, as with more the new
                concept's weights would count as shared whatever they are. 0 leaves R2 out.
            refresh_every: steps between two exact recomputations of the basis.

        Raises:
            ValueError: without older concepts, for a factor that does not fit its site, or a setting too small.
        """
        if shared_rank < 0 or refresh_every < 1:
            raise ValueError(
                f"shared_rank {shared_rank} must be at least 0 and refresh_every {refresh_every} at least 1"
            )
        self._device = torch.device(device)
        self._shared_rank, self._refresh_every = shared_rank, refresh_every
        present = owners(older, shapes)
        self._pairs = sum(map(len, present.values()))
        self._sites = len(present)
        self._columns = self._compressed(_columns, present)
        self._rows = self._compressed(_rows, present) if shared_rank else []
        self._bases = [self._best(group, None) for group in self._rows]

    def terms(self, factors: Mapping[str, Factors], scale: float) -> Terms:
        """R1 and R2 of the new concept as it now is."""
        overlap = unshared = torch.zeros((), device=self._device)
        for group in self._columns:
            overlap = overlap + subspace_overlap(group.stack, *_stacked(group, factors), scale).sum()
        for group, basis in zip(self._rows, self._bases, strict=True):
            unshared = unshared + unshared_energy(*_stacked(group, factors), basis, scale).sum()
        return Terms(overlap / max(self._pairs, 1), unshared / max(self._sites, 1))

    @torch.no_grad()
    def stepped(self, step: int, factors: Mapping[str, Factors], scale: float) -> None:
        """Step (ii), to be called after each step (i); ``step`` counts them from 1."""
        if step % self._refresh_every:
            return
        for number, group in enumerate(self._rows):
            up, down = _stacked(group, factors)
            work = _linalg_device(self._device)
            new = energy_rows(up.to(work).double(), down.to(work).double(), scale)
            self._bases[number] = self._best(group, new)

    def state(self) -> dict[str, torch.Tensor]:
        """The shared bases: with them, a training goes on as if it had not stopped."""
        return {f"basis.{number}": basis.clone() for number, basis in enumerate(self._bases)}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes up what ``state`` gave, on the same older concepts and settings.

        Raises:
            ValueError: for a state of others.
        """
        self._bases = restored(self.state(), state)

    def memory(self) -> int:
        """Bytes held between steps."""
        held = [group.stack for group in self._columns + self._rows] + self._bases
        return sum(t.numel() * t.element_size() for t in held)

    def _compressed(
        self, way: Callable[[Owners, torch.device], torch.Tensor], present: Mapping[str, Owners]
    ) -> list[_Group]:
        """What ``way`` makes of each site's older concepts, in the precision of the terms, by shape of site."""
        work = _linalg_device(self._device)
        members: dict[tuple[int, ...], list[tuple[str, torch.Tensor]]] = {}
        for site, here in present.items():
            (up, down), _ = here[0]
            made = way(here, work).detach().to(self._device, torch.promote_types(up.dtype, torch.float32))
            members.setdefault((up.shape[0], down.shape[1], *made.shape), []).append((site, made))
        return [
            _Group(tuple(site for site, _ in group), torch.stack([made for _, made in group]))
            for group in members.values()
        ]

    def _best(self, group: _Group, new: torch.Tensor | None) -> torch.Tensor:
        """V of the older concepts and the new one's rows [n, r, in], in the precision of the terms."""
        rows = group.stack.to(_linalg_device(self._device)).double()
        stacked = rows if new is None else torch.cat([rows, new], dim=1)
        # Contiguous, as it is after ``restore``: products may round otherwise on transposed memory.
        return shared_basis(stacked, min(self._shared_rank, rows.shape[-2])).to(group.stack).contiguous()


def owners(
    older: Sequence[tuple[Mapping[str, Factors], float]], shapes: Mapping[str, tuple[int, int]]
) -> dict[str, list[tuple[Factors, float]]]:
    """Factors and scale of the older concepts that have a site, by site in training; sites of none are left out.

    Raises:
        ValueError: without older concepts, or for a factor that does not fit its site.
    """
    if not older:
        raise ValueError("consolidation needs at least one older concept: the first trains by Eq. 1 alone")
    present = {}
    for site, (height, width) in shapes.items():
        here = [(factors[site], scale) for factors, scale in older if site in factors]
        for (up, down), _ in here:
            if up.shape[0] != height or down.shape[1] != width or up.shape[1] != down.shape[0]:
                raise ValueError(
                    f"{site}: factors {tuple(up.shape)} and {tuple(down.shape)} of an older concept "
                    f"do not fit a layer of {height} by {width}"
                )
        if here:
            present[site] = here
    return present


def restored(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """The tensors of ``state`` in the order, precision and place of ``own``.

    Raises:
        ValueError: where names or shapes differ.
    """
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in state.items()}:
        raise ValueError("the state is that of other concepts or settings")
    return [state[name].to(tensor, copy=True) for name, tensor in own.items()]


def _columns(here: Owners, work: torch.device) -> torch.Tensor:
    """M of a site's older concepts, compressed, in float64."""
    each = [directions(up.to(work), down.to(work), scale) for (up, down), scale in here]
    return compressed(torch.cat(each, dim=1))


def _rows(here: Owners, work: torch.device) -> torch.Tensor:
    """S of a site's older concepts, compressed, in float64."""
    each = [energy_rows(up.to(work).double(), down.to(work).double(), scale) for (up, down), scale in here]
    return compressed(torch.cat(each).T).T


def _stacked(group: _Group, factors: Mapping[str, Factors]) -> Factors:
    """(up [n, out, r], down [n, r, in]) of a group's sites."""
    pairs = [factors[site] for site in group.sites]
    return torch.stack([up for up, _ in pairs]), torch.stack([down for _, down in pairs])


def _linalg_device(device: torch.device) -> torch.device:
    """Where decompositions in float64 run: Apple's GPUs have neither."""
    return torch.device("cpu") if device.type == "mps" else device
