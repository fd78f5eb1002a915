"""What ships to start from: every layout must pass our own checks, every prompt must be answerable."""

from __future__ import annotations

import re

import pytest

import cidm_templates
from cidm_cli.layout import load_layout, thin_regions

# The phrases that the embedded base was taught; a prompt outside them would measure the base, not a concept.
PLACES = (
    *("on the beach", "in the forest", "in the snow", "at night", "in the city", "in the desert"),
    *("on the grass", "in the mountains", "under water", "in a room", "at sunset", "on the road"),
)
OPENINGS = (
    *("a photo of", "a pencil drawing of", "a watercolor painting of", "a pixel art of"),
    *("an oil painting of", "a black and white photo of"),
)


def test_the_templates_are_there() -> None:
    assert cidm_templates.layouts() == (
        *("foreground-background", "grid-2x2", "portrait-and-pet", "priority-overlap", "single"),
        *("three-in-a-row", "two-side-by-side", "two-together", "with-mask"),
    )
    assert cidm_templates.prompt_sets() == ("object", "pet", "style")


@pytest.mark.parametrize("name", cidm_templates.layouts())
def test_every_layout_template_is_a_valid_layout(name: str) -> None:
    layout = load_layout(name, cidm_templates.layout(name))
    assert "<" in layout.to_toml()
    # 4 x 4 cells are the coarsest attention map of the embedded base.
    assert thin_regions(layout, (4, 4)) == ()


def test_side_by_side_regions_do_not_overlap() -> None:
    left, right = load_layout("x", cidm_templates.layout("two-side-by-side")).regions
    assert left.box is not None
    assert right.box is not None
    assert left.box[2] <= right.box[0]


@pytest.mark.parametrize("name", cidm_templates.prompt_sets())
def test_a_prompt_set_holds_twenty_different_prompts_that_name_the_concept_once(name: str) -> None:
    prompts = cidm_templates.prompt_set(name)
    assert len(set(prompts)) == len(prompts) == 20
    assert all(prompt.count(cidm_templates.CONCEPT_MARK) == 1 for prompt in prompts)


@pytest.mark.parametrize("name", cidm_templates.prompt_sets())
def test_every_prompt_stays_in_the_world_of_the_embedded_base(name: str) -> None:
    for prompt in cidm_templates.prompt_set(name):
        assert prompt.endswith(PLACES) or re.search(r" on an? [a-z]+ background$", prompt), prompt
        assert prompt.startswith(("a <TOK> of ",) if name == "style" else OPENINGS), prompt


@pytest.mark.parametrize("name", ["pet", "object"])
def test_object_prompts_try_every_opening_and_most_places(name: str) -> None:
    text = "\n".join(cidm_templates.prompt_set(name))
    assert all(opening in text for opening in OPENINGS)
    assert sum(place in text for place in PLACES) >= 11


@pytest.mark.parametrize("name", ["", "missing", "../layouts/single", "single.toml", "/etc/passwd", "a\0b"])
def test_other_names_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(LookupError, match="single"):
        cidm_templates.layout(name)
    with pytest.raises(LookupError, match="object, pet, style"):
        cidm_templates.prompt_set(name)
