"""What each layer would draw on for a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cidm_registry import Registry

from ..models.base import Base
from .jobs import Job
from .mixtures import Loader
from .scenes import choose


@dataclass(frozen=True)
class Explained:
    """The weights of a prompt."""

    prompt: str
    method: str
    """Never "auto"."""
    layers: tuple[str, ...]
    """Names of the cross-attention layers, in forward order."""
    weights: dict[str, tuple[float, ...]]
    """Of each concept at each layer; of all concepts, whether used or not."""
    named: tuple[str, ...]
    """Concepts whose tokens stand in the prompt."""


def explain(
    registry: Registry,
    base: Base,
    job: Job,
) -> Explained:
    """The weights that drawing a job's prompt would use.

    Raises:
        CidmError: as drawing would.
    """
    records = registry.records()
    load = Loader(registry, base)
    chosen = choose(base, load, records, job).whole
    layers = base.layers
    used = {record.key: weights for record, weights in zip(chosen.used, chosen.weights, strict=True)}
    nothing = (0.0,) * len(layers)
    return Explained(
        job.prompt, chosen.method, layers,
        {record.name: used.get(record.key, nothing) for record in records},
        tuple(record.name for record in chosen.named),
    )  # fmt: skip


def heat_map(found: Explained, path: Path) -> None:
    """Draws the weights as a picture, layers across, concepts down."""
    from matplotlib.figure import Figure

    names = list(found.weights)
    figure = Figure(figsize=(2.5 + 0.55 * len(found.layers), 1.8 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    values = [found.weights[name] for name in names]
    top = max(1.0, max(max(row) for row in values))
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(found.layers)), [str(k) for k in range(len(found.layers))])
    axes.set_yticks(range(len(names)), [f"<{name}>" for name in names])
    axes.set_xlabel("cross-attention layer")
    axes.set_title(f'"{found.prompt}", {found.method}', fontsize=9, parse_math=False)
    figure.colorbar(image, ax=axes, label="weight")
    figure.savefig(path, dpi=120)
