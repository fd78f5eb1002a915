"""Learning at the size of Stable Diffusion 1.5 and SDXL, over a plain diffusers + PEFT loop. Prints one JSON object.

The architectures at full size with random weights: what a step costs does not depend on them. Both loops have the same
LoRA sites, rank, batch, precision, AdamW and latents encoded beforehand, and one trained token for the concept
(ours: for each layer or group of layers, and its class noun's). The plain loop encodes the caption once in every step;
ours once for each set of tokens.

Each kind of step is a process of its own, so that its peak memory (of the GPU, else of the process) is its own; they
take turns, so that a noisy machine is noisy for all. ``time_ratio`` and ``memory_ratio``: learning a first concept over
the plain loop. ``text_share``: what part of our step the texts are, forward and backward. ``older``: learning with an
older concept to mind over learning the first.

``--clock cpu`` counts processor time, for a machine that others use too; ``--side`` makes the pictures smaller.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig

from benchmarks.aggregation_cost import fill
from cidm_cli import bases
from cidm_cli.data import Dataset, load_examples
from cidm_cli.learn import methods
from cidm_cli.learn import run as learn
from cidm_cli.learn.assignment import Task
from cidm_cli.learn.batches import Prepared, draw, prepare
from cidm_cli.learn.step import Trainee, train_step, training
from cidm_cli.models import text
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base, choose_compute, choose_device, peak_memory
from cidm_cli.models.identity import settings_folder
from cidm_cli.models.loading import architecture
from cidm_cli.models.sd_parts import ENCODERS, clip_tokenizer
from cidm_cli.options.learn import LearnOptions, resolve_learn
from cidm_registry import BaseRef, Registry

SIDES = {"sd15": 512, "sdxl": 1024}
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--side", type=int, help="of the pictures in pixels, else the family's own")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each kind of step")
    parser.add_argument("--block", type=int, default=2, help="steps in a turn")
    parser.add_argument("--batch", type=int, help="pictures in a step, else the family's default")
    parser.add_argument("--checkpointing", action="store_true", help="in both loops")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--kind", choices=list(KINDS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.kind:
        serve(given)
        return
    print(json.dumps(measure(given)))


# The process that compares


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The figures of each family."""
    device = choose_device("auto")
    report: dict[str, Any] = {}
    for family in given.families:
        if family == "sdxl" and device.type == "cpu":
            report[family] = {"left_out": "no GPU: its weights alone take 14 GB in float32"}
            continue
        plain = compared(given, family, "plain", "first")
        older = compared(given, family, "first", "older")
        first = plain["answers"]["first"]
        report[family] = {
            "time_ratio": plain["time_ratio"], "memory_ratio": plain["memory_ratio"],
            "text_share": first["text_seconds"] / plain["seconds"]["first"],
            "older": {name: older[name] for name in ("time_ratio", "memory_ratio")},
            "seconds": plain["seconds"], "spread": plain["spread"], "memory": plain["memory"],
            "side": given.side or SIDES[family], **first["settings"],
        }  # fmt: skip
    report["device"] = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    return report | {"threads": torch.get_num_threads(), "clock": given.clock, "rounds": given.rounds}


def compared(given: argparse.Namespace, family: str, one: str, other: str) -> dict[str, Any]:
    """Two kinds of steps taking turns: the second over the first."""
    children = {kind: start(given, family, kind) for kind in (one, other)}
    try:
        seconds: dict[str, list[float]] = {kind: [] for kind in children}
        for _ in range(given.rounds):
            for kind, child in children.items():
                seconds[kind].append(ask(child, "steps")["seconds"])
        answers = {kind: ask(child, "peak") for kind, child in children.items()}
        answers = {kind: answers[kind] | ask(child, "text") for kind, child in children.items()}
    finally:
        for child in children.values():
            child.stdin.close()
            child.wait()
    ratios = [b / a for a, b in zip(seconds[one], seconds[other], strict=True)]
    return {
        "time_ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)],
        "memory_ratio": answers[other]["memory"] / answers[one]["memory"],
        "seconds": {kind: statistics.median(values) for kind, values in seconds.items()},
        "memory": {kind: answer["memory"] for kind, answer in answers.items()}, "answers": answers,
    }  # fmt: skip


def start(given: argparse.Namespace, family: str, kind: str) -> Any:
    """The process of one kind of step, warmed up."""
    flags = ["--kind", kind, "--families", family, "--block", str(given.block), "--clock", given.clock]
    flags += ["--precision", given.precision, "--side", str(given.side or SIDES[family])]
    flags += ["--batch", str(given.batch)] if given.batch else []
    flags += ["--checkpointing"] if given.checkpointing else []
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.real_size", *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    ask(child, "steps")
    return child


def ask(child: Any, word: str) -> dict[str, Any]:
    child.stdin.write(word + "\n")
    child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"a process that measures ended with {child.wait()}")
    return json.loads(line)  # type: ignore[no-any-return]


# The processes that are measured


def serve(given: argparse.Namespace) -> None:
    """Answers each word on standard input with a line of JSON."""
    (family,) = given.families
    device = choose_device("auto")
    base = random_base(family, given.side, device, choose_compute(given.precision, device))
    options = resolve_learn(
        dict(steps=100_000, batch=given.batch, crop=False, buckets=False, checkpointing=given.checkpointing),
        family,
    )
    with tempfile.TemporaryDirectory() as scratch:
        KINDS[given.kind](given, Path(scratch), base, options)


def ours(
    given: argparse.Namespace, folder: Path, base: Base, options: LearnOptions, *, older: int = 0
) -> None:
    """What `cidm learn` does, from the pictures on."""
    registry = Registry.create(
        folder / "registry", BaseRef(kind=base.family.name, source="random", fingerprint="0" * 64)
    )
    fill(registry, base, older)
    dataset = pictures(folder, base.pixels)
    work = Task("rex", "dog", False, dataset, options, False, False, False)
    captions = learn.caption_tokens(base, work, learn.Events())
    method = methods.build(registry, base, registry.records(), "rex", learn.placed_captions(work), options)
    data = prepare(base, dataset, captions, options)
    with training(base, "rex", "dog", options, method) as trainee:
        answer(
            given, base, options, lambda: train_step(trainee, data, options),
            lambda: texts(trainee, data, options), copies=len(trainee.tokens), sites=len(trainee.factors),
        )  # fmt: skip


def texts(trainee: Trainee, data: Prepared, options: LearnOptions) -> None:
    """A step's share of the text encoders."""
    layers = len(trainee.base.layers)
    prompts = draw(data, options, trainee.step, len(trainee.schedule.times)).prompts
    contexts = text.encode(trainee.base, prompts, {trainee.name: trainee.tokens}, layers=layers)
    torch.stack([context.mean() for context in contexts]).sum().backward()
    trainee.tokens.grad = None


def plain(given: argparse.Namespace, folder: Path, base: Base, options: LearnOptions) -> None:
    """A LoRA and a token trained as the libraries' own examples do it."""
    dataset = pictures(folder, base.pixels)
    data = prepare(base, dataset, [text.tokenize(base, ["a dog"])] * len(dataset.examples), options)
    sites = list(lora_sites(base.denoiser))
    base.denoiser.add_adapter(LoraConfig(r=options.rank, lora_alpha=options.rank, target_modules=sites))
    cast_training_params(base.denoiser, dtype=torch.float32)
    if options.checkpointing:
        base.denoiser.enable_gradient_checkpointing()
    factors = [p for p in base.denoiser.parameters() if p.requires_grad]
    tokenizers = base.tokenizers
    tables = [encoder.get_input_embeddings() for encoder in base.encoders]
    tokens = [nn.Parameter(0.02 * torch.randn(table.embedding_dim, device=base.device)) for table in tables]
    word = tokenizers[0]("rex", add_special_tokens=False).input_ids[0]
    for table, token in zip(tables, tokens, strict=True):
        table.register_forward_hook(
            lambda _, args, out, token=token: torch.where((args[0] == word)[..., None], token.to(out), out)
        )
    optimizer = torch.optim.AdamW(
        [{"params": factors, "lr": options.lr}, {"params": tokens, "lr": options.token_lr}],
        weight_decay=options.weight_decay,
    )
    schedule = DDPMScheduler.from_config(base.scheduler_config)
    captions = [example.caption.replace("dog", "rex dog") for example in dataset.examples]

    def step() -> None:
        shown = torch.randint(len(captions), (options.batch,)).tolist()
        clean = torch.stack(
            [data.mean[k][0] + data.std[k][0] * torch.randn_like(data.std[k][0]) for k in shown]
        )
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (options.batch,), device=base.device)
        context, added = [], None
        with base.autocast():
            for words, encoder in zip(tokenizers, base.encoders, strict=True):
                ids = words(
                    [captions[k] for k in shown], padding="max_length", truncation=True, return_tensors="pt"
                ).input_ids.to(base.device)
                if len(base.encoders) == 1:
                    context.append(encoder(ids).last_hidden_state)
                    continue
                out = encoder(ids, output_hidden_states=True)
                context.append(out.hidden_states[-2])
                added = {"text_embeds": out[0], "time_ids": data.sizes[shown, 0]}
            seen = torch.cat(context, -1)
            prediction = base.denoiser(
                schedule.add_noise(clean, noise, t), t, seen, added_cond_kwargs=added
            ).sample
        loss = F.mse_loss(prediction.float(), noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    answer(given, base, options, step, None, copies=1, sites=len(sites))


KINDS: Mapping[str, Callable[[argparse.Namespace, Path, Base, LearnOptions], None]] = {
    "plain": plain,
    "first": ours,
    "older": lambda *given: ours(*given, older=1),
}


def answer(
    given: argparse.Namespace,
    base: Base,
    options: LearnOptions,
    step: Callable[[], object],
    encode: Callable[[], None] | None,
    **counts: int,
) -> None:
    """Does what is asked for until nobody asks any more."""
    clock = CLOCKS[given.clock]

    def seconds(work: Callable[[], object]) -> float:
        began = clock()
        for _ in range(given.block):
            work()
        if base.device.type == "cuda":
            torch.cuda.synchronize()
        return (clock() - began) / given.block

    for line in sys.stdin:
        if line.strip() == "steps":
            told: dict[str, Any] = {"seconds": seconds(step)}
        elif line.strip() == "text":
            told = {} if encode is None else {"text_seconds": seconds(encode)}
        else:
            settings = {
                name: getattr(options, name) for name in ("batch", "rank", "targets", "checkpointing")
            }
            compute = str(base.compute).removeprefix("torch.")
            told = {"memory": peak_memory(base), "settings": settings | {"compute": compute} | counts}
        print(json.dumps(told), flush=True)


def random_base(family: str, side: int, device: torch.device, compute: torch.dtype) -> Base:
    """A base of the family's full size with random weights, whose pictures have that side."""
    folder = settings_folder(family)
    settings = UNet2DConditionModel.load_config(folder, subfolder="unet") | {"sample_size": side // 8}
    chosen = ENCODERS[: 1 + (family == "sdxl")]
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(settings)
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))
        encoders = [cls(CLIPTextConfig.from_pretrained(folder, subfolder=part)) for part, _, cls, _ in chosen]
    for part in (unet, vae, *encoders):
        half = part is not vae and device.type != "cpu"
        fill_in(part.to_empty(device=device).to(compute if half else torch.float32))
    return Base(
        family=bases.family(family), architecture=architecture(bases.family(family)), denoiser=unet, vae=vae,
        encoders=tuple(encoders), tokenizers=tuple(clip_tokenizer(pad) for _, _, _, pad in chosen),
        scheduler_config=dict(DDPMScheduler.load_config(folder, subfolder="scheduler")), device=device, compute=compute,
        zero_empty=family == "sdxl",
    )  # fmt: skip


@torch.no_grad()
def fill_in(model: nn.Module) -> None:
    """Small random weights, norms that scale by one, and positions counted up."""
    model.requires_grad_(False).eval()
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            bound = weight[0].numel() ** -0.5
            weight.uniform_(-bound, bound)
        else:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
    for positions in model.buffers():
        positions.copy_(torch.arange(positions.shape[-1]).expand_as(positions))


def pictures(folder: Path, side: int) -> Dataset:
    """One, of noise."""
    place = folder / "pictures"
    place.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(place / "0.png")
    return load_examples(place, class_noun="dog", caption_template="a photo of a {noun}")


if __name__ == "__main__":
    main()
