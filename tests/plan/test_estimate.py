"""What a plan would take: what is counted without weights is what is there with them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
import torch

from cidm_cli.draw.jobs import Job
from cidm_cli.learn.batches import prepare
from cidm_cli.learn.run import Events, caption_tokens
from cidm_cli.learn.step import train_step, training
from cidm_cli.machine.hardware import Hardware
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.draw import APART, resolve_draw
from cidm_cli.plan import estimate_draw
from cidm_cli.plan import estimate_learn as estimate
from cidm_cli.plan.estimate_bases import described, without_weights
from cidm_registry import Registry
from command import Cidm
from learning import learn_direct, task

FP32, BF16 = torch.float32, torch.bfloat16


@cache
def hollow(folder: Path, hardware: str = "cpu", compute: torch.dtype = FP32) -> Base:
    """A base without weights."""
    return without_weights(described(str(folder)), Hardware(hardware, None, compute))


def steps(base: Base, pictures: Path, **options: Any) -> estimate.Phase:
    """A training step of a first concept."""
    return estimate.learning(None, (), base, task(pictures, **options))[1]


def tensors(phase: estimate.Phase) -> int:
    """Bytes of a phase but for what is assumed."""
    return phase.total - estimate.PROGRAM


# Learning


@pytest.mark.parametrize(
    ("options", "compute"),
    [
        ({}, FP32),
        ({"checkpointing": True}, FP32),
        ({"accumulate": 2, "targets": "attn1+attn2", "portable": True}, FP32),
        ({}, BF16),
    ],
)
def test_the_counted_peak_is_that_of_a_real_second_step(
    options: dict[str, Any], compute: torch.dtype, base: Base, tiny_base: Path, pictures: Path
) -> None:
    base, work = replace(base, compute=compute), task(pictures, **options)
    with estimate.watched(base) as watch:
        data = prepare(base, work.dataset, caption_tokens(base, work, Events()), work.options)
        encoding = watch.peak
        with training(base, work.name, work.noun, work.options) as trainee:
            train_step(trainee, data, work.options)
            watch.restart()
            train_step(trainee, data, work.options)
    counted = estimate.learning(None, (), hollow(tiny_base, compute=compute), work)
    assert tensors(counted[0]) == pytest.approx(encoding, rel=0.02)
    assert tensors(counted[1]) == pytest.approx(watch.peak, rel=0.02)
    assert counted[1].flops == watch.flops > 0


def test_sdxl_is_counted_as_it_is(sdxl: Base, tiny_sdxl: Path, pictures: Path) -> None:
    real, counted = (steps(one, pictures, batch=1) for one in (sdxl, hollow(tiny_sdxl)))
    assert tensors(counted) == pytest.approx(tensors(real), rel=0.02)
    assert counted.flops == real.flops


def test_what_saves_memory_is_counted_so_and_what_costs_it_too(tiny_base: Path, pictures: Path) -> None:
    plain = steps(hollow(tiny_base), pictures)
    sparing = steps(hollow(tiny_base), pictures, checkpointing=True)
    assert sparing.memory["inner values"] < 0.7 * plain.memory["inner values"]
    assert sparing.flops > 1.2 * plain.flops
    assert steps(hollow(tiny_base), pictures, batch=3).total > plain.total
    on_gpu = steps(hollow(tiny_base, "cuda", BF16), pictures)
    assert on_gpu.memory["UNet"] == plain.memory["UNet"] / 2
    assert on_gpu.memory["VAE"] == plain.memory["VAE"]
    # Nothing of [queries x keys] is kept there.
    assert on_gpu.memory["inner values"] < plain.memory["inner values"]
    # What is computed again there is computed in the same precisions: else torch refuses.
    assert steps(hollow(tiny_base, "cuda", BF16), pictures, checkpointing=True).total < on_gpu.total


def test_eight_bit_moments_are_a_quarter_where_there_are_enough_numbers(
    tiny_base: Path, pictures: Path
) -> None:
    few, many = torch.nn.Parameter(torch.zeros(4095)), torch.nn.Parameter(torch.zeros(8192))
    assert estimate.eight_bit([few]) == 8 * 4095
    assert estimate.eight_bit([many]) == 2 * 8192 + 2 * 4 * 32
    base, options = hollow(tiny_base), {"rank": 128, "targets": "attn1+attn2"}
    whole, less = (steps(base, pictures, optimizer=kind, **options) for kind in ("adamw", "adamw8bit"))
    name = "the optimizer's moments"
    assert less.memory[name] < 0.6 * whole.memory[name]
    assert whole.total - less.total == whole.memory[name] - less.memory[name]


@pytest.mark.parametrize(("name", "unet"), [("sd15", 859_520_964), ("sdxl", 2_567_463_684)])
def test_the_full_size_bases_have_as_many_numbers_as_published(name: str, unet: int) -> None:
    base = without_weights(described(name), Hardware("cuda", None, BF16))
    assert estimate.part_sizes(base)["unet"] == 2 * unet
    assert base.device.type == "cpu"


@pytest.mark.parametrize("method", ["cidm", "lwf", "ewc", "c-lora"])
def test_older_concepts_count(
    method: str, tiny_registry: Registry, base: Base, tiny_base: Path, pictures: Path
) -> None:
    learn_direct(tiny_registry, base, task(pictures, name="cat", noun="cat", method=method))
    records = tiny_registry.records()
    work = task(pictures, method=method, ewc_draws=3)
    phases = estimate.learning(tiny_registry, records, hollow(tiny_base), work)
    first = estimate.learning(None, (), hollow(tiny_base), work)
    assert phases[1].total >= first[1].total
    assert [phase.times for phase in phases] == [1, 4, 3] if method == "ewc" else [1, 4]
    if method == "lwf":
        # The teacher looks, too.
        assert phases[1].flops > 1.3 * first[1].flops


def test_the_command_needs_neither_weights_nor_the_device(
    cidm: Cidm, tiny_base: Path, pictures: Path, tmp_path: Path, no_model: None
) -> None:
    bare = tmp_path / "bare"
    copytree(tiny_base, bare, ignore=ignore_patterns("*.safetensors"))
    ran = cidm(
        "estimate",
        "learn",
        "dog",
        pictures,
        "--base",
        bare,
        "--device",
        "cuda",
        "--tflops",
        0.5,
        "--steps",
        7,
        "--json",
    )
    answer = ran.answer
    assert (ran.code, answer["compute"], answer["here"], answer["fits"]) == (0, "bfloat16", False, None)
    assert [phase["times"] for phase in answer["phases"]] == [1, 7]
    assert answer["seconds"] == pytest.approx(sum(p["flops"] * p["times"] for p in answer["phases"]) / 0.5e12)
    assert answer["card"] == 4
    assert answer["peak"] == max(sum(phase["memory"].values()) for phase in answer["phases"])


def test_the_command_takes_the_registrys_base_and_says_whether_it_fits_here(
    cidm: Cidm, tiny_registry: Registry, no_model: None
) -> None:
    ran = cidm(
        "estimate", "learn", "--registry", tiny_registry.root, "--device", "cpu", "--precision", "fp32"
    )
    assert ran.code == 0
    assert "fits in 4 GB" in ran.out
    assert "enough" in ran.out
    assert "measured with plain products" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("learn", "--base", "sd15", "--tflops", 0), 2, "--tflops"),
        (("learn", "--base", "sd15", "--batch", 0), 2, "--batch"),
        (("learn", "--base", "sd15", "--device", "abacus"), 2, "--device abacus"),
        (("learn", "--base", "./nowhere"), 3, "--base"),
        (("learn",), 3, "--base sd15"),
        (("generate", "--base", "sd15"), 2, "--prompt"),
        (("generate", "--base", "sd15", "-p", "a", "--size", "100x100"), 2, "100x100"),
    ],
)
def test_what_cannot_be_estimated_is_refused(
    arguments: tuple[Any, ...], code: int, words: str, cidm: Cidm
) -> None:
    ran = cidm("estimate", *arguments)
    assert ran.code == code
    assert words in ran.error


def test_a_base_that_offloads_has_there_what_each_phase_needs(tiny_base: Path, pictures: Path) -> None:
    base = without_weights(described(str(tiny_base)), Hardware("cuda", None, BF16), offload=True)
    encoding, step = estimate.learning(None, (), base, task(pictures))
    assert {"VAE"} == set(encoding.memory) & set(estimate.called().values())
    assert {"UNet", "text encoder"} == set(step.memory) & set(estimate.called().values())
    together = steps(hollow(tiny_base, "cuda", BF16), pictures)
    assert step.total == together.total - together.memory["VAE"]
    phases = drawn(base, "a <dog>")
    assert [next(iter(phase.memory)) for phase in phases] == ["text encoder", "UNet", "VAE"]
    held = drawn(hollow(tiny_base, "cuda", BF16), "a <dog>")
    # The originals of merged layers wait, too.
    assert phases[1].memory["inner values"] < held[1].memory["inner values"]


# Drawing


def drawn(base: Base, prompt: str = "a photo of a dog", **options: Any) -> tuple[estimate.Phase, ...]:
    options = {"steps": 10, **options}
    job = Job(prompt, resolve_draw(options, "sd15", base.pixels))
    return estimate_draw.drawing(None, estimate_draw.made_up(estimate_draw.named_in(job)), base, job)


@pytest.mark.parametrize("method", APART)
def test_concepts_that_are_kept_apart_are_counted_too(tiny_base: Path, method: str) -> None:
    base = hollow(tiny_base)
    named, apart = (drawn(base, "a <dog> and a <cat>", method=m) for m in ("named", method))
    assert sum(p.flops * p.times for p in apart) == pytest.approx(
        sum(p.flops * p.times for p in named), rel=0.3
    )


def test_drawing_is_counted_as_it_is(base: Base, tiny_base: Path) -> None:
    for real, counted in zip(drawn(base, count=2), drawn(hollow(tiny_base), count=2), strict=True):
        assert (real.name, real.times, real.flops) == (counted.name, counted.times, counted.flops)
        assert tensors(counted) == pytest.approx(tensors(real), rel=0.02)


def test_steps_batches_and_samplers_decide_how_often_the_unet_is_asked(tiny_base: Path) -> None:
    base = hollow(tiny_base)
    one = {phase.name: phase for phase in drawn(base)}
    many = {phase.name: phase for phase in drawn(base, count=5, batch=2)}
    asked, decoded = estimate_draw.DENOISING, estimate_draw.DECODING
    assert (one[asked].times, many[asked].times, many[decoded].times) == (10, 30, 3)
    assert many[asked].flops == pytest.approx(2 * one[asked].flops, rel=0.02)
    assert drawn(base, sampler="heun")[1].times == 19
    wide = drawn(base, size=(128, 64))
    assert wide[1].flops > 1.8 * one[asked].flops
    assert wide[-1].total > one[decoded].total


def test_a_region_costs_an_evaluation_but_for_fast_layouts(
    cidm: Cidm, tiny_base: Path, tmp_path: Path
) -> None:
    def evaluation(mode: str) -> float:
        file = tmp_path / f"{mode}.toml"
        boxes = "".join(
            f'[[region]]\nprompt = "a <{name}>"\nbox = [{left}, 0.0, {left + 0.5}, 1.0]\n'
            for name, left in (("dog", 0.0), ("cat", 0.5))
        )
        file.write_text(
            f'version = 1\n[image]\nmode = "{mode}"\ncrops = false\n[base]\nprompt = "a photo"\n{boxes}'
        )
        ran = cidm("estimate", "generate", file, "--base", tiny_base, "--tflops", 1, "--json")
        assert ran.code == 0, ran.err
        return ran.answer["phases"][1]["flops"]

    # Without and with the whole prompt; each region once more.
    assert evaluation("full") == pytest.approx(2 * evaluation("fast"), rel=0.05)


def test_an_unknown_concept_of_a_registry_is_refused(cidm: Cidm, tiny_registry: Registry) -> None:
    ran = cidm("estimate", "generate", "-p", "a <dog>", "--registry", tiny_registry.root)
    assert ran.code == 3
    assert "dog" in ran.error


def test_a_registry_whose_base_is_gone_is_estimated_by_its_family(
    cidm: Cidm, tmp_path: Path, tiny_base: Path
) -> None:
    copytree(tiny_base, tmp_path / "moved")
    Registry.create(tmp_path / "registry", identify(str(tmp_path / "moved")))
    (tmp_path / "moved").rename(tmp_path / "away")
    about = cidm("estimate", "learn", "--registry", tmp_path / "registry", "--tflops", 0, "--json")
    assert about.code == 2  # refused for the speed, before anything is built
    from cidm_cli.plan.estimate_bases import described_in

    assert described_in(Registry.open(tmp_path / "registry")).place.name == "sd15"
