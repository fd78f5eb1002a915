"""The embedded base's second judge: its loss, its acceptance figure, and that stock transformers opens it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, ResNetConfig, ResNetModel

from tools.mini import pack, selfsup
from tools.mini.training import save_checkpoint


def test_the_loss_is_that_of_the_paper_written_out_in_loops() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(5, 7), torch.randn(5, 7)
    rows = [row.tolist() for row in (*first, *second)]

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    losses = []
    for i in range(10):
        others = [math.exp(cosine(rows[i], rows[k]) / 0.3) for k in range(10) if k != i]
        losses.append(-math.log(math.exp(cosine(rows[i], rows[(i + 5) % 10]) / 0.3) / sum(others)))
    assert float(selfsup.nt_xent(first, second, 0.3)) == pytest.approx(sum(losses) / 10, rel=1e-5)


def test_the_acceptance_figure_leaves_each_picture_itself_out() -> None:
    labels = torch.arange(6) // 2
    apart = torch.eye(3).repeat_interleave(2, 0)
    assert selfsup.nearest_is_same(apart, labels) == 1.0
    # Every picture's nearest other one is of the next drawing.
    mixed = torch.eye(3).roll(1, 0).repeat(2, 1)
    assert selfsup.nearest_is_same(mixed, labels) == 0.0


def test_other_colours_keep_shape_and_shading_of_coloured_and_of_grey_drawings() -> None:
    rng = np.random.default_rng(0)
    for colours in ((220, 60, 40), (128, 128, 128)):
        pixels = np.zeros((32, 32, 4), np.uint8)
        pixels[4:28, 4:28, :3] = np.array(colours) * np.linspace(0.5, 1, 24)[:, None, None]
        pixels[4:28, 4:28, 3] = 255
        sprite = Image.fromarray(pixels)
        other = np.asarray(selfsup.in_other_colours(sprite, rng), np.float32)
        assert np.array_equal(other[:, :, 3], pixels[:, :, 3])
        moved = np.abs(other[4:28, 4:28, :3] - pixels[4:28, 4:28, :3]).mean()
        assert moved > 25
        rows = other[4:28, 4:28, :3].sum((1, 2))
        assert (np.diff(rows) >= 0).all()
        assert rows[-1] > 1.3 * rows[0]


def test_stock_transformers_opens_the_packed_judge_in_float32_and_sees_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ResNetModel(ResNetConfig(**selfsup.CONFIG)).eval()
    save_checkpoint(tmp_path / "selfsup.safetensors", {"average": model.state_dict()}, {})
    (tmp_path / "out").mkdir()
    beside = tmp_path / "out" / "model_index.json"
    beside.write_text("{}")
    pack.pack_judge(pack.load_judge(tmp_path), tmp_path / "out")

    folder = tmp_path / "out" / "dino"
    opened, told = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values())
    assert opened.dtype == torch.float32
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2.5e6
    assert beside.read_text() == "{}"
    pictures = torch.rand(3, 3, 64, 64) * 2 - 1
    seen = selfsup.embed(opened.eval(), pictures)
    assert seen.shape == (3, 192)
    assert torch.allclose(seen, selfsup.embed(model, pictures), atol=2e-3)
