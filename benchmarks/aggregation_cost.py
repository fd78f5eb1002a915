"""What concepts cost while drawing: denoising with K in the registry over denoising with none. Prints one JSON object.

Every concept is in the mixture (``--method sharp`` gives each its share), with random weights: the cost depends on
their number only. All numbers of concepts take turns in one run. ``ratio``: seconds of a denoising step, by K.
``per_prompt_seconds``: what is done once for each prompt before denoising (encoding, Eq. 3, merging), by K;
``first_prompt_seconds``: the same for the first prompt of a command, which also reads and encodes the concepts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from cidm_cli.draw import images as generate
from cidm_cli.draw.jobs import Job
from cidm_cli.formats.concept import ConceptWeights, pack
from cidm_cli.models import text
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.identity import MINI, identify
from cidm_cli.models.opening import open_base
from cidm_cli.options.draw import resolve_draw
from cidm_registry import Against, Draft, Registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concepts", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), given)))


def measure(folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """The ratios, and the medians they come from."""
    registry = Registry.create(folder / "registry", identify(MINI))
    base = open_base(registry, device="auto", precision="auto")
    fill(registry, base, max(given.concepts))
    records = registry.records()
    options = resolve_draw(
        dict(steps=given.steps, count=given.batch, batch=given.batch, method="sharp", power=1.0),
        MINI, base.pixels,
    )  # fmt: skip
    jobs = [Job(prompt, options) for prompt in ("a photo of a dog on the beach", "a cat in the snow")]
    step_s: dict[int, list[float]] = {k: [] for k in (0, *given.concepts)}
    first_s: dict[int, list[float]] = {k: [] for k in step_s}
    next_s: dict[int, list[float]] = {k: [] for k in step_s}
    one_round(registry, base, jobs, records[:1], given.steps)
    for _ in range(given.rounds):
        for k in step_s:
            each, first, after = one_round(registry, base, jobs, records[:k], given.steps)
            step_s[k].append(each)
            first_s[k].append(first)
            next_s[k].append(after)
    ratios = {k: [a / b for a, b in zip(step_s[k], step_s[0], strict=True)] for k in given.concepts}
    return {
        "ratio": {str(k): statistics.median(values) for k, values in ratios.items()},
        "spread": {str(k): [min(values), max(values)] for k, values in ratios.items()},
        "step_seconds": {str(k): statistics.median(values) for k, values in step_s.items()},
        "per_prompt_seconds": {str(k): statistics.median(values) for k, values in next_s.items()},
        "first_prompt_seconds": {str(k): statistics.median(values) for k, values in first_s.items()},
        "steps": given.steps, "batch": given.batch, "rounds": given.rounds, "device": base.device.type,
        "compute": str(base.compute).removeprefix("torch."),
    }  # fmt: skip


def fill(registry: Registry, base: Base, count: int) -> None:
    """Commits concepts of random weights, of the default rank."""
    shapes, layers = base.shapes, len(base.layers)
    width = text.token_width(base)
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        sites = lora_sites(base.denoiser)
        up = {s: 0.01 * torch.randn(shapes[s][0], 4, generator=generator) for s in sites}
        down = {s: torch.randn(4, shapes[s][1], generator=generator) for s in sites}
        tokens = torch.randn(layers, 2, width, generator=generator)
        draft = Draft(
            name=f"thing{number}", class_noun="dog", style=False, tokens=("[V*]", "[Vdog]"), rank=4, scale=1.0,
            method="plain", config={}, data_hash="0" * 64, against=Against.of((), 0), losses={}, tools={}, extra={},
        )  # fmt: skip
        registry.commit(draft, pack(ConceptWeights(up, down, tokens)), expected_head=registry.head())


def one_round(
    registry: Registry, base: Base, jobs: list[Job], records: tuple, steps: int
) -> tuple[float, float, float]:
    """Seconds of a denoising step, and of what comes before it for the first prompt and for the next."""
    ends: list[float] = []
    starts = [time.perf_counter()]
    for picture, _ in enumerate(generate.draw(
        registry, base, jobs, records=records, on_step=lambda: ends.append(time.perf_counter())
    )):  # fmt: skip
        if (picture + 1) % jobs[0].options.count == 0:
            starts.append(time.perf_counter())
    # Every picture of the one batch says so at each step.
    ends = ends[:: jobs[0].options.count]
    runs = [ends[:steps], ends[steps:]]
    each = statistics.median(b - a for run in runs for a, b in itertools.pairwise(run))
    before = [run[0] - start - each for run, start in zip(runs, starts, strict=False)]
    return each, before[0], before[1]


if __name__ == "__main__":
    main()
