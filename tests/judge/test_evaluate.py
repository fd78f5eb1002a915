"""An evaluation: what is drawn, what is kept, and that every figure is what its pictures say."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import judging
import tiny
from cidm_cli.data import load_examples
from cidm_cli.draw.images import Static, draw
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge import samples
from cidm_cli.judge.benchmarks import load_benchmark
from cidm_cli.judge.concepts import State, evaluate, keep_scores, states_of
from cidm_cli.judge.encoders import Choice, Judges, open_judges
from cidm_cli.judge.report import Cell, Evaluation
from cidm_cli.judge.subjects import Subject, match, prompts_from
from cidm_cli.machine.session import Listener
from cidm_cli.method.metrics import LEAST_GAIN
from cidm_cli.models.base import Base
from cidm_cli.models.identity import identify
from cidm_cli.options.declared import settled
from cidm_cli.options.draw import DRAW_METHODS
from cidm_cli.options.judge import EvalOptions
from cidm_registry import Registry
from learning import files_of, learn_direct, task

QUICK = settled(EvalOptions, dict(samples=3, steps=1, batch=2, guidance=2.0))
"""Three pictures of each of two prompts, in batches of two and one."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judging.save_data(tmp_path_factory.mktemp("data"), dog="dog", cat="cat")


@pytest.fixture(scope="module")
def taught(base: Base, tiny_base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Knows <dog>, then <cat>. Do not change."""
    registry = Registry.create(tmp_path_factory.mktemp("taught") / "registry", identify(str(tiny_base)))
    for name in ("dog", "cat"):
        learn_direct(registry, base, task(data / "pictures" / name, name=name, noun=name))
    return registry


@pytest.fixture(scope="module")
def judges(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Judges:
    folder = tmp_path_factory.mktemp("judges")
    clip, vit = judging.save_clip(folder / "clip"), judging.save_vit(folder / "vit")
    return open_judges(Choice(str(clip), str(vit), tiny_base / "tokenizer"))


@pytest.fixture
def mine(taught: Registry, tmp_path: Path) -> Registry:
    return Registry.open(shutil.copytree(taught.root, tmp_path / "mine"))


def subjects_of(registry: Registry, data: Path) -> list[Subject]:
    return match(registry.records(), load_benchmark(data).tasks)[0]


@pytest.fixture(scope="module")
def done(
    taught: Registry, base: Base, data: Path, judges: Judges, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, Path]:
    """An ordinary evaluation with its pictures. Do not change."""
    folder = tmp_path_factory.mktemp("done")
    return evaluate(taught, base, subjects_of(taught, data), QUICK, folder=folder, judges=judges), folder


# The figures


def test_every_figure_is_what_the_pictures_say(
    done: tuple[Evaluation, Path], taught: Registry, base: Base, data: Path, judges: Judges
) -> None:
    """Drawn again by generate alone, and judged pair by pair."""
    evaluation, _ = done
    assert [c.name for c in evaluation.concepts] == ["dog", "cat"]
    options = samples_options(evaluation)
    references = {
        name: [e.image for e in load_examples(data / "pictures" / name, class_noun=name).examples]
        for name in ("dog", "cat")
    }
    for place, concept in enumerate(evaluation.concepts):
        pictures, texts = [], []
        for prompt in judging.PROMPTS:
            job = samples.Job(prompt.format(f"<{concept.name}>"), options)
            pictures += [picture.image for picture in draw(taught, base, [job])]
            texts += [prompt.format(concept.name)] * 3
        cell = concept.final
        assert cell.samples == len(pictures) == 6
        for judge in ("clip", "dino"):
            look: Callable[[list[Image.Image]], np.ndarray] = getattr(judges, judge).embed
            drawn = look(pictures)
            means = np.array([
                [np.mean([float(s @ r) for r in look(references[name])]) for name in ("dog", "cat")]
                for s in drawn
            ])  # fmt: skip
            assert cell.ia[judge] == pytest.approx(means[:, place].mean(), abs=1e-5)
            by_prompt = means[:, place].reshape(2, 3).mean(1)
            assert cell.ia_error[judge] == pytest.approx(by_prompt.std(ddof=1) / 2**0.5, abs=1e-5)
            nearest = list(means.argmax(1))
            assert list(cell.nearest[judge]) == [nearest.count(0), nearest.count(1)]
            assert cell.confusion[judge] == pytest.approx(nearest.count(1 - place) / 6)
        told = judges.clip.embed_texts(texts)
        cosines = (judges.clip.embed(pictures) * told).sum(1)
        assert cell.ta == pytest.approx(cosines.mean(), abs=1e-5)
        assert cell.clip_score == pytest.approx(np.maximum(2.5 * cosines, 0).mean(), abs=1e-5)


def samples_options(evaluation: Evaluation) -> samples.DrawOptions:
    return samples.DrawOptions(**{**evaluation.draw, "size": tuple(evaluation.draw["size"])})


def test_the_base_and_the_concept_alone_are_drawn_by_the_same_prompts_and_seeds(
    done: tuple[Evaluation, Path], taught: Registry, base: Base, data: Path, judges: Judges
) -> None:
    evaluation, _ = done
    dog, cat = evaluation.concepts
    options = samples_options(evaluation)
    jobs = [samples.Job(prompt.format("cat"), options) for prompt in judging.PROMPTS]
    pictures = [picture.image for picture in draw(taught, base, jobs, records=())]
    references = [e.image for e in load_examples(data / "pictures" / "cat", class_noun="cat").examples]
    pairs = judges.clip.embed(pictures) @ judges.clip.embed(references).T
    wanted = pairs.mean()
    assert cat.base.ia["clip"] == pytest.approx(wanted, abs=1e-5)
    for concept in (dog, cat):
        assert concept.single == concept.final, "a named concept is drawn with its own weights alone"
        assert concept.base.ia != concept.final.ia


def test_a_named_concept_forgets_nothing_and_is_drawn_once_for_all_states(
    done: tuple[Evaluation, Path],
) -> None:
    evaluation, folder = done
    dog, cat = evaluation.concepts
    assert set(dog.states) == {1, 2}
    assert set(cat.states) == {2}
    assert dog.states[1] == dog.states[2]
    assert dog.forgetting == cat.forgetting == {"clip": 0.0, "dino": 0.0}
    assert len(list(folder.glob("*.png"))) == 2 * 2 * 2 * 3, "concepts, base or concept, prompts, pictures"
    for concept in evaluation.concepts:
        for judge in ("clip", "dino"):
            gain = concept.single.ia[judge] - concept.base.ia[judge]
            assert concept.retention[judge] == (pytest.approx(1) if gain >= LEAST_GAIN else None)


def test_mixing_all_concepts_changes_the_older_one_and_the_matrix_says_so(
    taught: Registry,
    base: Base,
    data: Path,
    judges: Judges,
    done: tuple[Evaluation, Path],
    denoised: list[int],
) -> None:
    evaluation, folder = done
    options = replace(QUICK, every_task=True, draw={**QUICK.draw, "method": "sum"})
    mixed = evaluate(taught, base, subjects_of(taught, data), options, folder=folder, judges=judges)
    dog, cat = mixed.concepts
    assert dog.states[1] == evaluation.concepts[0].states[1], "alone in the registry, it is as if named"
    assert dog.states[1].ia != dog.states[2].ia
    best = max(dog.states[1].ia["clip"], dog.states[2].ia["clip"])
    assert dog.forgetting["clip"] == pytest.approx(best - dog.states[2].ia["clip"])
    assert mixed.matrix("clip") == [
        [dog.states[1].ia["clip"], None],
        [dog.states[2].ia["clip"], cat.states[2].ia["clip"]],
    ]
    assert [row.base for row in mixed.concepts] == [row.base for row in evaluation.concepts]
    assert sum(denoised) == 2 * 6, "the last state of both; base and single were there"


def test_every_method_of_drawing_can_be_judged(
    taught: Registry, base: Base, data: Path, judges: Judges, tmp_path: Path
) -> None:
    """The help of --method speaks of generate's: there are no others."""
    subjects = [replace(subject, prompts=subject.prompts[:1]) for subject in subjects_of(taught, data)]
    for method in DRAW_METHODS:
        options = replace(QUICK, samples=1, draw={**QUICK.draw, "method": method})
        found = evaluate(taught, base, subjects, options, folder=tmp_path, judges=judges)
        assert found.method == method
        assert [c.final.samples for c in found.concepts] == [1, 1]


def test_two_concepts_with_the_same_weights_are_each_judged_and_each_keep_their_scores(
    base: Base, tiny_base: Path, data: Path, judges: Judges, tmp_path: Path
) -> None:
    registry = Registry.create(tmp_path / "registry", identify(str(tiny_base)))
    for name in ("dog", "dog2"):
        work = task(data / "pictures" / "dog", name=name, noun="dog", method="plain")
        learn_direct(registry, base, work)
    first, second = registry.records()
    assert first.blob == second.blob
    tasks = [
        replace(t, name=n) for t in load_benchmark(data).tasks if t.name == "dog" for n in ("dog", "dog2")
    ]
    subjects = match(registry.records(), tasks)[0]
    found = evaluate(registry, base, subjects, QUICK, folder=tmp_path / "samples", judges=judges)
    assert [c.name for c in found.concepts] == ["dog", "dog2"]
    assert keep_scores(registry, found) == []
    assert all(record.scores for record in registry.records())


def test_means_are_over_the_concepts_and_leave_the_unknown_out(done: tuple[Evaluation, Path]) -> None:
    evaluation, _ = done
    dog, cat = evaluation.concepts
    odd = replace(
        evaluation,
        concepts=(
            replace(dog, retention={"clip": 0.5, "dino": None}, forgetting={"clip": 0.2, "dino": 0.0}),
            replace(cat, retention={"clip": 0.7, "dino": None}, forgetting={"clip": None, "dino": 0.4}),
        ),
    )
    means = odd.means()
    assert means["retention"] == {"clip": pytest.approx(0.6), "dino": None}
    assert means["forgetting"] == {"clip": None, "dino": pytest.approx(0.2)}
    assert means["ta"] == pytest.approx((dog.final.ta + cat.final.ta) / 2)
    assert means["ia"]["dino"] == pytest.approx((dog.final.ia["dino"] + cat.final.ia["dino"]) / 2)


def test_what_a_concept_reaches_alone_may_come_from_elsewhere(
    taught: Registry, base: Base, data: Path, judges: Judges, done: tuple[Evaluation, Path]
) -> None:
    evaluation, folder = done
    dog = evaluation.concepts[0]
    ia = {judge: dog.base.ia[judge] + 2 * (dog.final.ia[judge] - dog.base.ia[judge]) for judge in dog.base.ia}
    if any(abs(ia[judge] - dog.base.ia[judge]) < LEAST_GAIN for judge in ia):
        ia = {judge: dog.base.ia[judge] + 0.5 for judge in ia}
    other: Cell = replace(dog.single, ia=ia)
    again = evaluate(
        taught,
        base,
        subjects_of(taught, data)[:1],
        QUICK,
        folder=folder,
        judges=judges,
        single={"dog": other},
    )
    (concept,) = again.concepts
    assert concept.single == other
    for judge in ia:
        gain = ia[judge] - dog.base.ia[judge]
        if gain >= LEAST_GAIN:
            kept = (dog.final.ia[judge] - dog.base.ia[judge]) / gain
            assert concept.retention[judge] == pytest.approx(kept)


def test_confusion_counts_concepts_that_are_not_judged_themselves(
    taught: Registry, base: Base, data: Path, judges: Judges, done: tuple[Evaluation, Path]
) -> None:
    evaluation, folder = done
    both = subjects_of(taught, data)
    one = evaluate(taught, base, both[1:], QUICK, folder=folder, judges=judges, rivals=both)
    assert one.rivals == ("dog", "cat")
    assert one.concepts == evaluation.concepts[1:]
    alone = evaluate(taught, base, both[1:], QUICK, folder=folder, judges=judges)
    assert alone.rivals == ("cat",)
    assert alone.concepts[0].final.confusion == {"clip": 0, "dino": 0}


def test_a_merged_file_is_judged_in_place_of_the_concepts_weights(
    taught: Registry, base: Base, data: Path, judges: Judges, done: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    evaluation, folder = done
    static = Static(tmp_path / "nothing.safetensors", "0" * 64, {})
    states = [State(2, tuple(taught.records()), static)]
    merged = evaluate(
        taught, base, subjects_of(taught, data), QUICK, folder=folder, judges=judges, states=states
    )
    assert merged.method == "merged"
    dog, cat = merged.concepts
    assert set(dog.states) == set(cat.states) == {2}
    assert dog.final.ia != evaluation.concepts[0].final.ia, "tokens without weights draw something else"
    assert dog.forgetting == cat.forgetting == {"clip": None, "dino": None}
    assert dog.single == evaluation.concepts[0].single


# Stopping, going on, drawing nothing twice


class Stopped(BaseException):
    """As Ctrl-C is."""


def stopping_after(steps: int) -> Listener:
    @contextmanager
    def progress(label: str, _total: int) -> Iterator[Callable[[int], None]]:
        def update(done: int) -> None:
            if label == "drawing" and done > steps:
                raise Stopped

        yield update

    return Listener(stage=progress)


def test_killed_half_way_and_taken_up_again_it_draws_nothing_twice(
    taught: Registry, base: Base, data: Path, judges: Judges, done: tuple[Evaluation, Path], denoised: list[int],
    tmp_path: Path,
) -> None:  # fmt: skip
    whole, kept = done
    subjects = subjects_of(taught, data)
    with pytest.raises(Stopped):
        evaluate(taught, base, subjects, QUICK, folder=tmp_path, judges=judges, listener=stopping_after(12))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    assert 10 <= len(before) < 24, "some batches are whole"
    lost = sum(denoised) - len(before)
    assert lost <= 2, "the batch that was under way"
    assert evaluate(taught, base, subjects, QUICK, folder=tmp_path, judges=judges) == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sum(denoised) == 24 + lost
    assert files_of(tmp_path) == {
        name: content for name, content in files_of(kept).items() if name in files_of(tmp_path)
    }, "the same bytes as without a stop"
    assert not [name for name in files_of(tmp_path) if not name.endswith(".png")], "nothing half written"


def test_a_second_evaluation_draws_and_looks_at_nothing(
    taught: Registry, base: Base, data: Path, judges: Judges, done: tuple[Evaluation, Path], denoised: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, folder = done

    def look(*_args: object) -> None:
        raise AssertionError("a picture was looked at again")

    monkeypatch.setattr(judges.clip, "embed", look)
    assert evaluate(taught, base, subjects_of(taught, data), QUICK, folder=folder, judges=judges) == whole
    assert denoised == []


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"steps": 2}, {"guidance": 3.0}, {"negative": "a red toy"}, {"sampler": "ddim"}]
)
def test_another_setting_is_another_picture(
    change: dict[str, object], taught: Registry, base: Base, data: Path, judges: Judges,
    done: tuple[Evaluation, Path], denoised: list[int],
) -> None:  # fmt: skip
    _, folder = done
    options = replace(QUICK, draw={**QUICK.draw, **change})
    (subject, _) = subjects_of(taught, data)
    evaluate(taught, base, [subject], options, folder=folder, judges=judges)
    assert sum(denoised) == 12, "base and concept, six each"


def test_more_samples_keep_the_batches_that_are_whole(
    taught: Registry,
    base: Base,
    data: Path,
    judges: Judges,
    done: tuple[Evaluation, Path],
    denoised: list[int],
) -> None:
    """A picture's last bits depend on its batch: only batches of the same seeds are the same pictures."""
    _, folder = done
    subject = subjects_of(taught, data)[1]
    more = evaluate(taught, base, [subject], replace(QUICK, samples=4), folder=folder, judges=judges)
    assert more.concepts[0].final.samples == 8
    assert denoised == [2] * 4, "a second batch of two for each prompt, by base and concept"


def test_a_new_version_or_another_name_is_told_by_its_weights(
    mine: Registry, base: Base, data: Path, judges: Judges, done: tuple[Evaluation, Path], denoised: list[int]
) -> None:
    whole, folder = done
    mine.rename("dog", "rex")
    (renamed,) = match([mine.get("rex")], [replace(load_benchmark(data).tasks[0], name="rex")])[0]
    again = evaluate(mine, base, [renamed], QUICK, folder=folder, judges=judges)
    assert denoised == [], "a name is not what is drawn"
    assert again.concepts[0].final.ia == whole.concepts[0].final.ia
    learn_direct(mine, base, task(data / "pictures" / "cat", name="cat", noun="cat", update=True, seed=5))
    newer = [s for s in subjects_of(mine, data) if s.record.name == "cat"]
    found = evaluate(mine, base, newer, QUICK, folder=folder, judges=judges).concepts[0]
    assert sum(denoised) == 6, "the new version; the base was there"
    assert found.learned == 4
    assert set(found.states) == {4}, "judged since its newest version, not by the older one"


def test_a_damaged_picture_is_named(
    taught: Registry, base: Base, data: Path, done: tuple[Evaluation, Path], tmp_path: Path, tiny_base: Path
) -> None:
    _, folder = done
    copy = shutil.copytree(folder, tmp_path / "copy")
    victim = sorted(copy.glob("*.png"))[0]
    for path in copy.glob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    clip = judging.save_clip(tmp_path / "clip")
    fresh = open_judges(Choice(str(clip), None, tiny_base / "tokenizer"))
    with pytest.raises(CidmError) as caught:
        evaluate(taught, base, subjects_of(taught, data), QUICK, folder=copy, judges=fresh)
    assert str(victim.parent) in caught.value.message
    assert "delete" in str(caught.value.hint)


# States, subjects, scores


def test_a_state_is_the_part_of_the_records_that_was_there(mine: Registry, base: Base, data: Path) -> None:
    learn_direct(mine, base, task(data / "pictures" / "dog", name="dog", noun="dog", update=True, seed=3))
    mine.rename("cat", "tom")
    states = states_of(mine)
    assert [state.number for state in states] == [1, 2, 3]
    assert [[(r.name, r.version) for r in state.records] for state in states] == [
        [("dog", 1)],
        [("dog", 1), ("tom", 1)],
        [("tom", 1), ("dog", 2)],
    ]
    assert [state.learned for state in states] == ["dog", "tom", "dog"]
    mine.remove("tom")
    assert [[r.name for r in state.records] for state in states_of(mine)] == [["dog"], ["dog"]]


def test_scores_are_kept_in_the_records_and_change_nothing_else(
    mine: Registry, done: tuple[Evaluation, Path]
) -> None:
    evaluation, _ = done
    before = {record.name: record for record in mine.records()}
    assert keep_scores(mine, evaluation) == []
    assert keep_scores(mine, replace(evaluation, method="sum")) == []
    for record, concept in zip(mine.records(), evaluation.concepts, strict=True):
        assert set(record.scores) == {"eval", "eval sum"}
        assert record.scores["eval"]["ia"] == concept.final.ia
        assert record.scores["eval"]["retention"] == concept.retention
        assert replace(record, scores={}) == before[record.name]
    assert mine.verify() == []


def test_scores_of_a_concept_that_is_gone_are_a_warning(
    mine: Registry, done: tuple[Evaluation, Path]
) -> None:
    mine.remove("dog")
    (problem,) = keep_scores(mine, done[0])
    assert "<dog>" in problem
    assert mine.get("cat").scores["eval"]


def test_concepts_find_their_data_by_name_whatever_its_case(taught: Registry, data: Path) -> None:
    tasks = load_benchmark(data).tasks
    renamed = [replace(tasks[0], name="DOG"), replace(tasks[1], name="not a name!")]
    subjects, skipped = match(taught.records(), renamed)
    assert [s.record.name for s in subjects] == ["dog"]
    assert [name for name, _ in skipped] == ["cat"]
    with pytest.raises(CidmError) as caught:
        match(taught.records(), [tasks[0], replace(tasks[1], name="Dog")])
    assert caught.value.code == ExitCode.INVALID


def test_what_the_data_does_not_say_comes_from_the_record_and_the_shipped_sets(taught: Registry) -> None:
    from cidm_cli.judge.tasks import Task

    bare = [
        Task("1", "dog", "", False, Path("dog"), ()),
        Task("2", "cat", "kitten", False, Path("cat"), ("a <TOK>",)),
    ]
    (dog, cat), _ = match(taught.records(), bare, limit=3)
    assert (dog.noun, cat.noun) == ("dog", "kitten")
    assert dog.prompts == prompts_from("object")[:3]
    assert cat.prompts == ("a <TOK>",)
    (style,), _ = match([replace(taught.get("dog"), style=True)], bare)
    assert style.prompts == prompts_from("style")
    (dog, cat), _ = match(taught.records(), bare, noun="beast", prompts=("one <TOK> < two",))
    assert {s.noun for s in (dog, cat)} == {"beast"}
    assert dog.named == (r"one <dog> \< two",)
    assert dog.plain == (r"one beast \< two",)
    assert dog.texts == ("one beast < two",)


def test_prompts_come_from_a_set_or_a_file_of_either_mark(tmp_path: Path) -> None:
    assert len(prompts_from("pet")) == 20
    for mark in ("{}", "<TOK>"):
        (tmp_path / "mine.txt").write_text(f"a {mark}\nred {mark}\n")
        assert prompts_from(str(tmp_path / "mine.txt")) == ("a <TOK>", "red <TOK>")
    with pytest.raises(CidmError) as caught:
        prompts_from("pets")
    assert caught.value.code == ExitCode.NOT_FOUND
    assert "pet" in str(caught.value.hint)


def test_a_prompt_longer_than_the_text_encoder_is_drawn_and_judged(
    taught: Registry, base: Base, data: Path, judges: Judges, denoised: list[int], tmp_path: Path
) -> None:
    long = [replace(s, prompts=("a photo " * tiny.TOKENS + "<TOK>",)) for s in subjects_of(taught, data)]
    evaluate(taught, base, long, QUICK, folder=tmp_path, judges=judges)
    assert denoised
    assert list(tmp_path.iterdir())
