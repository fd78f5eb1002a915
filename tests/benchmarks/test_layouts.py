"""The benchmark of neglect: its layouts are what its description says, and the results page shows what it printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.layouts import made, spread
from cidm_cli.demo import tasks_folder
from cidm_cli.judge.rivals import ALONE, BASE, SINGLE, in_one_prompt
from cidm_cli.judge.tasks import load_tasks
from cidm_cli.layout import Layout
from cidm_cli.options.prompts import parse_prompt

TASKS = load_tasks(tasks_folder())
LAYOUTS = made(TASKS)
NOUNS = {task.name: task.class_noun for task in TASKS}


def concepts(layout: Layout) -> list[str]:
    return [name for region in layout.regions for name in parse_prompt(region.prompt).names]


def test_there_are_at_least_forty_of_two_to_four_objects_in_boxes_that_do_not_meet() -> None:
    assert len(LAYOUTS) >= 40
    objects = {task.name for task in TASKS if not task.style}
    for layout in LAYOUTS.values():
        names = concepts(layout)
        assert 2 <= len(names) == len(set(names)) == len(layout.regions) <= 4
        assert set(names) <= objects
        boxes = [region.box for region in layout.regions]
        for number, one in enumerate(boxes):
            for other in boxes[:number]:
                assert one
                assert other
                apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
                assert apart, layout
    assert {len(layout.regions) for layout in LAYOUTS.values()} == {2, 3, 4}
    assert {name for layout in LAYOUTS.values() for name in concepts(layout)} == objects


def test_most_hold_concepts_that_are_alike() -> None:
    alike = [
        layout
        for layout in LAYOUTS.values()
        if len({"cat" if n.startswith("cat") else "dog" for n in concepts(layout) if n[:3] in ("dog", "cat")})
        == 2
        or len({NOUNS[name] for name in concepts(layout)}) < len(layout.regions)
    ]
    assert len(alike) >= len(LAYOUTS) * 2 / 3


def test_they_are_the_same_each_time_and_the_embedded_base_can_draw_their_sizes() -> None:
    assert {name: layout.to_toml() for name, layout in made(TASKS).items()} == {
        name: layout.to_toml() for name, layout in LAYOUTS.items()
    }
    sizes = {layout.image.size for layout in LAYOUTS.values()}
    assert len(sizes) >= 5
    assert all(side % 16 == 0 for size in sizes if size for side in size), "4 pixels a latent, halved twice"


def test_plain_prompting_names_every_concept_within_the_whole_prompt() -> None:
    for layout in LAYOUTS.values():
        plain = parse_prompt(in_one_prompt(layout, NOUNS))
        whole = parse_prompt(layout.base.prompt)
        assert set(plain.names) == {*whole.names, *concepts(layout)}
        assert plain.filled(NOUNS.__getitem__) == whole.filled(NOUNS.__getitem__)


def test_a_part_of_them_is_spread_over_the_list() -> None:
    names = list(LAYOUTS)
    assert list(spread(LAYOUTS, 3)) == [names[0], names[len(names) // 2], names[-1]]
    assert spread(LAYOUTS, None) == LAYOUTS


def printed(ways: Sequence[str]) -> dict[str, object]:
    def figures(value: float) -> dict[str, dict[str, float]]:
        names = (
            "identity",
            "identity_ratio",
            "single_ratio",
            "kept",
            "presence",
            "presence_error",
            "taken",
            "background",
        )
        return {name: {"clip": value, "dino": value / 2} for name in names}

    each = {way: figures(0.9 - 0.1 * number) for number, way in enumerate(ways)}
    protocol = {"learning_steps": 100, "prompts": 5, "samples": 4, "drawing_steps": 12, "training": "cidm"}
    return {
        "protocol": protocol, "layouts": 41, "boxes": 104, "ways": each, "by_regions": {"2": each},
        "by_size": {"64x64": each},
    }  # fmt: skip


def test_the_results_say_how_much_is_kept_of_the_layouts_own_way_and_show_all_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "layouts.json").write_text(json.dumps(printed(("own", "plain", ALONE, SINGLE, BASE))))
    said = ["results", "--layouts", str(tmp_path / "layouts.json"), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", said)
    results.main()
    known = json.loads((tmp_path / "results.json").read_text())["layouts"]
    assert (known["identity_ratio"], known["presence"]) == (0.9, 0.9)
    page = (tmp_path / "results.md").read_text()
    assert "41 layouts" in page
    for way in ("own", "plain", ALONE, SINGLE, BASE):
        assert f"| {way} |" in page
    assert "| plain | 80 % (40 %) |" in page
    assert "0.800 (0.400)" in page, "what spills is a cosine"
