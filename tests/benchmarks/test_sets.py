"""What settings are chosen on and what they are judged by share nothing."""

from __future__ import annotations

from benchmarks import continual
from benchmarks.concepts import concepts
from benchmarks.sets import FROZEN, JUDGE, TUNE, unseen
from cidm_cli.judge.tasks import CONCEPT_MARK
from cidm_cli.share.features import OBJECT_TEMPLATES, STYLE_TEMPLATES
from cidm_templates import prompt_set, prompt_sets
from tools.mini.world import CORE


def test_no_drawing_and_no_style_is_in_both() -> None:
    assert TUNE.drawings
    assert TUNE.styles
    assert not TUNE.drawings & JUDGE.drawings
    assert not TUNE.styles & JUDGE.styles


def test_no_prompt_is_in_both_nor_one_that_merges_are_fitted_to() -> None:
    own = {*TUNE.objects_by, *TUNE.styles_by}
    assert len(own) == len(TUNE.objects_by) + len(TUNE.styles_by)
    judged = {line for name in prompt_sets() for line in prompt_set(name)}
    judged |= {prompt for task in JUDGE.tasks() for prompt in task.prompts}
    fitted = {line.replace("{}", CONCEPT_MARK) for line in (*OBJECT_TEMPLATES, *STYLE_TEMPLATES)}
    assert not own & judged
    assert not own & fitted
    assert all(prompt.count(CONCEPT_MARK) == 1 for prompt in own)


def test_prompts_for_styles_name_things_that_the_base_knows() -> None:
    for prompt in TUNE.styles_by:
        assert any(f" {noun} " in f"{prompt} " for noun in CORE), prompt


def test_no_training_and_no_picture_has_a_seed_of_the_other_set() -> None:
    assert not set(TUNE.trainings) & set(JUDGE.trainings)
    seeds = [
        {one.pictures(training) + k for training in one.trainings for k in range(100)}
        for one in (TUNE, JUDGE)
    ]
    assert not seeds[0] & seeds[1]
    assert all(len(some) == 300 for some in seeds), "nor of another training"
    assert min(len(one.trainings) for one in (TUNE, JUDGE)) >= 3


def test_of_the_hundred_those_whose_drawings_settings_were_chosen_on_are_not_judged() -> None:
    every = concepts(100)
    judged = set(unseen([one.name for one in every]))
    assert judged == {one.name for one in every if one.look.code not in TUNE.drawings}
    assert 80 < len(judged) < 100


def test_settings_that_are_frozen_and_swept_are_those_of_ways_of_learning() -> None:
    assert set(FROZEN) == set(continual.SWEPT) <= set(continual.TRAININGS)
    rows = {row.name for row in continual.ROWS}
    assert {continual.NAMED, continual.TOKENS, continual.DEFAULT} <= rows
    assert {name for _, _, one, other in continual.PARTS for name in (one, other)} <= rows
    for method, option in continual.SWEPT.items():
        swept = [row for row in continual.sweep() if row.name.startswith(f"{method}, {option} ")]
        assert len(swept) == len(continual.FACTORS)
        assert all(continual.TRAININGS[row.training]["method"] == method for row in swept)
