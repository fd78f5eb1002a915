"""What regions cost while drawing: a step of a layout over a step of a single prompt. Prints one JSON object.

Every region names a concept of its own, with random weights: the cost depends on their number and their boxes only.
All kinds of step take turns in one run, so that a noisy machine is noisy for all. By number of boxes: ``fast`` is
regional attention alone, ``full`` adds a noise estimate for each region, and
``crops`` makes these on the part of the picture around the region. ``prepare_seconds``: what is done once for a layout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.aggregation_cost import fill
from cidm_cli.draw import scenes, views
from cidm_cli.draw.encoded import Texts
from cidm_cli.draw.jobs import Job
from cidm_cli.draw.mixtures import Loader
from cidm_cli.layout import Layout
from cidm_cli.models import sampling, text
from cidm_cli.models.base import Base
from cidm_cli.models.identity import MINI, identify
from cidm_cli.models.opening import open_base
from cidm_cli.options.draw import DrawOptions, resolve_draw
from cidm_registry import Registry

KINDS = {"fast": ("fast", False), "full": ("full", False), "crops": ("full", True)}
"""The mode and the crops of each kind of step."""
PROMPT = "a photo of things on the beach"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=8, help="turns of each kind of step")
    parser.add_argument("--block", type=int, default=4, help="steps in a turn")
    parser.add_argument("--pictures", type=int, default=1, help="pictures drawn at once")
    parser.add_argument("--size", type=int, nargs=2, help="width and height, else the base's own")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: this process's time, for a machine that is busy"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), given)))


def measure(folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """The ratios, and the medians they come from."""
    registry = Registry.create(folder / "registry", identify(MINI))
    base = open_base(registry, device="auto", precision="auto")
    fill(registry, base, max(given.boxes))
    options = resolve_draw(
        dict(count=given.pictures, batch=max(given.pictures, 4), size=given.size and tuple(given.size)),
        MINI, base.pixels,
    )  # fmt: skip
    assert options.size
    latents = sampling.initial_noise(base, range(given.pictures), options.size).to(base.device)
    clock = CLOCKS[given.clock]
    single = ("single", 0)
    steps = {single: prompt_step(base, options, latents)}
    prepared = {}
    for number in given.boxes:
        for kind, (mode, crops) in KINDS.items():
            began = clock()
            steps[kind, number] = layout_step(registry, base, boxes(number, mode, crops), options, latents)
            prepared[f"{kind} {number}"] = clock() - began
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
    with torch.no_grad(), base.autocast():
        for step in steps.values():
            timed(step, 1, clock)
        for _ in range(given.rounds):
            for key, step in steps.items():
                seconds[key].append(timed(step, given.block, clock))
    ratios = {
        key: [a / b for a, b in zip(values, seconds[single], strict=True)] for key, values in seconds.items()
    }
    return {
        **{kind: {str(n): statistics.median(ratios[kind, n]) for n in given.boxes} for kind in KINDS},
        "spread": {f"{kind} {n}": [min(r), max(r)] for (kind, n), r in ratios.items() if n},
        "single_seconds": statistics.median(seconds[single]),
        "prepare_seconds": prepared,
        "pictures": given.pictures, "size": list(options.size), "rounds": given.rounds, "clock": given.clock,
        "device": base.device.type, "compute": str(base.compute).removeprefix("torch."),
    }  # fmt: skip


def boxes(number: int, mode: str, crops: bool) -> Layout:
    """A layout of so many boxes in two rows, which cover four fifths of the picture; each shows a concept."""
    columns, rows = -(-number // 2), min(number, 2)
    regions = []
    for index in range(number):
        column, row = index % columns, index // columns
        x, y, gap = column / columns, row / rows, 0.05
        box = [x + gap / columns, y + gap / rows, x + (1 - gap) / columns, y + (1 - gap) / rows]
        regions.append({"prompt": f"a photo of a <thing{index}>", "box": box})
    image = {"mode": mode, "crops": crops}
    return Layout.model_validate({"image": image, "base": {"prompt": PROMPT}, "region": regions})


def layout_step(
    registry: Registry, base: Base, layout: Layout, options: DrawOptions, latents: torch.Tensor
) -> Callable[[], object]:
    """What a sampler asks for at each step of a layout."""
    load = Loader(registry, base)
    job = Job(layout.base.prompt, options, layout)
    batch = [scenes.Part(job, scenes.choose(base, load, registry.records(), job), tuple(range(len(latents))))]
    with base.autocast():
        scene = scenes.prepare(base, batch, Texts(base, load))
        estimate = views.estimate(base, scene, batch, scenes.merging(base, batch[0].chosen, load))
    return partial(estimate, latents, torch.tensor(500, device=base.device), 0)


def prompt_step(base: Base, options: DrawOptions, latents: torch.Tensor) -> Callable[[], object]:
    """The same of a prompt without concepts; merged into the weights, they would cost nothing."""
    layers = len(base.layers)
    without, given = (
        [context.expand(len(latents), -1, -1) for context in encoded]
        for encoded in (
            text.encode(base, [text.tokenize(base, [words])], {}, layers=layers) for words in ("", PROMPT)
        )
    )
    assert options.guidance
    estimate = sampling.guided(base, given, without, options.guidance)
    return partial(estimate, latents, torch.tensor(500, device=base.device), 0)


def timed(step: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    """Seconds a step."""
    began = clock()
    for _ in range(times):
        found = step()
    assert isinstance(found, torch.Tensor)
    float(found.sum())  # waits for a GPU
    return (clock() - began) / times


if __name__ == "__main__":
    main()
