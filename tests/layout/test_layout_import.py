"""Regions of other programs become a layout; what a layout cannot say is told, and hostile files are refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.files.json_files import MAX_DEPTH, parse_json
from cidm_cli.layout import load_layout
from cidm_cli.layout.importing import Imported, Wishes, import_text
from cidm_cli.layout.weighted import plain_prompt
from command import Cidm

Nodes = dict[str, dict[str, Any]]


def taken(text: str, **wishes: Any) -> Imported:
    """Every import is read back from what it writes: it is the same layout."""
    found = import_text(text, "their.file", Wishes(**wishes))
    assert load_layout("x", found.to_toml()) == found.layout
    return found


def refused(text: str, code: ExitCode = ExitCode.INVALID, **wishes: Any) -> CidmError:
    with pytest.raises(CidmError) as caught:
        import_text(text, "their.file", Wishes(**wishes))
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return caught.value


def boxes(found: Imported) -> list[tuple[float, ...] | None]:
    return [region.box for region in found.layout.regions]


def prompts(found: Imported) -> list[str]:
    return [region.prompt for region in found.layout.regions]


# ComfyUI


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def text(words: Any) -> dict[str, Any]:
    return node("CLIPTextEncode", text=words, clip=["1", 1])


def area(of: str, x: float, y: float, width: float, height: float, strength: float = 1.0) -> dict[str, Any]:
    return node(
        "ConditioningSetArea", conditioning=[of, 0], x=x, y=y, width=width, height=height, strength=strength
    )


def workflow(**changes: Any) -> Nodes:
    """A bedroom with a dog on the left and a cat on the right, as ComfyUI exports it for its interface."""
    nodes: Nodes = {
        "1": node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors"),
        "2": text("a bedroom"),
        "3": text("a <dog>"),
        "4": area("3", 0, 64, 256, 384),
        "5": text("a <cat>"),
        "6": area("5", 256, 64, 256, 384),
        "7": node("ConditioningCombine", conditioning_1=["4", 0], conditioning_2=["6", 0]),
        "8": node("ConditioningCombine", conditioning_1=["2", 0], conditioning_2=["7", 0]),
        "9": text("lowres"),
        "10": node("EmptyLatentImage", width=512, height=512, batch_size=2),
        "11": node(
            "KSampler", seed=5, steps=20, cfg=7, sampler_name="euler", scheduler="normal", denoise=1,
            model=["1", 0], positive=["8", 0], negative=["9", 0], latent_image=["10", 0],
        ),
    }  # fmt: skip
    return {**nodes, **{name.removeprefix("n"): value for name, value in changes.items()}}


def sent(**changes: Any) -> str:
    return json.dumps(workflow(**changes))


def test_areas_become_regions_and_the_sampler_becomes_the_image() -> None:
    found = taken(sent())
    layout = found.layout
    assert prompts(found) == ["a <dog>", "a <cat>"]
    assert boxes(found) == [(0, 0.125, 0.5, 0.875), (0.5, 0.125, 1, 0.875)]
    assert (layout.base.prompt, layout.base.negative) == ("a bedroom", "lowres")
    image = layout.image
    assert (image.size, image.seed, image.steps, image.guidance, image.count) == ((512, 512), 5, 20, 7.0, 2)
    assert found.kind == "comfyui"


def test_the_form_that_is_sent_to_the_server_is_read_too() -> None:
    assert taken(json.dumps({"prompt": workflow(), "client_id": "x"})).layout == taken(sent()).layout


def saved(nodes: Nodes, modes: dict[str, int] | None = None, as_tables: bool = False) -> str:
    """The same workflow as ComfyUI's menu saves it: links apart, settings by their place."""
    links: list[Any] = []
    out = []
    for name, one in nodes.items():
        inputs, widgets = [], []
        for key, value in one["inputs"].items():
            if isinstance(value, list):
                ends = [len(links) + 1, int(value[0]), value[1], int(name), 0, "ANY"]
                names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
                links.append(dict(zip(names, ends, strict=True)) if as_tables else ends)
                inputs.append({"name": key, "link": ends[0]})
            else:
                widgets.append((key, value))
        order = {
            "ConditioningSetArea": ("width", "height", "x", "y", "strength"),
            "KSampler": ("seed", "control", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
        }.get(one["class_type"])
        told = {**dict(widgets), "control": "randomize"}
        values = [told[key] for key in order] if order else [value for _, value in widgets]
        mode = (modes or {}).get(name, 0)
        out.append(
            {
                "id": int(name),
                "type": one["class_type"],
                "mode": mode,
                "inputs": inputs,
                "widgets_values": values,
            }
        )
    return json.dumps({"last_node_id": 11, "nodes": out, "links": links, "version": 0.4})


@pytest.mark.parametrize("as_tables", [False, True])
def test_a_workflow_saved_from_the_menu_gives_the_same_layout(as_tables: bool) -> None:
    assert taken(saved(workflow(), as_tables=as_tables)).layout == taken(sent()).layout


def test_nodes_that_are_switched_off_or_bypassed_do_what_they_do_in_comfyui() -> None:
    never = taken(saved(workflow(), {"6": 2}))
    assert prompts(never) == ["a <dog>"]
    assert any("switched off" in note for note in never.notes)
    bypassed = taken(saved(workflow(), {"6": 4}))
    assert prompts(bypassed) == ["a <dog>"]
    assert bypassed.layout.base.prompt == "a bedroom, a <cat>"
    assert any("bypassed" in note for note in bypassed.notes)


def test_percentages_are_shares_of_the_picture() -> None:
    share = node(
        "ConditioningSetAreaPercentage",
        conditioning=["3", 0],
        x=0.1,
        y=0.2,
        width=0.3,
        height=0.4,
        strength=1.0,
    )
    assert boxes(taken(sent(n4=share)))[0] == pytest.approx((0.1, 0.2, 0.4, 0.6))


def test_links_to_values_are_followed() -> None:
    found = taken(
        sent(
            n3=text(["20", 0]), n20=node("Reroute", **{"": ["21", 0]}),
            n21=node("PrimitiveStringMultiline", value="a <dog> asleep"),
            n22=node("PrimitiveInt", value=128), n4=area("3", 0, ["22", 0], 256, 256),  # type: ignore[arg-type]
        )
    )  # fmt: skip
    assert prompts(found)[0] == "a <dog> asleep"
    assert boxes(found)[0] == (0, 0.25, 0.5, 0.75)


def test_the_whole_pictures_share_is_what_comfyuis_mean_gives_it() -> None:
    assert taken(sent()).layout.base.alpha == 0.5
    strong = taken(sent(n4=area("3", 0, 0, 256, 512, 3.0), n6=area("5", 256, 0, 256, 512, 3.0)))
    assert strong.layout.base.alpha == 0.25
    uneven = taken(sent(n4=area("3", 0, 0, 256, 512, 2.0)))
    assert any("strengths 2, 1" in note for note in uneven.notes)


def test_without_a_prompt_of_the_whole_picture_one_is_made_without_concepts() -> None:
    nodes = workflow()
    nodes["11"]["inputs"]["positive"] = ["7", 0]
    found = taken(json.dumps(nodes))
    assert found.layout.base.prompt == "a dog, a cat"
    assert found.layout.base.alpha == 0.1
    assert any("no prompt of the whole image" in note for note in found.notes)


def test_negative_prompts_of_an_area_go_to_its_region() -> None:
    nodes = workflow(
        n20=text("blurry"), n21=area("20", 0, 64, 256, 384), n22=text("dark"), n23=area("22", 0, 0, 64, 64),
        n24=node("ConditioningCombine", conditioning_1=["9", 0], conditioning_2=["21", 0]),
        n25=node("ConditioningCombine", conditioning_1=["24", 0], conditioning_2=["23", 0]),
    )  # fmt: skip
    nodes["11"]["inputs"]["negative"] = ["25", 0]
    found = taken(json.dumps(nodes))
    assert [region.negative for region in found.layout.regions] == ["blurry", None]
    assert found.layout.base.negative == "lowres"
    assert any("'dark'" in note for note in found.notes)


def test_a_node_with_two_prompts_passes_each_on_by_itself() -> None:
    nodes = workflow(n20=node("ControlNetApplyAdvanced", positive=["8", 0], negative=["9", 0], strength=1))
    nodes["11"]["inputs"]["positive"], nodes["11"]["inputs"]["negative"] = ["20", 0], ["20", 1]
    found = taken(json.dumps(nodes))
    assert found.layout.base.negative == "lowres"
    assert prompts(found) == ["a <dog>", "a <cat>"]
    assert any("ControlNetApplyAdvanced) is not carried over" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, "samples with euler normal"),
        ({}, "loads v1-5.safetensors"),
        ({"n12": node("LoraLoader", lora_name="dog.safetensors", strength_model=1)}, "loads dog.safetensors"),
        ({"n4": area("3", 300, 64, 300, 64)}, "leaves the image"),
        ({"n4": area("3", 600, 64, 300, 64)}, "lies outside the image"),
        ({"n4": node("ConditioningSetMask", conditioning=["3", 0], mask=["30", 0])}, "mask is not in the file"),
        ({"n4": node("ConditioningSetTimestepRange", conditioning=["3", 0], start=0)}, "is not carried over"),
        ({"n4": node("FancyRegion", something=["3", 0])}, "FancyRegion) is not known"),
        ({"n3": text("embedding:dog sits")}, "embedding:dog"),
        ({"n3": text("a __colour__ dog")}, "__colour__ takes a line of a file"),
        ({"n3": text("")}, "without a prompt"),
        ({"n3": text(["99", 0])}, "cannot be read"),
        ({"n10": node("EmptyLatentImage", width=500, height=512)}, "512 x 512 is taken"),
        ({"n2": node("ConditioningConcat", conditioning_to=["3", 0], conditioning_from=["5", 0])}, "are joined"),
        ({"n2": node("ConditioningAverage", conditioning_to=["3", 0], conditioning_from=["5", 0])}, "first is kept"),
        ({"n20": text("a bird"), "n21": node("KSampler", positive=["20", 0])}, "node 21 (KSampler) has other prompts"),
    ],
)  # fmt: skip
def test_what_a_layout_cannot_say_is_told_and_stands_in_the_file(changes: dict[str, Any], note: str) -> None:
    found = taken(sent(**changes))
    assert any(note in one for one in found.notes), found.notes
    assert note in "".join(
        line for line in found.to_toml().splitlines(keepends=True) if line.startswith("# ")
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 2**64 - 1), ("seed", -3), ("steps", 0), ("steps", 10**9), ("cfg", 1000), ("denoise", 0.5)],
)
def test_settings_beyond_a_layouts_range_are_told_and_left_out(key: str, value: float) -> None:
    nodes = workflow()
    nodes["11"]["inputs"][key] = value
    assert len(taken(json.dumps(nodes)).notes) == 3


def test_areas_in_pixels_need_a_size_which_may_be_given() -> None:
    nodes = workflow()
    del nodes["10"]
    error = refused(json.dumps(nodes))
    assert "--size" in (error.hint or "")
    assert boxes(taken(json.dumps(nodes), size=(512, 1024)))[0] == (0, 0.0625, 0.5, 0.4375)


def test_the_sampler_with_the_most_areas_is_taken_wherever_it_stands() -> None:
    nodes = {"0": node("KSampler", positive=["2", 0], seed=99), **workflow()}
    found = taken(json.dumps(nodes))
    assert found.layout.image.seed == 5
    assert len(found.layout.regions) == 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{}", "not a ComfyUI workflow"),
        ('{"nodes": []}', "not a ComfyUI workflow"),
        ('{"nodes": [1, null, {"type": 3}]}', "not a ComfyUI workflow"),
        ('{"a": {"class_type": "X", "inputs": {}}}', "no sampler with a prompt"),
        ('{"a": {"class_type": "KSampler", "inputs": {"positive": ["b", 0]}}}', "no sampler with a prompt"),
        ('{"a": 1', "their.file:1: not JSON"),
        ('{"a": {\n"b": NaN}}', "not JSON: NaN"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"a": ' + "[" * 100_000, "deep"),
        ('{"a": ' + '{"a":' * 5000 + "1" + "}" * 5000 + "}", "deep"),
        ('{"' + '\\"' * 500_000, "not JSON"),
        ('{"a": "' + "x" * (5 << 20), "larger than"),
        (json.dumps({str(n): node("X") for n in range(3000)}), "more than 2000 nodes"),
        (json.dumps(workflow(n3=text("very " * 5000))), "more than 20000 characters"),
        (json.dumps(workflow(n3=text("very " * 500))), "region.0.prompt must have at most 2000"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_workflow_or_a_bomb_is_refused(document: str, message: str) -> None:
    assert message in str(refused(document))


def test_links_in_a_circle_are_refused_by_name() -> None:
    nodes = workflow()
    nodes["7"]["inputs"]["conditioning_1"] = ["8", 0]
    assert "lead back to it" in str(refused(json.dumps(nodes)))
    nodes = workflow(n3=text(["20", 0]), n20=node("Reroute", value=["20", 0]))
    assert "too many nodes" in str(refused(json.dumps(nodes)))


def test_conditionings_combined_with_themselves_do_not_multiply_without_end() -> None:
    nodes = workflow()
    for number in range(100, 160):
        both = [str(number + 1), 0]
        nodes[str(number)] = node("ConditioningCombine", conditioning_1=both, conditioning_2=both)
    nodes["160"] = nodes["2"]
    nodes["11"]["inputs"]["positive"] = ["100", 0]
    assert "too often" in str(refused(json.dumps(nodes)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["1", "2", "KSampler", "CLIPTextEncode"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(
    where=st.tuples(
        st.sampled_from(list(workflow())), st.sampled_from(["inputs", "class_type", "width", "positive"])
    ),
    value=json_values,
)
def test_a_workflow_with_anything_anywhere_is_taken_or_refused(where: tuple[str, str], value: Any) -> None:
    nodes = workflow()
    name, key = where
    if key in ("inputs", "class_type"):
        nodes[name][key] = value
    else:
        nodes[name]["inputs"][key] = value
    try:
        taken(json.dumps(nodes))
    except CidmError as error:
        assert error.code == ExitCode.INVALID


@settings(deadline=None, max_examples=150)
@given(json_values)
def test_a_saved_workflow_of_anything_is_taken_or_refused(value: Any) -> None:
    entry = {"id": 1, "type": "KSampler", "inputs": value, "widgets_values": value, "mode": value}
    with pytest.raises(CidmError):
        taken(json.dumps({"nodes": [entry, value], "links": value}))


# Regional Prompter


def test_breaks_become_columns_of_the_ratio() -> None:
    found = taken("a house BREAK a <dog> BREAK a <cat>", ratio="1,2,1")
    assert prompts(found) == ["a house", "a <dog>", "a <cat>"]
    assert boxes(found) == [(0, 0, 0.25, 1), (0.25, 0, 0.75, 1), (0.75, 0, 1, 1)]
    assert found.kind == "regional-prompter"


def test_without_a_ratio_the_parts_are_equal_and_rows_lie_below_one_another() -> None:
    found = taken("sky BREAK sea", split="rows")
    assert boxes(found) == [(0, 0, 1, 0.5), (0, 0.5, 1, 1)]
    assert boxes(taken("sky BREAK sea")) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)]


GRID = "blue sky ADDCOL hair ADDCOL (aquarium:1.3) ADDROW desk ADDCOL dress"
THIRD = pytest.approx(1 / 3, abs=1e-5)


@pytest.mark.parametrize("prompt", [GRID, GRID.replace("ADDCOL", "BREAK").replace("ADDROW", "BREAK")])
def test_rows_are_split_into_columns_by_the_extensions_own_example(prompt: str) -> None:
    # Row heights 1 and 2; the first row in 2:1:1, the second in 4:6. BREAK alone leaves the rows to the ratio.
    found = taken(prompt, ratio="1,2,1,1;2,4,6")
    assert prompts(found) == ["blue sky", "hair", "(aquarium:1.3)", "desk", "dress"]
    assert boxes(found) == [
        (0, 0, 0.5, THIRD),
        (0.5, 0, 0.75, THIRD),
        (0.75, 0, 1, THIRD),
        (0, THIRD, 0.4, 1),
        (0.4, THIRD, 1, 1),
    ]


def test_columns_are_split_into_rows_where_rows_is_the_main_splitting() -> None:
    found = taken("a ADDROW b ADDCOL c", ratio="1;3;1,2;1", split="rows")
    # Commas part the columns, 1 : 2 wide; semicolons the rows in them, 3 : 1 in the first.
    assert boxes(found) == [(0, 0, THIRD, 0.75), (0, 0.75, THIRD, 1), (THIRD, 0, 1, 1)]


@pytest.mark.parametrize(
    ("prompt", "ratio", "split", "expected"),
    [
        ("a ADDROW b", "1,3", "columns", [(0, 0, 1, 0.25), (0, 0.25, 1, 1)]),
        ("a ADDROW b", "1,3", "rows", [(0, 0, 1, 0.25), (0, 0.25, 1, 1)]),
        ("a ADDCOL b", "1,3", "columns", [(0, 0, 0.25, 1), (0.25, 0, 1, 1)]),
        ("a ADDCOL b", "1,3", "rows", [(0, 0, 0.25, 1), (0.25, 0, 1, 1)]),
        ("a ADDROW b", "1;3", "columns", [(0, 0, 1, 0.25), (0, 0.25, 1, 1)]),
        ("a BREAK b", "1;3", "columns", [(0, 0, 1, 0.25), (0, 0.25, 1, 1)]),
        ("a ADDCOL b ADDROW c ADDCOL d", "1,2;1,1", "columns",
         [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)]),
    ],
)  # fmt: skip
def test_ratios_go_the_way_of_the_keywords(prompt: str, ratio: str, split: str, expected: list[Any]) -> None:
    assert boxes(taken(prompt, ratio=ratio, split=split)) == expected


def test_parts_never_leave_a_gap_and_end_at_the_pictures_edge() -> None:
    for count in range(2, 40):
        found = boxes(
            taken(" BREAK ".join("a" * count), ratio=",".join(str(n % 3 + 1) for n in range(count)))
        )
        edges = [box for box in found if box is not None]
        assert edges[0][0] == 0
        assert edges[-1][2] == 1
        assert all(left[2] == right[0] for left, right in itertools.pairwise(edges))


def test_the_common_part_goes_in_front_of_every_region_and_the_base_is_the_whole_picture() -> None:
    found = taken("best ADDCOMM a beach ADDBASE a <dog> BREAK a <cat>")
    assert found.layout.base.prompt == "best, a beach"
    assert prompts(found) == ["best, a <dog>", "best, a <cat>"]
    assert found.layout.base.alpha == 0.2
    assert taken("best ADDCOMM a BREAK b").layout.base.prompt == "best"


@pytest.mark.parametrize("order", ["common ADDCOMM base ADDBASE ", "base ADDBASE common ADDCOMM "])
def test_the_opening_parts_are_known_by_their_keywords_in_either_order(order: str) -> None:
    found = taken(order + "a <dog> ADDCOL a <cat>")
    assert found.layout.base.prompt == "common, base"
    assert prompts(found) == ["common, a <dog>", "common, a <cat>"]


def test_a_base_by_its_keyword_stands_before_a_common_part_that_the_panel_asks_for() -> None:
    found = taken("base ADDBASE common BREAK a BREAK b\nSteps: 1, RP Use Common: True, RP Use Base: True")
    assert found.layout.base.prompt == "common, base"
    assert prompts(found) == ["common, a", "common, b"]


@pytest.mark.parametrize(
    "keyword", ["ADD COL", "addcol", "AddCol", "ADD_COL", "\nadd col\n", "\nbreak\n", "\n Add-Col \n"]
)
def test_what_can_only_be_meant_as_a_keyword_is_one_and_is_told(keyword: str) -> None:
    found = taken(f"red hair {keyword} blue hair", split="columns")
    assert prompts(found) == ["red hair", "blue hair"]
    assert any(note.startswith(f"{keyword.strip()} is taken for ") for note in found.notes)


def test_words_that_may_be_words_part_nothing_and_nothing_is_lost() -> None:
    for words in ("a coffee break", "add row houses and a dog", "red hair\nblue hair"):
        found = taken(words, split="columns")
        assert found.layout.base.prompt == " ".join(words.split())
        assert found.layout.regions == ()
        (note,) = found.notes
        assert note.startswith("no region was found")


def test_the_modes_of_the_extensions_first_versions_are_todays_columns_and_rows() -> None:
    for mode, expected in (("Horizontal", (0, 0, 0.5, 1)), ("Vertical", (0, 0, 1, 0.5))):
        assert boxes(taken(f"a BREAK b\nSteps: 1, RP Active: True, RP Divide mode: {mode}"))[0] == expected


def test_a_workflow_without_an_area_is_told_to_have_no_region() -> None:
    nodes = workflow()
    nodes["11"]["inputs"]["positive"] = ["2", 0]
    assert any(note.startswith("no region was found") for note in taken(json.dumps(nodes)).notes)


PARAMETERS = """a beach BREAK a <dog>,
<lora:style:0.8> BREAK a cat
Negative prompt: lowres
Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 512x768, Model: "a, \\"b\\"", RP Active: True, \
RP Divide mode: Matrix, RP Matrix submode: Rows, RP Ratios: "1,2", RP Base Ratios: 0.3, RP Use Base: True, \
RP Use Common: False, RP Flip: False, Version: v1.10"""


def test_the_settings_below_a_prompt_are_read() -> None:
    found = taken(PARAMETERS)
    layout, image = found.layout, found.layout.image
    assert (layout.base.prompt, layout.base.negative, layout.base.alpha) == ("a beach", "lowres", 0.3)
    assert prompts(found) == ["a <dog>", "a cat"]
    assert boxes(found) == [(0, 0, 1, THIRD), (0, THIRD, 1, 1)]
    assert (image.size, image.seed, image.steps, image.guidance) == ((512, 768), 42, 20, 7.5)
    for note in ("<lora:style:0.8> left out", 'Model a, "b"', "Sampler Euler a"):
        assert any(note in one for one in found.notes), note


def test_a_panel_that_was_off_parts_nothing() -> None:
    found = taken(PARAMETERS.replace("RP Active: True", "RP Active: False"))
    assert found.layout.regions == ()
    assert found.layout.base.prompt == "a beach, a <dog>, a cat"
    assert taken("a <dog> on the beach").layout.base.prompt == "a <dog> on the beach"


def test_a_request_to_the_interface_is_read() -> None:
    args = [
        True,
        False,
        "Matrix",
        "Vertical",
        "Mask",
        "Prompt",
        "1,3",
        "",
        False,
        False,
        False,
        "Attention",
        False,
    ]
    request = {
        "prompt": "a BREAK b", "negative_prompt": "x", "width": 512, "height": 256, "steps": 30, "seed": -1,
        "alwayson_scripts": {"Regional Prompter": {"args": args}},
    }  # fmt: skip
    found = taken(json.dumps(request))
    assert boxes(found) == [(0, 0, 1, 0.25), (0, 0.25, 1, 1)]
    assert (found.layout.image.size, found.layout.image.steps, found.layout.image.seed) == (
        (512, 256),
        30,
        None,
    )
    assert found.layout.base.negative == "x"


def test_negative_prompts_are_dealt_to_the_regions_where_there_are_as_many() -> None:
    each = taken("a BREAK b\nNegative prompt: x BREAK y")
    assert [region.negative for region in each.layout.regions] == ["x", "y"]
    with_base = taken("a BREAK b\nNegative prompt: w BREAK x BREAK y")
    assert with_base.layout.base.negative == "w"
    assert [region.negative for region in with_base.layout.regions] == ["x", "y"]
    odd = taken("a BREAK b BREAK c\nNegative prompt: x BREAK y")
    assert odd.layout.base.negative == "x, y"
    assert any("2 negative prompts for 3 regions" in note for note in odd.notes)


@pytest.mark.parametrize(
    ("prompt", "wishes", "note"),
    [
        ("a BREAK b BREAK c", {"ratio": "1,1"}, "3 prompts for fewer parts"),
        ("a BREAK b", {"ratio": "1,2,3"}, "other parts than the prompt"),
        ("a ADDCOL b ADDROW c", {"ratio": "1,1;1,1;1,1"}, "other parts than the prompt"),
        ("a BREAK BREAK b", {}, "without words"),
        ("[a|b] BREAK c", {}, "words that change"),
        ("a AND b :0.5", {}, "weights of the parts"),
        ("a ADDCOL b ADDBASE c BREAK d", {}, "ADDCOL before ADDBASE parts no regions"),
        ("a __colour/dark__ dog BREAK b", {}, "__colour/dark__ takes a line of a file"),
    ],
)
def test_what_does_not_fit_is_told(prompt: str, wishes: dict[str, str], note: str) -> None:
    assert any(note in one for one in taken(prompt, **wishes).notes)


@pytest.mark.parametrize(
    ("prompt", "wishes", "code", "message"),
    [
        ("", {}, 4, "no prompt"),
        ("  <lora:x:1>  ", {}, 4, "no prompt"),
        ("a BREAK b", {"ratio": "1,x"}, 2, "--ratio: '1,x' is not a divide ratio"),
        ("a BREAK b", {"ratio": "0,1"}, 2, "not a divide ratio"),
        ("a BREAK b", {"ratio": "nan,1"}, 2, "not a divide ratio"),
        ("a BREAK b", {"ratio": "1;"}, 2, "not a divide ratio"),
        ("a\nSteps: 1, RP Ratios: 1x", {}, 4, "their.file: '1x' is not a divide ratio"),
        ("a ADDP b", {}, 4, "ADDP"),
        ("a BREAK b\nSteps: 1, RP Divide mode: Mask", {}, 4, "mode 'Mask'"),
        ("x BREAK " * 300, {}, 4, "more than 100 regions"),
        ("x" * 70_000, {}, 4, "more than 65536 characters"),
        ("(" * 30_000, {}, 4, "more than 20000 characters"),
        ('{"1": {}}', {"ratio": "1,1"}, 2, "workflow"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_gives_no_layout_is_refused(
    prompt: str, wishes: dict[str, str], code: int, message: str
) -> None:
    assert message in str(refused(prompt, ExitCode(code), **wishes))


# words


@pytest.mark.parametrize(
    ("theirs", "ours", "brackets"),
    [
        ("a (red:1.2) dog", "a (red:1.2) dog", True),
        ("a ((red)) dog", "a ((red)) dog", True),
        ("a (red (and:0.5) blue:1.2) dog", "a (red (and:0.6) blue:1.2) dog", True),
        ("a (red (and:0.5) blue:1.2) dog", "a (red (and:0.5) blue:1.2) dog", False),
        ("[(red:1.1)] (([a] b: 1.50)c)", "[(red:1)] (([a] b:1.65)c)", True),
        ("a (red:99999) dog", "a (red:100) dog", False),
        ("a [dull] dog", "a [dull] dog", True),
        ("a [dull] dog", r"a \[dull\] dog", False),
        ("a BREAK dog", r"a \BREAK dog", False),
        (r"a \(plain\) dog", r"a \(plain\) dog", False),
        ("a {red|blue} <dog:0.7>", "a {red|blue} <dog:0.7>", True),
        ("time: 12:30, ratio 1|2", "time: 12:30, ratio 1|2", True),
        ("a [cat:dog:0.5] here", "a cat here", True),
        ("a [:dog:10] here", "a dog here", True),
        ("a [cat|dog] here", "a cat here", True),
        ("a <dog> (<cat>:1.1)", "a <dog> (<cat>:1.1)", True),
        ("a <lora:x:0.5> dog <hypernet:y:1>", "a dog", True),
        ("a < b", r"a \< b", True),
        (r"a \< b", r"a \< b", True),
        ("a (dog", "a (dog", True),
        ("a dog)", "a dog)", True),
        ("a [dog)", "a [dog)", True),
        (" a ,, , dog , ", "a, dog", True),
        ("a\n\ndog", "a dog", True),
    ],
)
def test_weights_become_a_layouts_and_other_marks_go(theirs: str, ours: str, brackets: bool) -> None:
    assert plain_prompt(theirs, "x", brackets=brackets)[0] == ours


@settings(deadline=None)
@given(st.text(st.sampled_from("ab<>()[]:|\\0.5, "), max_size=40), st.booleans())
def test_any_words_are_a_prompt_in_the_end(theirs: str, brackets: bool) -> None:
    from cidm_cli.options.prompts import parse_prompt

    parse_prompt(plain_prompt(theirs, "x", brackets=brackets)[0])


# the command


def test_import_writes_a_layout_beside_its_warnings(cidm: Cidm, elsewhere: Path) -> None:
    (elsewhere / "flow.json").write_text(sent())
    ran = cidm("layout", "import", "flow.json")
    assert (ran.code, ran.out) == (0, "flow.toml\n")
    assert "warning: node 11 (KSampler) samples with euler normal" in ran.err
    assert load_layout(elsewhere / "flow.toml") == taken(sent()).layout
    again = cidm("layout", "import", "flow.json")
    assert again.code == ExitCode.FAILED
    assert "--force" in again.error
    answer = cidm("layout", "import", "flow.json", "-o", "-", "--json").answer
    assert (answer["kind"], answer["path"]) == ("comfyui", None)
    assert answer["warnings"]
    assert load_layout("x", answer["text"]).regions


def test_import_takes_a_prompts_ratio_and_size(cidm: Cidm, elsewhere: Path) -> None:
    (elsewhere / "p.txt").write_text("a BREAK b")
    options = ("--ratio", "1,3", "--split", "rows", "--size", "64x128")
    assert cidm("layout", "import", "p.txt", *options).code == 0
    layout = load_layout(elsewhere / "p.toml")
    assert layout.image.size == (64, 128)
    assert layout.regions[0].box == (0, 0, 1, 0.25)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none.json",), 3, "no such file"),
        (("p.png",), 4, "is an image"),
        (("latin.txt",), 4, "not UTF-8"),
        (("p.txt", "--size", "big"), 2, "WIDTHxHEIGHT"),
        (("p.txt", "--split", "diagonal"), 2, "diagonal"),
        ((".",), 4, "directory"),
    ],
)
def test_what_import_cannot_read_is_refused_in_one_line(
    arguments: tuple[str, ...], code: int, words: str, cidm: Cidm, elsewhere: Path
) -> None:
    (elsewhere / "p.txt").write_text("a BREAK b")
    (elsewhere / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (elsewhere / "latin.txt").write_bytes(b"caf\xe9")
    ran = cidm("layout", "import", *arguments)
    assert ran.code == code
    assert words in ran.error
    assert not list(elsewhere.glob("*.toml"))


def test_a_name_in_a_file_cannot_put_a_line_into_the_layout() -> None:
    nodes = workflow(n12=node("LoraLoader", lora_name="x\nseed = 1\x1b[31m"))
    text = taken(json.dumps(nodes)).to_toml()
    assert "\nseed = 1\x1b" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("make", [lambda n: "[" * n + "]" * n, lambda n: '{"a":' * n + "1" + "}" * n])
def test_json_may_be_as_deep_as_allowed_and_no_deeper(make: Callable[[int], str]) -> None:
    assert parse_json(make(MAX_DEPTH), "x")
    with pytest.raises(CidmError, match="x:1: brackets more than 64 deep"):
        parse_json(make(MAX_DEPTH + 1), "x")
    assert parse_json('{"a": "' + "[" * 1000 + '\\""}', "x") == {"a": "[" * 1000 + '"'}
