"""FLUX.2 klein and Z-Image: what is counted of them without weights."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from cidm_cli.bases import family
from cidm_cli.draw.jobs import Job
from cidm_cli.machine.computing import MEMORIES
from cidm_cli.models.identity import settings_folder
from cidm_cli.models.skeleton import skeleton
from cidm_cli.options.draw import resolve_draw
from cidm_cli.plan import estimate_draw, estimate_learn
from learning import task


def test_what_it_takes_is_counted_without_weights_and_the_encoder_waits_elsewhere(
    joint_kind: str, joint_small: ModuleType, pictures: Path, tmp_path: Path
) -> None:
    folder = joint_small.save(tmp_path / "base")
    hollow = skeleton(folder, hardware="cuda", compute=torch.bfloat16, offload=True)
    work = task(pictures, kind=joint_kind, checkpointing=True, batch=1, variants=1)
    encoding, step = estimate_learn.learning(None, (), hollow, work)
    assert "transformer" in step.memory
    assert not {"text encoder", "VAE"} & step.memory.keys(), (
        "with --offload a step needs the transformer alone"
    )
    assert encoding.memory.keys() > {"VAE"}
    options = resolve_draw({"steps": 3}, joint_kind, hollow.pixels)
    records = estimate_draw.made_up(["dog"])
    phases = estimate_draw.drawing(None, records, hollow, Job("a <dog>", options))
    assert [phase.times for phase in phases] == [1, 3, 1]
    assert all(phase.flops for phase in phases)


@pytest.mark.parametrize(
    ("kind", "gibibytes", "smallest"), [("flux2-klein", 7.22, 12), ("z-image", 11.46, 16)]
)
def test_plans_begin_where_the_full_size_transformer_fits(kind: str, gibibytes: float, smallest: int) -> None:
    hollow = skeleton(settings_folder(kind), hardware="cuda", compute=torch.bfloat16, offload=True)
    size = estimate_learn.part_sizes(hollow)["transformer"]
    assert size / (1 << 30) == pytest.approx(gibibytes, rel=0.01)
    fitting = [m for m in MEMORIES if estimate_learn.holds(m << 30, size + estimate_learn.PROGRAM)]
    for work in ("learn", "draw"):
        assert sorted(family(kind).memory[work]) == fitting
    assert fitting[0] == smallest
