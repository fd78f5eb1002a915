"""What consolidation (Eq. 2) adds to a training step, and what the paper's own form would. Prints one JSON object.

``embedded``: whole training steps on the embedded base against random older concepts; all kinds of step take turns in
one run, so that a noisy machine is noisy for all. ``ratio``, by the number of older concepts: a step as ``learn``
does it, with R1, over a step without; at 0 there is nothing to add, and the ratio is what the measurement cannot tell
from none. ``both_ratio``: with R2 as well, and its share of a refresh of the shared basis. ``dense_ratio``: with both
terms as printed.

``sd15`` and ``sdxl``: both terms alone (forward and backward) and step (ii) alone, on random weights for every site of
those bases' attention to text, and the bytes held between steps. The printed form does not fit into an ordinary
computer's memory there: its seconds are measured at one site of each shape and counted as often as there are such.

``--clock cpu`` counts this program's processor time, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from benchmarks.aggregation_cost import fill
from cidm_cli.data import load_examples
from cidm_cli.demo import tasks_folder
from cidm_cli.judge.tasks import load_tasks
from cidm_cli.learn import methods
from cidm_cli.learn import run as learn
from cidm_cli.learn.assignment import Task
from cidm_cli.learn.batches import Prepared, prepare
from cidm_cli.learn.step import PLAIN, Method, Trainee, train_step, training
from cidm_cli.method.consolidation import Consolidation, Factors
from cidm_cli.method.literal import LiteralConsolidation
from cidm_cli.models.attention import lora_sites, site_layers
from cidm_cli.models.identity import MINI, identify
from cidm_cli.models.opening import open_base
from cidm_cli.options.learn import LearnOptions, resolve_learn
from cidm_registry import Registry

Shapes = Mapping[str, tuple[int, int]]
"""(out, in) of each LoRA site"""
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}

#: The two published bases, as far as the shapes of their attention to text go.
UNETS = {
    "sd15": dict(
        block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, attention_head_dim=8, cross_attention_dim=768
    ),
    "sdxl": dict(
        block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10), cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=["embedded", *UNETS], default=["embedded", *UNETS])
    parser.add_argument("--older", type=int, nargs="*", default=[10, 100], help="older concepts, factored")
    parser.add_argument("--dense", type=int, nargs="*", default=[10], help="older concepts, as printed")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each kind of step")
    parser.add_argument("--block", type=int, default=4, help="training steps in a turn")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    given = parser.parse_args()
    clock = CLOCKS[given.clock]
    options = resolve_learn(dict(steps=100_000), MINI)
    report: dict[str, object] = {}
    for part in given.parts:
        if part == "embedded":
            with tempfile.TemporaryDirectory() as scratch:
                report[part] = embedded(Path(scratch), options, given, clock)
        else:
            report[part] = published(part, options, given, clock)
    settings = {name: getattr(options, name) for name in ("rank", "shared_rank", "refresh_every")}
    print(json.dumps(report | settings | {"clock": given.clock, "threads": torch.get_num_threads()}))


def embedded(
    folder: Path, options: LearnOptions, given: argparse.Namespace, clock: Clock
) -> dict[str, object]:
    """Ratios of whole training steps, and the medians they come from."""
    registry = Registry.create(folder / "registry", identify(MINI))
    base = open_base(registry, device="auto", precision="auto")
    fill(registry, base, max([*given.older, *given.dense], default=0))
    records = registry.records()
    task = load_tasks(tasks_folder())[0]
    dataset = load_examples(task.images, class_noun=task.class_noun)
    work = Task(task.name, task.class_noun, task.style, dataset, options, False, False, False)
    data = prepare(base, dataset, learn.caption_tokens(base, work, learn.Events()), options)

    def against(count: int, **said: object) -> Method:
        chosen = replace(options, **said)  # type: ignore[arg-type]
        return methods.build(registry, base, records[:count], task.name, learn.placed_captions(work), chosen)

    kinds = {"plain": PLAIN, "ratio 0": against(0)}
    kinds |= {f"ratio {count}": against(count) for count in given.older}
    kinds |= {f"both_ratio {count}": against(count, gamma2=1.0) for count in given.older}
    kinds |= {
        f"dense_ratio {count}": against(count, gamma2=1.0, consolidation="paper") for count in given.dense
    }
    with training(base, task.name, task.class_noun, options) as trainee:
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for method in kinds.values():
            one_step(trainee, data, options, method, 1, clock)
        for _ in range(given.rounds):
            for name, method in kinds.items():
                each = one_step(trainee, data, options, method, given.block, clock)
                if name.startswith("both"):
                    each += refresh(trainee, method, options.refresh_every, clock) / options.refresh_every
                seconds[name].append(each)
    ratios = {
        name: [a / b for a, b in zip(values, seconds["plain"], strict=True)]
        for name, values in seconds.items() if name != "plain"
    }  # fmt: skip
    middle: dict[str, dict[str, float]] = {}
    for name, values in ratios.items():
        figure, _, count = name.partition(" ")
        middle.setdefault(figure, {})[count] = statistics.median(values)
    return {
        **middle,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "spread": {name: [min(values), max(values)] for name, values in ratios.items()},
        "sites": len(lora_sites(base.denoiser, options.targets)), "batch": options.batch, "rounds": given.rounds,
        "block": given.block, "device": base.device.type, "compute": str(base.compute).removeprefix("torch."),
    }  # fmt: skip


def one_step(
    trainee: Trainee, data: Prepared, options: LearnOptions, method: Method, block: int, clock: Clock
) -> float:
    """Seconds of a training step; all kinds go on with the same concept."""
    trainee.method = method
    seconds = 0.0
    for _ in range(block):
        # Every step is the first, none the one with the refresh: that is timed by itself, as a turn is shorter
        # than the steps between two of them.
        trainee.losses.clear()
        began = clock()
        train_step(trainee, data, options)
        seconds += clock() - began
    return seconds / block


def refresh(trainee: Trainee, method: Method, every: int, clock: Clock) -> float:
    """Seconds of recomputing the shared basis, which comes once in ``every`` steps."""
    trainee.losses[:] = [0.0] * every
    began = clock()
    method.regulariser.stepped(trainee)
    return clock() - began


def published(name: str, options: LearnOptions, given: argparse.Namespace, clock: Clock) -> dict[str, object]:
    """Seconds and bytes of the terms alone, by number of older concepts."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[name])
    every = {site: tuple(unet.get_submodule(site).weight.shape[:2]) for site in site_layers(unet)}
    shapes = {site: every[site] for site in lora_sites(unet)}
    new = random_concept(shapes, options.rank, 0)
    factored, literal = {}, {}
    for count in given.older:
        terms = subspace(shapes, count, options)
        each = median(partial(gradients, terms, new), given.rounds, clock)
        renewed = median(partial(terms.stepped, options.refresh_every, new, 1.0), 3, clock)
        factored[str(count)] = {
            "step_seconds": each + renewed / options.refresh_every,
            "terms_seconds": each, "refresh_seconds": renewed, "memory": terms.memory(),
        }  # fmt: skip
    for count in given.dense:
        each = by_step = 0.0
        for shape, sites in Counter(shapes.values()).items():
            one = random_concept({"site": shape}, options.rank, 0)
            printed = as_printed({"site": shape}, count, options)
            each += sites * median(partial(gradients, printed, one), 3, clock)
            by_step += sites * median(partial(printed.stepped, 1, one, 1.0), 3, clock)
        literal[str(count)] = {
            "step_seconds": each + by_step, "terms_seconds": each, "step_ii_seconds": by_step,
            "memory": as_printed(shapes, count, options, device="meta").memory(),
        }  # fmt: skip
    return {"sites": len(shapes), "factored": factored, "literal": literal}


def subspace(shapes: Shapes, count: int, options: LearnOptions) -> Consolidation:
    """Against random older concepts."""
    older = [(random_concept(shapes, options.rank, seed + 1), 1.0) for seed in range(count)]
    return Consolidation(
        older, shapes, shared_rank=options.shared_rank, refresh_every=options.refresh_every, device="cpu"
    )


def as_printed(
    shapes: Shapes, count: int, options: LearnOptions, *, device: str = "cpu"
) -> LiteralConsolidation:
    """Against random older concepts; on "meta" nothing but the shapes of what would be held."""
    older = [(random_concept(shapes, options.rank, seed + 1, device), 1.0) for seed in range(count)]
    return LiteralConsolidation(older, shapes, rate=options.shared_lr / count, device=device)


def random_concept(shapes: Shapes, rank: int, seed: int, device: str = "cpu") -> dict[str, Factors]:
    """Factors about as large as trained ones."""
    generator = torch.Generator().manual_seed(seed)
    return {
        site: (
            (0.02 * torch.randn(height, rank, generator=generator)).to(device).requires_grad_(),
            (width**-0.5 * torch.randn(rank, width, generator=generator)).to(device).requires_grad_(),
        )
        for site, (height, width) in shapes.items()
    }


def gradients(terms: Consolidation | LiteralConsolidation, factors: Mapping[str, Factors]) -> None:
    """Both terms, forward and backward."""
    both = terms.terms(factors, 1.0)
    (both.overlap + both.unshared).backward()


def median(work: Callable[[], None], rounds: int, clock: Clock) -> float:
    """Seconds, of some rounds after one that does not count."""
    work()
    seconds = []
    for _ in range(rounds):
        began = clock()
        work()
        seconds.append(clock() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
