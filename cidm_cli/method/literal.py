"""Concept consolidation as the paper prints it, kept to be measured against ``consolidation``.

| symbol | here | shape |
|---|---|---|
| A_i^l, B_i^l | ``up``, ``down``; ΔW_i^l = scale · A_i^l B_i^l | [out, r], [r, in] |
| H_i^l | ``own``: projection of concept i onto the shared subspace, one dense matrix a concept | [out, out] |
| W_*^l | ``shared``: the shared subspace | [out, in] |

Dense products and H_i of every concept at every layer make time and memory grow with the number of concepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .consolidation import Factors, Terms, owners, restored


def literal_overlap(older: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """R1 as printed — Σ_{i<g} of the mean absolute entry of A_i A_gᵀ, at one site; a scalar.

    The mean is the published code's.

    Args:
        older: A_i [m, out, r].
        up: A_g [out, r].
    """
    return (older @ up.T).abs().mean((-2, -1)).sum()


def literal_energy(delta: torch.Tensor, own: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """R2 as printed — ‖ΔW_i − H_i W_*‖_F² [...], of ΔW [..., out, in], H [..., out, out] and W_* [out, in]."""
    return (delta - own @ shared).square().sum((-2, -1))


def literal_gradients(
    deltas: torch.Tensor, own: torch.Tensor, shared: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 6 — ∂R2/∂H_i = −2(ΔW_i − H_i W_*)W_*ᵀ and ∂R2/∂W_* = −2 Σ_i H_iᵀ(ΔW_i − H_i W_*).

    As printed, the second lacks its sum over the concepts.

    Args:
        deltas: ΔW_i of all concepts i ≤ g [m, out, in].
        own: H_i [m, out, out].
        shared: W_* [out, in].

    Returns:
        Gradients like ``own`` and ``shared``.
    """
    rest = deltas - own @ shared
    return -2 * rest @ shared.T, -2 * (own.mT @ rest).sum(0)


def descended(
    deltas: torch.Tensor, own: torch.Tensor, shared: torch.Tensor, rate: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 7 — H_i − rate ∂R2/∂H_i and W_* − rate ∂R2/∂W_*. As printed it adds the gradient, which ascends."""
    by_own, by_shared = literal_gradients(deltas, own, shared)
    return own - rate * by_own, shared - rate * by_shared


class LiteralConsolidation:
    """R1 and R2 as printed, in the place of ``Consolidation``.

    R1 is the mean over the pairs of a site and an older concept that has it, as in the published code; R2 the sum
    over the sites that at least one older concept has, as in the paper. Of R2 only the new concept's part is
    returned: the others have no gradient.
    """

    def __init__(
        self,
        older: Sequence[tuple[Mapping[str, Factors], float]],
        shapes: Mapping[str, tuple[int, int]],
        *,
        rate: float,
        device: torch.device | str,
    ) -> None:
        """Every H_i starts as the identity and W_* as the older concepts' mean; the paper leaves both open.

        Args:
            older: factors by site, and scale, of each older concept.
            shapes: (out, in) of the sites in training.
            rate: learning rate of step (ii). From this start, above 1 / number of concepts it diverges.

        Raises:
            ValueError: without older concepts, for factors that do not fit their site, or of different ranks.
        """
        self._rate = rate
        self._device = torch.device(device)
        self._up, self._down, self._scale = {}, {}, {}
        self._own, self._shared = {}, {}
        present = owners(older, shapes)
        for site, here in present.items():
            if len({up.shape for (up, _), _ in here}) > 1:
                raise ValueError(f"{site}: A_i A_gᵀ needs concepts of one rank")
            precision = torch.promote_types(here[0][0][0].dtype, torch.float32)
            self._up[site] = torch.stack([up.detach() for (up, _), _ in here]).to(self._device, precision)
            self._down[site] = torch.stack([down.detach() for (_, down), _ in here]).to(self._up[site])
            self._scale[site] = torch.tensor([scale for _, scale in here]).to(self._up[site]).view(-1, 1, 1)
            identity = torch.eye(self._up[site].shape[1]).to(self._up[site])
            self._own[site] = identity.expand(len(here) + 1, -1, -1).clone()
            self._shared[site] = self._older_deltas(site).mean(0)
        self._pairs = sum(map(len, present.values()))

    def terms(self, factors: Mapping[str, Factors], scale: float) -> Terms:
        """R1 and R2 of the new concept as it now is, with H_g and W_* fixed."""
        overlap = unshared = torch.zeros((), device=self._device)
        for site, older in self._up.items():
            up, down = factors[site]
            overlap = overlap + literal_overlap(older, up)
            unshared = unshared + literal_energy(scale * up @ down, self._own[site][-1], self._shared[site])
        return Terms(overlap / max(self._pairs, 1), unshared)

    @torch.no_grad()
    def stepped(self, step: int, factors: Mapping[str, Factors], scale: float) -> None:
        """Step (ii): one gradient step, after each step (i)."""
        for site in self._up:
            up, down = factors[site]
            deltas = torch.cat([self._older_deltas(site), (scale * up @ down).unsqueeze(0)])
            self._own[site], self._shared[site] = descended(
                deltas, self._own[site], self._shared[site], self._rate
            )

    def state(self) -> dict[str, torch.Tensor]:
        """H_i and W_* of every site: with them, a training goes on as if it had not stopped."""
        own = {f"own.{number}": tensor.clone() for number, tensor in enumerate(self._own.values())}
        shared = {f"shared.{number}": tensor.clone() for number, tensor in enumerate(self._shared.values())}
        return own | shared

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes up what ``state`` gave, on the same older concepts.

        Raises:
            ValueError: for a state of others.
        """
        tensors = restored(self.state(), state)
        self._own = dict(zip(self._own, tensors[: len(self._own)], strict=True))
        self._shared = dict(zip(self._shared, tensors[len(self._own) :], strict=True))

    def memory(self) -> int:
        """Bytes held between steps."""
        held = [self._up, self._down, self._own, self._shared]
        return sum(t.numel() * t.element_size() for tensors in held for t in tensors.values())

    def _older_deltas(self, site: str) -> torch.Tensor:
        """ΔW_i of the older concepts [m, out, in]."""
        return self._scale[site] * self._up[site] @ self._down[site]
