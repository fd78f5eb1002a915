"""The figures of an evaluation, each against the sentence that defines it."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from cidm_cli.method.metrics import (
    LEAST_GAIN,
    clip_score,
    confusion,
    counts,
    forgetting,
    image_alignment,
    nearest,
    retention,
    standard_error,
    text_alignment,
)

GENERATOR = torch.Generator().manual_seed(5)
WIDTH = 6


def units(rows: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, WIDTH, generator=GENERATOR), dim=1)


SAMPLES = units(8)
REFERENCES = [units(3), units(5), units(2)]


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    pairs = list(zip(one.tolist(), other.tolist(), strict=True))
    lengths = [math.sqrt(sum(v * v for v in side)) for side in (one.tolist(), other.tolist())]
    return sum(a * b for a, b in pairs) / (lengths[0] * lengths[1])


def mean_cosine(sample: torch.Tensor, references: torch.Tensor) -> float:
    return statistics.fmean(cosine(sample, reference) for reference in references)


def test_image_alignment_is_the_mean_cosine_over_all_pairs() -> None:
    out = image_alignment(SAMPLES, REFERENCES[0])
    assert out.tolist() == pytest.approx([mean_cosine(s, REFERENCES[0]) for s in SAMPLES], abs=1e-6)


def test_text_alignment_pairs_each_sample_with_its_own_text() -> None:
    texts = units(8)
    out = text_alignment(SAMPLES, texts)
    assert out.tolist() == pytest.approx(
        [cosine(s, t) for s, t in zip(SAMPLES, texts, strict=True)], abs=1e-6
    )


def test_clip_score_is_two_and_a_half_times_the_cosine_and_never_negative() -> None:
    assert clip_score(torch.tensor([0.4, 0.0, -0.3])).tolist() == pytest.approx([1.0, 0.0, 0.0])


def test_nearest_is_the_concept_with_the_highest_mean_cosine() -> None:
    wanted = [max(range(3), key=lambda i, s=s: mean_cosine(s, REFERENCES[i])) for s in SAMPLES]
    assert nearest(SAMPLES, REFERENCES).tolist() == wanted
    assert len(set(wanted)) > 1, "the case is not trivial"


def test_more_references_do_not_make_a_concept_nearer() -> None:
    """Mean, not sum or maximum: five copies of a picture weigh as one."""
    near, far = SAMPLES[:1], units(1)
    assert nearest(near, [far.repeat(5, 1), near]).tolist() == [1]


def test_counts_and_confusion_are_a_row_and_its_share_off_the_diagonal() -> None:
    row = counts(torch.tensor([2, 0, 2, 2, 1, 2]), 4)
    assert row == [1, 1, 4, 0]
    assert confusion(row, 2) == pytest.approx(2 / 6)
    assert confusion([0, 5], 1) == 0
    assert confusion([5, 0], 1) == 1


@pytest.mark.parametrize(
    ("history", "lost"), [([0.8], 0.0), ([0.7, 0.9, 0.6], 0.3), ([0.5, 0.6, 0.7], 0.0), ([0.9, 0.4], 0.5)]
)
def test_forgetting_is_the_best_so_far_less_the_last(history: list[float], lost: float) -> None:
    assert forgetting(history) == pytest.approx(lost)


@pytest.mark.parametrize(("final", "share"), [(0.9, 1.0), (0.5, 0.0), (0.7, 0.5), (0.4, -0.25), (1.0, 1.25)])
def test_retention_is_the_share_of_the_own_loras_gain_that_is_left(final: float, share: float) -> None:
    assert retention(final, base=0.5, single=0.9) == pytest.approx(share)


@pytest.mark.parametrize("single", [0.5, 0.4, 0.5 + LEAST_GAIN / 2])
def test_retention_is_unknown_where_the_own_lora_gained_nothing(single: float) -> None:
    assert retention(0.7, base=0.5, single=single) is None


def test_the_standard_error_counts_prompts_and_not_pictures() -> None:
    values = torch.rand(12, generator=GENERATOR)
    means = [statistics.fmean(values[k : k + 3].tolist()) for k in range(0, 12, 3)]
    wanted = statistics.stdev(means) / math.sqrt(4)
    assert standard_error(values, 4) == pytest.approx(wanted, rel=1e-5)
    copies = values.view(4, 3).mean(1).repeat_interleave(50)
    assert standard_error(copies, 4) == pytest.approx(wanted, rel=1e-5), "copies tell nothing new"
    assert standard_error(values, 1) == 0
