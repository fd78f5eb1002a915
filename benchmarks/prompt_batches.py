"""A picture of each of K prompts, drawn in batches over prompts and one at a time. Prints one JSON object.

All prompts name one concept of random weights: what is drawn does not matter to the time. ``ratio``: seconds of a
picture in batches of ``--batch`` over those of a picture by itself; both take turns in one run. ``swap_seconds``: what
a change of weights takes between prompts of different concepts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.aggregation_cost import fill
from cidm_cli.draw import images as generate
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.mixtures import Loader, applied, mixture
from cidm_cli.models.base import Base
from cidm_cli.models.identity import MINI, identify
from cidm_cli.models.opening import open_base
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Registry

PLACES = (
    "on the beach",
    "in the snow",
    "on a table",
    "in a forest",
    "at night",
    "on the grass",
    "in a room",
    "at sea",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=MINI, help="what cidm init --base takes")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), given)))


def measure(folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """The ratio, and the medians it comes from."""
    registry = Registry.create(folder / "registry", identify(given.base))
    base = open_base(registry, device="auto", precision="auto")
    fill(registry, base, 2)
    seconds: dict[int, list[float]] = {given.batch: [], 1: []}
    drawn(registry, base, given, given.batch)
    for _ in range(given.rounds):
        for batch, found in seconds.items():
            found.append(drawn(registry, base, given, batch) / given.prompts)
    ratios = [a / b for a, b in zip(seconds[given.batch], seconds[1], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "picture_seconds": {str(batch): statistics.median(found) for batch, found in seconds.items()},
        "swap_seconds": statistics.median(swap(registry, base, given.rounds)),
        "prompts": given.prompts, "batch": given.batch, "steps": given.steps, "rounds": given.rounds,
        "device": base.device.type, "compute": str(base.compute).removeprefix("torch."),
    }  # fmt: skip


def drawn(registry: Registry, base: Base, given: argparse.Namespace, batch: int) -> float:
    """Seconds for a picture of every prompt."""
    options = resolve_draw(dict(steps=given.steps, batch=batch), registry.base.kind, base.pixels)
    places = [PLACES[k % len(PLACES)] for k in range(given.prompts)]
    jobs = [Job(f"a photo of a <thing0> {place}", options) for place in places]
    start = time.perf_counter()
    for _ in generate.draw(registry, base, jobs):
        pass
    return time.perf_counter() - start


def swap(registry: Registry, base: Base, rounds: int) -> list[float]:
    """Seconds to have a concept's weights merged and taken out again, the concept being loaded."""
    load, records = Loader(registry, base), registry.records()
    options = resolve_draw({}, registry.base.kind, base.pixels)
    out = []
    for number in range(2 * (rounds + 1)):
        chosen = mixture(base, load, records, f"a <thing{number % 2}>", options)
        start = time.perf_counter()
        with applied(base, chosen, load).merged(base):
            pass
        out.append(time.perf_counter() - start)
    return out[2:]


if __name__ == "__main__":
    main()
