"""An evaluation of layouts: what is drawn, what is looked at, and that every figure is what the pictures say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import judging
from cidm_cli.data import load_examples
from cidm_cli.draw.images import draw
from cidm_cli.draw.jobs import Ablation, Job
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge.benchmarks import load_benchmark
from cidm_cli.judge.crops import square
from cidm_cli.judge.encoders import Choice, Judges, open_judges
from cidm_cli.judge.layout_plan import single_size
from cidm_cli.judge.layout_scores import NeglectScores
from cidm_cli.judge.layouts import evaluate_layouts
from cidm_cli.judge.subjects import Subject, match
from cidm_cli.layout import Layout, load_layout
from cidm_cli.machine.session import Listener
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.declared import settled
from cidm_cli.options.draw import DrawOptions
from cidm_cli.options.judge import EvalOptions
from cidm_registry import Registry
from learning import files_of, learn_direct, task

QUICK = settled(EvalOptions, dict(samples=3, steps=1, batch=2, guidance=2.0))
"""Three pictures of each layout and way, in batches of two and one."""
SOME = ("own", "fast", "no-attention", "neither", "plain")
PAIR = """
[image]
size = [96, 64]
seed = 11
[base]
prompt = "a photo of a dog and a cat"
[[region]]
prompt = "a photo of a <dog>"
box = [0.0, 0.25, 0.5, 1.0]
[[region]]
prompt = "a red <cat>"
box = [0.5, 0.25, 1.0, 1.0]
"""
BOXES = ((0, 16, 48, 64), (48, 16, 96, 64))
BACKGROUND = (0, 0, 96, 16)


def layout(text: str = PAIR, source: str = "pair.toml") -> Layout:
    return load_layout(source, text=text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judging.save_data(tmp_path_factory.mktemp("data"), dog="dog", cat="cat", duck="duck")


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Knows <dog>, <cat> and <duck>. Do not change."""
    registry = Registry.create(tmp_path_factory.mktemp("taught") / "registry", identify(str(tiny_base)))
    for name in ("dog", "cat", "duck"):
        learn_direct(registry, base, task(data / "pictures" / name, name=name, noun=name))
    return registry


@pytest.fixture(scope="module")
def judges(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Judges:
    folder = tmp_path_factory.mktemp("judges")
    clip, vit = judging.save_clip(folder / "clip"), judging.save_vit(folder / "vit")
    return open_judges(Choice(str(clip), str(vit), tiny_base / "tokenizer"))


@pytest.fixture(scope="module")
def subjects(taught: Registry, data: Path) -> list[Subject]:
    return match(taught.records(), load_benchmark(data).tasks)[0]


@pytest.fixture(scope="module")
def done(
    taught: Registry, base: Base, subjects: list[Subject], judges: Judges,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[NeglectScores, Path]:  # fmt: skip
    """One layout of two concepts, with its pictures. Do not change."""
    folder = tmp_path_factory.mktemp("done")
    found = evaluate_layouts(
        taught, base, {"pair": layout()}, QUICK, folder=folder, judges=judges, subjects=subjects, rivals=SOME
    )
    return found, folder


# The figures


def drawn_again(taught: Registry, base: Base, *jobs: Job) -> list[Image.Image]:
    return [picture.image for picture in draw(taught, base, jobs)]


OPTIONS = DrawOptions(count=3, batch=2, seed=11, steps=1, guidance=2.0, size=(96, 64), style_from=0.0)


def means(judges: Judges, judge: str, data: Path, crops: list[Image.Image]) -> np.ndarray:
    """Mean cosine of each crop (rows) to the references of dog, cat and duck (columns), pair by pair."""
    look: Callable[[list[Image.Image]], np.ndarray] = getattr(judges, judge).embed
    seen = look(crops)
    references = [
        look([e.image for e in load_examples(data / "pictures" / name, class_noun=name).examples])
        for name in ("dog", "cat", "duck")
    ]
    return np.array([[np.mean([float(s @ r) for r in some]) for some in references] for s in seen])


def test_every_figure_of_a_way_is_what_its_pictures_say(
    done: tuple[NeglectScores, Path], taught: Registry, base: Base, data: Path, judges: Judges
) -> None:
    """Drawn again by generate alone, cropped, and judged pair by pair."""
    (scores,) = done[0].layouts
    text = PAIR.replace("<dog>", "dog").replace("<cat>", "cat")
    whole = load_layout("pair.toml", text=PAIR, overrides=["image.crops=false"])
    drawings = {
        "own": drawn_again(taught, base, Job("a photo of a dog and a cat", OPTIONS, layout())),
        "no-attention": drawn_again(
            taught, base, Job("a photo of a dog and a cat", OPTIONS, whole, Ablation(attention=False))
        ),
        "plain": drawn_again(taught, base, Job("a photo of a <dog> and a <cat>", OPTIONS)),
        "base": drawn_again(taught, base, Job("a photo of a dog and a cat", OPTIONS, layout(text))),
    }
    assert [(box.name, box.part) for box in scores.boxes] == [("dog", BOXES[0]), ("cat", BOXES[1])]
    assert scores.background_part == BACKGROUND
    for judge in ("clip", "dino"):
        bare = means(judges, judge, data, [square(p, BACKGROUND) for p in drawings["base"]])
        for way, pictures in drawings.items():
            for own, box in enumerate(scores.boxes):
                rows = means(judges, judge, data, [square(p, box.part) for p in pictures])
                level = means(judges, judge, data, [square(p, box.part) for p in drawings["base"]])[
                    :, own
                ].mean()
                found = box.ways[way]
                assert found.identity[judge] == pytest.approx(rows[:, own].mean(), abs=1e-5)
                present = (rows.argmax(1) == own) & (rows[:, own] > level)
                assert found.presence[judge] == pytest.approx(present.mean())
                taken = rows[:, 1 - own] > rows[:, own]
                assert found.taken[judge] == pytest.approx(taken.mean()), "the duck is in no box"
            behind = means(judges, judge, data, [square(p, BACKGROUND) for p in pictures])
            spilt = (behind - bare)[:, :2].mean()
            assert scores.background[way][judge] == pytest.approx(spilt, abs=1e-5)


def test_alone_is_drawn_with_its_own_region_and_no_other(
    done: tuple[NeglectScores, Path], taught: Registry, base: Base, data: Path, judges: Judges
) -> None:
    (scores,) = done[0].layouts
    first, second = PAIR.split("[[region]]")[1:]
    for own, region in enumerate((first, second)):
        one = layout(PAIR.split("[[region]]")[0] + "[[region]]" + region)
        pictures = drawn_again(taught, base, Job("a photo of a dog and a cat", OPTIONS, one))
        rows = means(judges, "clip", data, [square(p, BOXES[own]) for p in pictures])
        assert scores.boxes[own].ways["alone"].identity["clip"] == pytest.approx(
            rows[:, own].mean(), abs=1e-5
        )


def test_single_is_the_regions_prompt_as_a_picture_of_its_own_made_as_large_as_the_box(
    done: tuple[NeglectScores, Path], taught: Registry, base: Base, data: Path, judges: Judges
) -> None:
    (scores,) = done[0].layouts
    pictures = drawn_again(taught, base, Job("a red <cat>", replace(OPTIONS, size=(64, 64))))
    shown = [picture.resize((48, 48), Image.Resampling.LANCZOS) for picture in pictures]
    rows = means(judges, "clip", data, shown)
    found = scores.boxes[1].ways["single"]
    assert found.identity["clip"] == pytest.approx(rows[:, 1].mean(), abs=1e-5)
    ratio = sum(b.ways["own"].identity["clip"] for b in scores.boxes) / sum(
        b.ways["single"].identity["clip"] for b in scores.boxes
    )
    assert done[0].figures("own")["single_ratio"]["clip"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("part", "size"),
    [
        ((0, 0, 64, 64), (64, 64)),
        ((0, 0, 32, 48), (64, 96)),
        ((8, 8, 136, 72), (128, 64)),
        ((0, 0, 9, 900), (64, 896)),
    ],
)
def test_a_single_picture_has_its_boxs_shape_and_a_size_the_base_can_draw(
    base: Base, part: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    assert single_size(base, part) == size


def test_neither_is_the_whole_prompt_with_the_layouts_concepts_merged_and_no_others(
    done: tuple[NeglectScores, Path], taught: Registry, base: Base, data: Path, judges: Judges
) -> None:
    (scores,) = done[0].layouts
    mine = [record for record in taught.records() if record.name != "duck"]
    job = Job("a photo of a dog and a cat", replace(OPTIONS, method="sum"))
    pictures = [picture.image for picture in draw(taught, base, [job], records=mine)]
    rows = means(judges, "clip", data, [square(p, BOXES[0]) for p in pictures])
    assert scores.boxes[0].ways["neither"].identity["clip"] == pytest.approx(rows[:, 0].mean(), abs=1e-5)


def test_the_figures_of_all_boxes_are_those_of_the_single_ones(done: tuple[NeglectScores, Path]) -> None:
    found, _ = done
    boxes = found.layouts[0].boxes
    figures = found.figures("plain")
    identity = [box.ways["plain"].identity["dino"] for box in boxes]
    alone = [box.ways["alone"].identity["dino"] for box in boxes]
    assert figures["identity"]["dino"] == pytest.approx(sum(identity) / 2)
    assert figures["identity_ratio"]["dino"] == pytest.approx(sum(identity) / sum(alone))
    assert figures["presence"]["clip"] == pytest.approx(
        sum(b.ways["plain"].presence["clip"] for b in boxes) / 2
    )
    assert found.figures("alone")["identity_ratio"] == {"clip": pytest.approx(1), "dino": pytest.approx(1)}
    assert found.figures("base")["background"] == {"clip": pytest.approx(0), "dino": pytest.approx(0)}
    assert found.figures("alone")["background"] == {"clip": None, "dino": None}
    told = found.to_json()
    assert set(told["figures"]) == {*SOME, "alone", "single", "base"}
    assert told["figures"]["own"] == found.figures("own")


def test_the_error_of_presence_takes_layouts_for_the_independent_draws(
    done: tuple[NeglectScores, Path],
) -> None:
    found, _ = done
    (one,) = found.layouts

    def always(share: float) -> NeglectScores:
        boxes = tuple(
            replace(
                b, ways={w: replace(s, presence={"clip": share, "dino": share}) for w, s in b.ways.items()}
            )
            for b in one.boxes
        )
        return replace(one, boxes=boxes)  # type: ignore[return-value]

    several = replace(found, layouts=(always(1.0), always(1.0), always(0.4)))
    spread = np.std([1, 1, 0.4], ddof=1) / 3**0.5
    assert several.figures("own")["presence_error"]["clip"] == pytest.approx(spread)
    assert found.figures("own")["presence_error"]["clip"] == 0


# What is looked for


def test_what_cannot_be_judged_is_told_and_the_rest_is_judged(
    taught: Registry, base: Base, subjects: list[Subject], judges: Judges, done: tuple[NeglectScores, Path]
) -> None:
    _, folder = done
    text = PAIR + '[[region]]\nprompt = "a red toy"\nbox = [0.0, 0.0, 1.0, 0.25]\n'
    notes: list[str] = []
    found = evaluate_layouts(
        taught, base, {"three": layout(text), "none": layout(text.replace("<dog>", "dog").replace("<cat>", "cat"))},
        replace(QUICK, samples=1), folder=folder, judges=judges, rivals=("fast",),
        subjects=[s for s in subjects if s.record.name != "cat"], listener=Listener(note=notes.append),
    )  # fmt: skip
    assert [scores.name for scores in found.layouts] == ["three"]
    assert [box.name for box in found.layouts[0].boxes] == ["dog"]
    assert found.layouts[0].background_part is None, "the third box fills it, judged or not"
    assert found.layouts[0].background == {}
    assert [what for what, _ in found.skipped[:2]] == ["three, region 1", "three, region 2"]
    assert any("images of <cat>" in note for note in notes)
    assert any("names no concept" in note for note in notes)


def test_a_concept_named_beside_another_or_for_the_whole_picture_is_no_mistake_there(
    taught: Registry, base: Base, subjects: list[Subject], judges: Judges, tmp_path: Path
) -> None:
    text = PAIR.replace('prompt = "a photo of a dog and a cat"', 'prompt = "a <duck> of a dog and a cat"')
    text = text.replace("a red <cat>", "a <cat> on a <dog>")
    found = evaluate_layouts(
        taught, base, {"odd": layout(text)}, replace(QUICK, samples=1), folder=tmp_path, judges=judges,
        subjects=subjects, rivals=("fast",),
    )  # fmt: skip
    boxes = found.layouts[0].boxes
    assert [(box.region, box.name) for box in boxes] == [(0, "dog"), (1, "cat"), (1, "dog")]
    for judge in ("clip", "dino"):
        cat, dog = (box.ways["fast"] for box in boxes[1:])
        assert cat.taken[judge] == dog.taken[judge] == 0, "both belong here, and there is no third in a box"
        for box in boxes[1:]:
            seen = box.ways["fast"]
            assert seen.presence[judge] == float(seen.identity[judge] > box.ways["base"].identity[judge])


def test_a_mask_says_where_to_look(
    taught: Registry, base: Base, subjects: list[Subject], judges: Judges, tmp_path: Path
) -> None:
    mask = Image.new("L", (96, 64))
    mask.paste(255, (0, 32, 32, 64))
    mask.save(tmp_path / "mask.png")
    file = tmp_path / "masked.toml"
    file.write_text(PAIR.replace("box = [0.0, 0.25, 0.5, 1.0]", 'mask = "mask.png"'))
    options = replace(QUICK, samples=1)

    def run() -> NeglectScores:
        return evaluate_layouts(
            taught, base, {"masked": load_layout(file)}, options, folder=tmp_path / "samples", judges=judges,
            subjects=subjects, rivals=("fast",),
        )  # fmt: skip

    assert run().layouts[0].boxes[0].part == (0, 32, 32, 64)
    before = len(list((tmp_path / "samples").iterdir()))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    assert run().layouts[0].boxes[0].part == (0, 0, 32, 64)
    assert len(list((tmp_path / "samples").iterdir())) > before, "another mask is another picture"


# Drawing nothing twice


def test_a_second_evaluation_draws_nothing_and_finds_the_same(
    taught: Registry, base: Base, subjects: list[Subject], judges: Judges, done: tuple[NeglectScores, Path],
    denoised: list[int],
) -> None:  # fmt: skip
    whole, folder = done
    again = evaluate_layouts(
        taught, base, {"pair": layout()}, QUICK, folder=folder, judges=judges, subjects=subjects, rivals=SOME
    )
    assert again == whole
    assert denoised == []
    evaluate_layouts(
        taught, base, {"other name": layout()}, QUICK, folder=folder, judges=judges, subjects=subjects,
        rivals=("crops",),
    )  # fmt: skip
    assert denoised == [], "a picture larger than the base's own is drawn with crops"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 11", "seed = 12"),
        ('a cat"\n', 'a cat"\nalpha = 0.5\n'),
        ("size = [96, 64]", "size = [64, 64]"),
        ("size = [96, 64]", 'size = [96, 64]\noverlap = "priority"'),
        ("box = [0.5, 0.25, 1.0, 1.0]", "box = [0.5, 0.25, 1.0, 0.875]"),
        ("box = [0.5, 0.25, 1.0, 1.0]", "box = [0.5, 0.25, 1.0, 1.0]\nfeather = 0.1"),
        ("a red <cat>", "a <cat>"),
        ("a red <cat>", "a red <duck>"),
        ("box = [0.5, 0.25, 1.0, 1.0]", "box = [0.5, 0.25, 1.0, 1.0]\nstrength = 0.5"),
        ("box = [0.5, 0.25, 1.0, 1.0]", "box = [0.5, 0.25, 1.0, 1.0]\nseed = 5"),
        ("box = [0.5, 0.25, 1.0, 1.0]", 'box = [0.5, 0.25, 1.0, 1.0]\nnegative = "toy"'),
    ],
)
def test_whatever_changes_the_picture_is_another_picture(
    old: str, new: str, taught: Registry, base: Base, subjects: list[Subject], judges: Judges,
    done: tuple[NeglectScores, Path], denoised: list[int],
) -> None:  # fmt: skip
    _, folder = done
    changed = PAIR.replace(old, new)
    assert changed != PAIR
    evaluate_layouts(
        taught, base, {"pair": layout(changed)}, QUICK, folder=folder, judges=judges, subjects=subjects,
        rivals=("own",),
    )  # fmt: skip
    assert sum(denoised) >= 3


class Stopped(BaseException):
    """As Ctrl-C is."""


def test_killed_half_way_and_taken_up_again_it_draws_nothing_twice(
    taught: Registry, base: Base, subjects: list[Subject], judges: Judges, done: tuple[NeglectScores, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    @contextmanager
    def progress(label: str, _total: int) -> Iterator[Callable[[int], None]]:
        def update(drawn: int) -> None:
            if label == "drawing" and drawn > 6:
                raise Stopped

        yield update

    def run(listener: Listener) -> NeglectScores:
        return evaluate_layouts(
            taught, base, {"pair": layout()}, QUICK, folder=tmp_path, judges=judges, subjects=subjects, rivals=SOME,
            listener=listener,
        )  # fmt: skip

    with pytest.raises(Stopped):
        run(Listener(stage=progress))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    assert 6 <= len(before) < 20
    assert run(Listener()) == done[0]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert files_of(tmp_path).items() <= files_of(done[1]).items(), "the same bytes as without a stop"


# Refused


def test_layouts_without_a_concept_that_can_be_judged_are_refused(
    taught: Registry, base: Base, subjects: list[Subject], judges: Judges, tmp_path: Path, denoised: list[int]
) -> None:
    with pytest.raises(CidmError) as caught:
        evaluate_layouts(
            taught, base, {"pair": layout()}, QUICK, folder=tmp_path, judges=judges,
            subjects=[s for s in subjects if s.record.name == "duck"],
        )  # fmt: skip
    assert caught.value.code == ExitCode.NOT_FOUND
    assert denoised == []


def test_what_cannot_be_drawn_is_refused_before_anything_is(
    taught: Registry, base: Base, subjects: list[Subject], judges: Judges, tmp_path: Path, denoised: list[int]
) -> None:
    text = PAIR.replace("[96, 64]", "[104, 64]")
    with pytest.raises(CidmError) as caught:
        evaluate_layouts(
            taught, base, {"pair": layout(text)}, QUICK, folder=tmp_path, judges=judges, subjects=subjects
        )
    assert caught.value.code == ExitCode.USAGE
    assert denoised == []
