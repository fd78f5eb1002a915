"""Time of a training step over that of a plain loop written with diffusers and PEFT. Prints one JSON object.

Same base, LoRA sites, rank, batch, optimizer and precision; the three kinds of step take turns in one run, so that
a noisy machine is noisy for all. ``ratio``: our step with concept tokens that all layers share (one text encoding)
over the plain step. ``layerwise_text_ratio``: our step as it is, with tokens of their own for every layer, over the
plain step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from peft import LoraConfig
from torch import nn
from torch.nn import functional as F

from cidm_cli.data import load_examples
from cidm_cli.demo import tasks_folder
from cidm_cli.judge.tasks import load_tasks
from cidm_cli.learn import run as learn
from cidm_cli.learn.assignment import Task
from cidm_cli.learn.batches import Prepared, prepare
from cidm_cli.learn.step import train_step, training
from cidm_cli.models.base import Base
from cidm_cli.models.identity import MINI, identify
from cidm_cli.models.opening import open_base
from cidm_cli.options.learn import LearnOptions, resolve_learn
from cidm_registry import Registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="turns of each kind of step")
    parser.add_argument("--block", type=int, default=4, help="steps in a turn")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), given.rounds, given.block)))


def measure(folder: Path, rounds: int, block: int) -> dict[str, object]:
    """The ratios, and the medians they come from."""
    registry = Registry.create(folder / "registry", identify(MINI))
    task = load_tasks(tasks_folder())[0]
    dataset = load_examples(task.images, class_noun=task.class_noun)
    options = resolve_learn({"steps": 100_000}, MINI)
    work = Task(task.name, task.class_noun, task.style, dataset, options, False, False, False)

    def base() -> Base:
        return open_base(registry, device="auto", precision="auto")

    ours, shared, plain = base(), base(), base()
    data = prepare(ours, dataset, learn.caption_tokens(ours, work, learn.Events()), options)
    with (
        training(ours, task.name, task.class_noun, options) as own,
        training(shared, task.name, task.class_noun, options) as common,
    ):
        # One set of tokens for all layers, in place of one each.
        common.tokens = nn.Parameter(common.tokens.data[:1].clone())
        common.optimizer.param_groups[1]["params"] = [common.tokens]
        steps: dict[str, Callable[[], object]] = {
            "layerwise": lambda: train_step(own, data, options),
            "shared": lambda: train_step(common, data, options),
            "plain": plain_loop(plain, list(own.factors), data, dataset, options),
        }
        for step in steps.values():
            step()
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                began = time.perf_counter()
                for _ in range(block):
                    step()
                seconds[name].append((time.perf_counter() - began) / block)
    ratios = [a / b for a, b in zip(seconds["shared"], seconds["plain"], strict=True)]
    layerwise = [a / b for a, b in zip(seconds["layerwise"], seconds["plain"], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "layerwise_text_ratio": statistics.median(layerwise),
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "spread": {"ratio": [min(ratios), max(ratios)], "layerwise_text_ratio": [min(layerwise), max(layerwise)]},
        "batch": options.batch, "rank": options.rank, "device": plain.device.type,
        "compute": str(plain.compute).removeprefix("torch."),
    }  # fmt: skip


def plain_loop(
    base: Base, sites: list[str], data: Prepared, dataset: object, options: LearnOptions
) -> Callable[[], object]:
    """A LoRA training step as the libraries' own examples write it: cached latents, captions encoded every step."""
    base.denoiser.add_adapter(LoraConfig(r=options.rank, lora_alpha=options.rank, target_modules=sites))
    parameters = [p for p in base.denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr)
    schedule = DDPMScheduler.from_config(base.scheduler_config)
    captions = [example.caption for example in dataset.examples]  # type: ignore[attr-defined]

    def step() -> None:
        picture = torch.randint(len(captions), (options.batch,))
        variant = torch.randint(len(data.mean[0]), (options.batch,))
        clean = torch.stack(data.mean)[picture, variant]
        clean = clean + torch.stack(data.std)[picture, variant] * torch.randn_like(clean)
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (options.batch,), device=base.device)
        with torch.no_grad(), base.autocast():
            ids = base.tokenizers[0](
                [captions[k] for k in picture], padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids.to(base.device)
            context = base.encoders[0](ids).last_hidden_state
        with base.autocast():
            prediction = base.denoiser(schedule.add_noise(clean, noise, t), t, context).sample
        wanted = schedule.get_velocity(clean, noise, t) if base.prediction == "v_prediction" else noise
        loss = F.mse_loss(prediction.float(), wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


if __name__ == "__main__":
    main()
