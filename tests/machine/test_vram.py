"""--vram: what is filled in, what wins over it, what is recorded and told; and what is advised when memory runs out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cidm_cli.bases import family
from cidm_cli.draw import png
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.machine import computing
from cidm_cli.models import memory, sampling
from cidm_cli.models import opening as bases
from cidm_cli.models.base import Base, choose_compute
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.learn import resolve_learn
from cidm_registry import Registry
from command import Cidm
from learning import FAST, files_of, learn_direct, task

SIZES = (8, 12, 16, 24)
LEARN, DRAW = ({kind: family(kind).memory[work] for kind in ("sd15", "sdxl")} for work in ("learn", "draw"))


@pytest.fixture
def no_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "find_spec", lambda name: None)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How bases were asked for; they are opened plainly, so that the tests run alike on every machine."""
    asked: list[dict[str, Any]] = []
    real = bases.bases.load

    def load(*args: Any, **said: Any) -> Base:
        asked.append(said)
        return real(*args, **{**said, "offload": False, "compute": torch.float32})

    monkeypatch.setattr(bases.bases, "load", load)
    return asked


def test_every_preset_is_one_that_can_be_learned_and_drawn_with() -> None:
    for kind in ("sd15", "sdxl"):
        assert tuple(LEARN[kind]) == tuple(DRAW[kind]) == SIZES
        for size in SIZES:
            resolve_learn(LEARN[kind][size].options, kind)
            resolve_draw(DRAW[kind][size].options, kind, 512)


def test_less_memory_never_fills_in_less_thrift() -> None:
    for table in (LEARN, DRAW):
        for kind in ("sd15", "sdxl"):
            plans = [table[kind][size] for size in SIZES]
            for small, large in pairwise(plans):
                assert small.offload >= large.offload
                assert small.whole <= large.whole
                assert small.options.get("checkpointing", False) >= large.options.get("checkpointing", False)
                assert small.options.get("batch", 4) <= large.options.get("batch", 4)
        for size in SIZES:
            assert table["sdxl"][size].offload >= table["sd15"][size].offload
    assert not any("batch" in plan.options for kind in LEARN for plan in LEARN[kind].values()), (
        "what a step sees is nobody's to change but the user's"
    )


def test_what_is_filled_in_is_learned_with_recorded_and_resumed_with(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, opened: list[dict[str, Any]], no_8_bits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(LEARN["sd15"], 8, LEARN["sdxl"][8])  # type: ignore[index]
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--vram", 8)
    assert ran.code == 0, ran.err
    assert "bitsandbytes is not installed" in ran.err
    (record,) = tiny_registry.records()
    told = record.config["options"]
    assert (told["checkpointing"], told["optimizer"]) == (True, "adamw")
    assert told["batch"] == 2, "what is said wins"
    assert (opened[0]["offload"], opened[0]["whole"]) == (True, LEARN["sdxl"][8].whole)


def test_flags_and_settings_win_over_the_preset_and_a_settings_file_may_name_it(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, opened: list[dict[str, Any]], no_8_bits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(LEARN["sd15"], 8, LEARN["sdxl"][8])  # type: ignore[index]
    Path("cidm.toml").write_text("vram = 8\n[learn]\ncheckpointing = false\n")
    learn = ("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--dry-run", "--json")
    told = cidm(*learn, "--no-offload", "--precision", "fp32").answer["vram"]
    assert (told["checkpointing"], told["offload"], told["precision"]) == (False, False, "fp32")
    monkeypatch.setenv("CIDM_OFFLOAD", "false")
    monkeypatch.setenv("CIDM_LEARN_CHECKPOINTING", "true")
    told = cidm(*learn).answer["vram"]
    assert (told["checkpointing"], told["offload"], told["precision"]) == (True, False, "half")
    assert [said["offload"] for said in opened] == [False, False]


def test_a_dry_run_tells_what_was_chosen(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, opened: list[dict[str, Any]]
) -> None:
    learn = ("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--dry-run")
    ran = cidm(*learn, "--vram", 8)
    line = next(line for line in ran.out.splitlines() if line.startswith("for 8 GB: "))
    assert f"offload {str(LEARN['sd15'][8].offload).lower()}" in line
    assert "precision half" in line
    assert "for 8 GB" not in cidm(*learn).out


def test_drawing_fills_in_its_own_and_tells_tiles_only_where_they_were(
    cidm: Cidm, base: Base, tiny_registry: Registry, pictures: Path, opened: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    learn_direct(tiny_registry, base, task(pictures))
    small = replace(DRAW["sdxl"][8], whole=64 * 64)
    monkeypatch.setitem(DRAW["sd15"], 8, small)  # type: ignore[index]
    draws = ("generate", "-p", "a <dog>", "--registry", tiny_registry.root, "--steps", 1, "--vram", 8)
    assert cidm(*draws, "-o", "small").code == 0
    assert cidm(*draws, "-o", "large", "--size", "128x128").code == 0
    (first,), (second,) = (list(Path(name).glob("*.png")) for name in ("small", "large"))
    assert png.read_facts(first)["options"]["batch"] == 2
    assert "whole" not in png.read_facts(first)
    assert png.read_facts(second)["whole"] == 64 * 64
    assert cidm("generate", "--from", second, "--registry", tiny_registry.root, "-o", "again").code == 0
    assert files_of(Path("again")) == files_of(Path("large"))
    assert opened[-1]["whole"] == 64 * 64


def test_a_picture_that_tells_impossible_tiles_is_drawn_as_ever(
    cidm: Cidm, base: Base, tiny_registry: Registry, pictures: Path, opened: list[dict[str, Any]]
) -> None:
    learn_direct(tiny_registry, base, task(pictures))
    at = ("--registry", tiny_registry.root)
    assert cidm("generate", "-p", "a <dog>", *at, "--steps", 1, "-o", "one.png").code == 0
    facts = png.read_facts(Path("one.png"))
    for whole in (-5, [1], "x", True, 2.5):
        with Image.open("one.png") as image:
            Path("odd.png").write_bytes(png.encode(image, {**facts, "whole": whole}))
        assert cidm("generate", "--from", "odd.png", *at, "-o", "again.png").code == 0
        assert opened[-1]["whole"] == bases.bases.WHOLE


def test_a_memory_without_a_plan_is_refused_and_a_small_base_needs_none(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None
) -> None:
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, "--vram", 10)
    assert ran.code == ExitCode.USAGE
    assert "--vram 10: must be 8, 12, 16 or 24" in ran.error
    mini = Registry.create(tiny_registry.root.with_name("mini"), replace(tiny_registry.base, kind="mini"))
    ran = cidm("generate", "-p", "a <dgo>", "--registry", mini.root, "--vram", 8)
    assert "a base like mini fits anywhere" in ran.err


@pytest.mark.parametrize(
    ("name", "fast", "device", "chosen"),
    [
        ("half", True, "cuda", torch.bfloat16),
        ("half", False, "cuda", torch.float16),
        ("auto", False, "cuda", torch.float32),
        ("half", False, "cpu", torch.float32),
    ],
)
def test_half_is_float16_where_a_gpu_lacks_bfloat16(
    name: str, fast: bool, device: str, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)
    assert choose_compute(name, torch.device(device)) == chosen


# Too little memory


def gpu(base: Base, **more: Any) -> Base:
    return replace(base, device=torch.device("cuda"), **more)


def test_a_training_on_a_gpu_is_advised_in_the_order_of_what_it_costs(base: Base) -> None:
    options = resolve_learn(dict(batch=2), "sd15")
    hint = memory.advice(gpu(base), options)
    flags = "--checkpointing --offload --accumulate --precision --optimizer --vram --device".split()
    places = [hint.index(flag) for flag in flags]
    assert places == sorted(places)
    assert "--offload" not in memory.advice(gpu(base, offload=True), options)
    assert "--offload" not in memory.advice(base, options)
    assert "--vram" not in memory.advice(base, options)


@pytest.mark.parametrize("command", ["generate", "stylize"])
def test_out_of_memory_while_drawing_says_which_options_help(
    command: str,
    cidm: Cidm,
    base: Base,
    tiny_registry: Registry,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learn_direct(tiny_registry, base, task(pictures))

    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(sampling, "denoise", fails)
    what = ("-p", "a <dog>") if command == "generate" else (pictures / "0.png", "--style", "dog")
    ran = cidm(
        command, *what, "--registry", tiny_registry.root, "--steps", 1, "--size", "128x64", "-o", "out"
    )
    assert ran.code == ExitCode.OUT_OF_MEMORY
    assert "--batch 1" in ran.error
    assert "--size 64x64" in ran.error


def test_drawing_on_a_gpu_is_advised_to_offload_first(base: Base) -> None:
    options = resolve_draw({}, "sd15", base.pixels)
    hint = memory.drawing_advice(gpu(base), options)
    places = [
        hint.index(flag) for flag in ("--offload", "--batch 1", "--precision half", "--vram", "--device")
    ]
    assert places == sorted(places)
    with pytest.raises(CidmError) as caught, memory.advised_drawing(base, options):
        raise MemoryError
    assert caught.value.code == ExitCode.OUT_OF_MEMORY
